/** The version of this tool. */
import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

/** The version in the package's own manifest. */
export const toolVersion: string = manifest.version;
