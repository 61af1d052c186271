/** Module hooks of `few-files.ts`. */
import { readFileSync } from "node:fs";
import type { LoadHook } from "node:module";
import { fileURLToPath } from "node:url";

/** The hook of Node's module loader that reads sources one at a time. */
export const load: LoadHook = (url, context, nextLoad) => {
  if (!url.startsWith("file:") || context.format !== "module") return nextLoad(url, context);
  return { format: "module", source: readFileSync(fileURLToPath(url)), shortCircuit: true };
};
