import { readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const floors = [
  ["base"],
  ["spec", "graph", "numeric", "format", "text", "config", "laws"],
  ["tensors", "grad", "onnx", "cost"],
  ["net", "surgery"],
  ["step", "plan"],
  ["report"],
  ["io"],
  ["ort", "reference", "tokenizer"],
  ["checkpoint", "hub"],
  ["convert", "train", "evals", "fit"],
  ["study"],
  ["cli"],
];
const LAST_PURE_FLOOR = 5;
const onlyImporter: Record<string, string> = {
  "onnxruntime-node": "ort",
  tokenizers: "tokenizer",
  "@huggingface/hub": "hub",
};
/**
 * Backends are chosen above: everything below speaks to `engine/runtime/runtime.ts`. A study names the engine's version
 * in its results.
 */
const backends = ["ort", "reference"];
const choosers = ["study", "cli"];
const impure = /\bDate\.now\b|\bnew Date\s*\(\s*\)|\bMath\.random\b|\bprocess\.\w|\bperformance\.now\b/;

const root = fileURLToPath(new URL("../src", import.meta.url));
const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
const floorOf = (folder: string): number => floors.findIndex((names) => names.includes(folder));
const isNode = (name: string): boolean => name.startsWith("node:") || builtinModules.includes(name);

/** What is wrong with one file, in words. */
function breaches(file: string): string[] {
  const code = readFileSync(join(root, file), "utf8").replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
  const folder = file.includes("/") ? file.slice(0, file.indexOf("/")) : undefined;
  const floor = folder === undefined ? Infinity : floorOf(folder);
  const found: string[] = [];
  if (floor < 0) return [`folder ${folder} has no floor`];
  if (floor <= LAST_PURE_FLOOR && impure.test(code))
    found.push(`uses ${impure.exec(code)![0]}, which floors 0-5 may not`);
  for (const [, name] of code.matchAll(/(?:\bfrom|\bimport|\brequire)\s*\(?\s*["']([^"']+)["']/g)) {
    if (name!.startsWith(".")) {
      const target = relative(root, join(root, dirname(file), name!));
      const other = target.slice(0, Math.max(0, target.indexOf("/")));
      if (!name!.endsWith(".js")) found.push(`imports ${name} without .js`);
      if (
        folder === undefined ? other === "cli" : other !== folder && !(floorOf(other) >= 0 && floorOf(other) < floor)
      ) {
        found.push(`imports ${name}, which is not on a lower floor`);
      }
      if (folder !== undefined && backends.includes(other) && other !== folder && !choosers.includes(folder))
        found.push(`imports ${name}, a backend`);
    } else {
      if (floor <= LAST_PURE_FLOOR && isNode(name!)) found.push(`imports ${name}, which floors 0-5 may not`);
      const only = onlyImporter[name!];
      if (only !== undefined && only !== folder) found.push(`imports ${name}, which only src/${only} may`);
    }
  }
  return found;
}

describe("architecture", () => {
  test.each(files)("src/%s keeps to its floor", (file) => {
    expect(breaches(file)).toEqual([]);
  });
});
