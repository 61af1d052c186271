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

/** The one file that may be made rather than copied. */
const tokenizerConfigFile = "tokenizer_config.json";

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
    if (!names.includes(tokenizerConfigFile)) names.push(tokenizerConfigFile);
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
    const ownText = name === tokenizerConfigFile ? await tokenizerConfigFor(from) : null;
    const data = ownText ?? (await readWhole(join(from, name), sizeLimits.record, "copy file"));
    await writeFileSynced(join(to, name), data);
  }
}

/** The text of `tokenizer_config.json` where it must differ from the source's; null: the source's is right as it is. */
async function tokenizerConfigFor(from: string): Promise<string | null> {
  const read = async (name: string): Promise<Readonly<Record<string, unknown>> | null> => {
    const path = join(from, name);
    const json = (await withFsErrors(path, "copy file", () => exists(path))) ? await readJson(path) : null;
    return typeof json === "object" && !Array.isArray(json) ? (json as Readonly<Record<string, unknown>> | null) : null;
  };
  const tokenizerConfig = await read(tokenizerConfigFile);
  // This is the common case, in which a tokenizer of many megabytes need not be read.
  if (typeof tokenizerConfig?.["tokenizer_class"] === "string" && tokenizerConfig["auto_map"] === undefined)
    return null;
  return carriedTokenizerConfig({
    tokenizerConfig,
    specialTokens: await read("special_tokens_map.json"),
    tokenizer: await read("tokenizer.json"),
    config: await read("config.json"),
  });
}
