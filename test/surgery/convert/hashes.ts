/** Hashes of the files of a model folder, by which tests compare folders. */
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

/** Hashes of the weights and the config, which do not depend on the names of the parents. */
export const weightHashes = (dir: string): string[] =>
  hashes(dir).filter((line) => /\.safetensors|^config\.json/.test(line));
