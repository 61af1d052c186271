/** This tool's version, from the package's own manifest. */
import { readFileSync } from "node:fs";

const manifest = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

export const toolVersion: string = manifest.version;
