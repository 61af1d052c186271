import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

/** Hashes of all files of a folder, by name. */
export const hashes = (dir: string): string[] =>
  readdirSync(dir)
    .sort()
    .map(
      (name) =>
        `${name} ${createHash("sha256")
          .update(readFileSync(join(dir, name)))
          .digest("hex")}`,
    );

/** Of the weights and the config: what does not depend on what the parents are called. */
export const weightHashes = (dir: string): string[] =>
  hashes(dir).filter((line) => /\.safetensors|^config\.json/.test(line));
