/**
 * What a training is made from, by content: models, adapters, tokenizers and texts that were changed in place are
 * noticed when it is resumed.
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { adapterConfigFile } from "../files/checkpoint/adapter.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import type { TrainTextConfig } from "../base/schemas/index.js";
import { exists } from "../files/io/atomic.js";
import { corpusFiles } from "../text/documents/corpus.js";
import { fileFingerprint } from "../files/io/fingerprint.js";
import { indexedPrefix } from "../text/documents/indexed.js";
import type { RunText, Sources } from "./types.js";

/** The model and the text whose files are looked at. */
interface SourceOptions {
  /** Null: the training makes a new model. */
  readonly model: ModelSource | null;
  readonly text: TrainTextConfig;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Fingerprints of weights, an adapter's settings, the tokenizer and the texts. A config.json is left out: what of it
 * counts is the model's shape, which runs compare themselves. Throws inputError for a model that cannot be opened and
 * text that is not there.
 */
export async function sourcesOf({ model, text, signal }: SourceOptions): Promise<Sources> {
  const paths = [...(model === null ? [] : await modelFiles(model)), ...(await textFiles(text))];
  const sources: Record<string, string> = {};
  for (const path of paths) {
    signal?.throwIfAborted();
    sources[path] = await fileFingerprint(path);
  }
  return sources;
}

async function modelFiles(source: ModelSource): Promise<string[]> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  const { dir, tensors, adapter } = checkpoint;
  const tokenizer = join(dir, "tokenizer.json");
  const within = (folder: string, some: ReadonlyMap<string, { readonly file: string }>): string[] =>
    [...new Set([...some.values()].map(({ file }) => file))].sort().map((file) => join(folder, file));
  return [
    ...within(dir, tensors),
    ...((await exists(tokenizer)) ? [tokenizer] : []),
    ...(adapter === null ? [] : [join(adapter.dir, adapterConfigFile), ...within(adapter.dir, adapter.tensors)]),
  ];
}

async function textFiles({ files = [], mix = [] }: TrainTextConfig): Promise<string[]> {
  const paths: string[] = [];
  for (const path of [...files, ...mix.flatMap((part) => (part.path === undefined ? [] : [part.path]))]) {
    if (/\.(bin|idx)$/.test(path)) paths.push(...[".bin", ".idx"].map((end) => `${indexedPrefix(path)}${end}`));
    else paths.push(...(await corpusFiles(path)));
  }
  return paths;
}

const tokensKey = "tokens";

/** Hashes by training part: the runs of a study have one text, of perhaps hundreds of megabytes. */
const hashed = new WeakMap<RunText["train"], { readonly heldOut: RunText["heldOut"]; readonly hash: Sources }>();

/** Hash of the tokens, which changes with text, tokenizer or split. */
export function textHash(text: RunText): Sources {
  const known = hashed.get(text.train);
  if (known?.heldOut === text.heldOut) return known.hash;
  const hash = newHash(text);
  hashed.set(text.train, { heldOut: text.heldOut, hash });
  return hash;
}

function newHash({ train, heldOut }: RunText): Sources {
  const hash = createHash("sha256");
  for (const rows of [train, heldOut]) {
    for (const row of ArrayBuffer.isView(rows) ? [rows] : rows.map(({ tokens }) => tokens)) {
      const bytes = new Uint8Array(row.buffer, row.byteOffset, row.byteLength);
      hash.update(`${row.BYTES_PER_ELEMENT} x ${row.length}`).update(bytes);
    }
  }
  return { [tokensKey]: hash.digest("hex").slice(0, 16) };
}

function changeOf(before: string | undefined, after: string | undefined): string {
  if (after === undefined) return "the file is gone";
  return before === undefined ? "the file is new" : `the file had ${before}, and has ${after}`;
}

/**
 * Throws inputError that names the first source that changed. Work that an earlier version began has no `was` and
 * passes, as do sources whose `is` is not known yet.
 */
export function requireSameSources(was: Sources | undefined, is: Sources | undefined, work: "run" | "study"): void {
  if (was === undefined || is === undefined) return;
  const hint = `put it back to go on, or begin a ${work} of its own in another folder`;
  const paths = [...new Set([...Object.keys(was), ...Object.keys(is)])].filter((path) => path !== tokensKey);
  const [first, ...others] = paths.filter((path) => was[path] !== is[path]);
  if (first !== undefined) {
    const what = changeOf(was[first], is[first]);
    const more = others.length === 0 ? "" : ` (and ${others.length} more ${others.length === 1 ? "file" : "files"})`;
    throw inputError(`changed since this ${work} began: ${what}${more}`, { where: first, hint });
  }
  if (was[tokensKey] === undefined || is[tokensKey] === undefined || was[tokensKey] === is[tokensKey]) return;
  throw inputError(`the text gives other tokens than when this ${work} began`, {
    where: "text",
    hint: `has the tokenizer changed, or the built-in text with a new version? ${hint}`,
  });
}
