/** The files of a model folder that are neither config nor weights: tokenizer, generation settings, licence. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { bytes as bytesText } from "../../base/format.js";
import { isCarried } from "../formats/model-files.js";
import { exists, writeFileSynced } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { sizeLimits, readWhole, requireKind, tooLarge } from "../io/open.js";
import { readJson } from "../io/ranges.js";
import { carriedTokenizerConfig } from "./carried-tokenizer.js";

const made = "tokenizer_config.json";

/**
 * Names of the files that `from` gives, with the sum of their sizes in bytes. `tokenizer_config.json` is among them
 * also where `from` has none but needs one (`carriedTokenizerConfig`). Throws inputError for a file that is far too
 * large to be one of them.
 */
export async function findCarried(from: string): Promise<{ names: string[]; bytes: number }> {
  const names: string[] = [];
  let bytes = 0;
  for (const name of (await withFsErrors(from, "list folder", () => readdir(from))).filter(isCarried).sort()) {
    const info = await withFsErrors(join(from, name), "copy file", () => stat(join(from, name)));
    if (info.isDirectory()) continue;
    requireKind(info, join(from, name));
    if (info.size > sizeLimits.record)
      throw tooLarge(join(from, name), `file has ${bytesText(info.size)}`, sizeLimits.record);
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

/**
 * Copies files by name from one folder to another and flushes them to disk. Modes are not copied: a source may be
 * read-only.
 */
export async function copyFiles(from: string, to: string, names: readonly string[]): Promise<void> {
  for (const name of names) {
    const source = join(from, name);
    const changed = name === made ? await tokenizerConfigFor(from) : null;
    await writeFileSynced(join(to, name), changed ?? (await readWhole(source, sizeLimits.record, "copy file")));
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
  if (typeof tokenizerConfig?.["tokenizer_class"] === "string" && tokenizerConfig["auto_map"] === undefined)
    return null;
  return carriedTokenizerConfig({
    tokenizerConfig,
    specialTokens: await read("special_tokens_map.json"),
    tokenizer: await read("tokenizer.json"),
    config: await read("config.json"),
  });
}
