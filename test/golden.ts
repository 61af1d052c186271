/** The golden models: written and evaluated by transformers (see golden/README.md). */
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

export const goldenRoot = fileURLToPath(new URL("golden", import.meta.url));

export const goldenModels = ["dense", "moe", "train"].flatMap((kind) =>
  readdirSync(`${goldenRoot}/${kind}`)
    .sort()
    .map((name) => `${kind}/${name}`),
);

export const goldenDir = (model: string): string => `${goldenRoot}/${model}`;

export const readGolden = (model: string, file: string): Buffer => readFileSync(`${goldenRoot}/${model}/${file}`);

/** Names of a golden model's weight files. */
export function goldenFiles(model: string): string[] {
  return readdirSync(goldenDir(model))
    .filter((file) => /^model.*\.safetensors$/.test(file))
    .sort();
}
