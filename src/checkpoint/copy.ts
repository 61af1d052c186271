/** The files of a model folder that are neither config nor weights: tokenizer, generation settings, licence. */
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists, writeFileSynced } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";

/** Copied unchanged if present; they do not depend on the architecture. */
export const carriedFiles: readonly string[] = [
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "tokenizer.model",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
  "LICENSE",
];

/** Names of the carried files that `from` has, with the sum of their sizes in bytes. */
export async function findCarried(from: string): Promise<{ names: string[]; bytes: number }> {
  const names: string[] = [];
  let bytes = 0;
  for (const name of carriedFiles) {
    const path = join(from, name);
    if (!(await withFsErrors(path, "copy file", () => exists(path)))) continue;
    names.push(name);
    bytes += (await stat(path)).size;
  }
  return { names, bytes };
}

/** Copies files by name from one folder to another and flushes them to disk. Modes are not copied: a source may be read-only. */
export async function copyFiles(from: string, to: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const source = join(from, name);
    await writeFileSynced(join(to, name), await withFsErrors(source, "copy file", () => readFile(source)));
  }
}
