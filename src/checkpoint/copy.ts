/** The files of a model folder that are neither config nor weights: tokenizer, generation settings, licence. */
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { bytes as sizeWords } from "../base/format.js";
import { isCarried, largestCarried } from "../format/model-files.js";
import { exists, writeFileSynced } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { readJson } from "../io/ranges.js";
import { carriedTokenizerConfig } from "../tokenizer/carried.js";

const made = "tokenizer_config.json";

/**
 * Names of the files that `from` gives, with the sum of their sizes in bytes. `tokenizer_config.json` is among them also where
 * `from` has none but needs one (`carriedTokenizerConfig`). Throws inputError for a file that is far too large to be one of them.
 */
export async function findCarried(from: string): Promise<{ names: string[]; bytes: number }> {
  const names: string[] = [];
  let bytes = 0;
  for (const name of (await withFsErrors(from, "list folder", () => readdir(from))).filter(isCarried).sort()) {
    const info = await withFsErrors(join(from, name), "copy file", () => stat(join(from, name)));
    if (!info.isFile()) continue;
    if (info.size > largestCarried) {
      throw inputError(`the file has ${sizeWords(info.size)}, more than ${sizeWords(largestCarried)}`, {
        where: join(from, name),
        hint: "it would go along with the new model; if it does not belong there, move it away",
      });
    }
    names.push(name);
    bytes += info.size;
  }
  const config = await tokenizerConfigFor(from);
  if (config !== null) {
    if (!names.includes(made)) names.push(made);
    bytes += Buffer.byteLength(config);
  }
  return { names, bytes };
}

/** Copies files by name from one folder to another and flushes them to disk. Modes are not copied: a source may be read-only. */
export async function copyFiles(from: string, to: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const source = join(from, name);
    const changed = name === made ? await tokenizerConfigFor(from) : null;
    await writeFileSynced(join(to, name), changed ?? (await withFsErrors(source, "copy file", () => readFile(source))));
  }
}

async function tokenizerConfigFor(from: string): Promise<string | null> {
  const read = async (name: string): Promise<Readonly<Record<string, unknown>> | null> => {
    const path = join(from, name);
    const json = (await withFsErrors(path, "copy file", () => exists(path))) ? await readJson(path) : null;
    return typeof json === "object" && !Array.isArray(json) ? (json as Readonly<Record<string, unknown>> | null) : null;
  };
  const tokenizerConfig = await read(made);
  // The common case, without reading a tokenizer of many megabytes.
  if (typeof tokenizerConfig?.["tokenizer_class"] === "string" && tokenizerConfig["auto_map"] === undefined) return null;
  return carriedTokenizerConfig({
    tokenizerConfig, specialTokens: await read("special_tokens_map.json"), tokenizer: await read("tokenizer.json"), config: await read("config.json"),
  });
}
