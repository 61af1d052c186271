/**
 * Text to a data set of Megatron-LM: `PREFIX_FIELD_document.bin` and `.idx`, byte for byte what its
 * `tools/preprocess_data.py` writes with the same tokenizer. Several tokenizers work side by side, and what they give
 * is written in the order of the documents. Work that was stopped goes on where it was:
 *
 *   .NAME.unfinished/ids            the ids so far; it becomes NAME.bin
 *   .NAME.unfinished/lengths        an int32 for each document
 *   .NAME.unfinished/journal.jsonl  what is being made, then how far both files are flushed
 */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, rename, rm, rmdir, stat, type FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { inputError, interruptedError } from "../../base/errors.js";
import { eventsOf } from "../../base/events.js";
import { exists, stageFile, syncDirectory, writeAll, writeFileSynced } from "../../files/io/atomic.js";
import { fileFingerprint } from "../../files/io/fingerprint.js";
import { makeFolders } from "../../files/io/folders.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { openJsonl, readJsonl, type JsonlWriter } from "../../files/io/jsonl.js";
import { lockMade, lockNames } from "../../files/io/lock.js";
import { openRanges } from "../../files/io/ranges.js";
import { corpusFiles, readDocuments } from "../documents/corpus.js";
import { openTokenizer, type TextTokenizer } from "../tokenizer/load.js";
import { widthFor, writeIndexFile, type IdWidth } from "./index-file.js";

/** What to prepare. */
export interface PrepareOptions {
  /** Text files and folders of such, in the order in which they are read. */
  readonly inputs: readonly string[];
  /** Where JSONL and Parquet have the text. */
  readonly field: string;
  /** Folder with a tokenizer.json, or that file. */
  readonly tokenizer: string;
  /** `PREFIX` of `PREFIX_FIELD_document.bin`. */
  readonly out: string;
  /** An end-of-text token behind every document that has tokens: the tokenizer's own, or this id. */
  readonly appendEod: boolean;
  readonly eodId?: number | undefined;
  /** What the tokenizer's template adds to every text, such as a token in front. */
  readonly specialTokens: boolean;
  /** Tokenizers side by side. */
  readonly workers: number;
  readonly overwrite?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Characters that a tokenizer gets at once, and ids after which both files are flushed: for tests. */
  readonly pace?: { readonly batchUnits?: number; readonly flushIds?: number } | undefined;
}

/** How far the work is. */
export interface PrepareEvent {
  readonly type: "progress" | "resumed";
  readonly documents: number;
  readonly tokens: number;
}

/** A data set that was written. */
export interface Prepared {
  /** What `--data-path` takes. */
  readonly prefix: string;
  readonly documents: number;
  readonly tokens: number;
  readonly width: IdWidth;
  readonly seconds: number;
}

const defaultPace = { batchUnits: 1 << 20, flushIds: 1 << 25 };

/**
 * Prepares the data set; both files get their names when they are complete. Throws inputError for text, a tokenizer or
 * a place that cannot be used, stopError for a full disk, interruptedError when `signal` fires: the same work, asked
 * for again, goes on.
 */
export function prepareData(options: PrepareOptions): AsyncGenerator<PrepareEvent, Prepared, undefined> {
  return eventsOf((tell, signal) => prepare({ ...options, signal }, tell), options.signal);
}

/** What `--data-path` takes of a data set. */
export const dataPrefix = ({ out, field }: Pick<PrepareOptions, "out" | "field">): string => `${out}_${field}_document`;

async function prepare(options: PrepareOptions, tell: (event: PrepareEvent) => void): Promise<Prepared> {
  const started = performance.now();
  const prefix = dataPrefix(options);
  const sources = (await Promise.all(options.inputs.map(corpusFiles))).flat();
  await requirePlace(prefix, options.overwrite === true, sources);
  const tokenizers = await openAll(options);
  try {
    const [first] = tokenizers;
    const width = widthFor(first!.vocab);
    const eod = endOf(options, first!);
    const stage = await openStage(prefix, await identityOf(options, sources, width, eod));
    try {
      // Another command may have finished the same data set since this one began.
      await requirePlace(prefix, options.overwrite === true, sources);
      if (stage.documents > 0) tell({ type: "resumed", documents: stage.documents, tokens: stage.tokens });
      await encodeAll(options, tokenizers, { stage, width, eod, tell });
      await finish(stage, prefix, width);
    } catch (cause) {
      await stage.leave();
      throw cause;
    }
    const { documents, tokens } = stage;
    return { prefix, documents, tokens, width, seconds: (performance.now() - started) / 1000 };
  } finally {
    await Promise.all(tokenizers.map((tokenizer) => tokenizer.close()));
  }
}

async function requirePlace(prefix: string, overwrite: boolean, sources: readonly string[]): Promise<void> {
  // An index alone was left by a command that was killed between the two.
  const isHalfDone = !(await exists(`${prefix}.bin`)) && (await exists(join(roomOf(prefix), names.journal)));
  for (const path of [`${prefix}.bin`, `${prefix}.idx`]) {
    if (sources.some((source) => resolve(source) === resolve(path)))
      throw inputError("this is one of the inputs", { where: path });
    if (!overwrite && !isHalfDone && (await exists(path)))
      throw inputError("file exists", { where: path, hint: "choose another --out, or replace it (--overwrite)" });
  }
}

/** All tokenizers, or none. */
async function openAll({ tokenizer, workers, signal }: PrepareOptions): Promise<TextTokenizer[]> {
  const opened = await Promise.allSettled(Array.from({ length: workers }, () => openTokenizer(tokenizer, { signal })));
  const failed = opened.find((one) => one.status === "rejected");
  if (failed === undefined) return opened.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  for (const one of opened) if (one.status === "fulfilled") await one.value.close();
  throw failed.reason;
}

function endOf({ appendEod, eodId, tokenizer }: PrepareOptions, { eosId, vocab }: TextTokenizer): number | null {
  if (!appendEod) return null;
  const id = eodId ?? eosId;
  if (id === undefined)
    throw inputError("no file says which token ends a text", {
      where: tokenizer,
      hint: "give its id (--eod-id), or leave out --append-eod",
    });
  if (id >= vocab) throw inputError(`token ${id} is outside the vocabulary 0..${vocab - 1}`, { where: "--eod-id" });
  return id;
}

interface Identity {
  readonly begun: string;
  readonly sources: Readonly<Record<string, string>>;
}

async function identityOf(
  { field, tokenizer, specialTokens }: PrepareOptions,
  sources: readonly string[],
  width: IdWidth,
  eod: number | null,
): Promise<Identity> {
  const file = (await stat(tokenizer)).isDirectory() ? join(tokenizer, "tokenizer.json") : tokenizer;
  const settings = [
    field,
    specialTokens,
    width,
    eod,
    await fileFingerprint(file),
    sources.map((path) => resolve(path)),
  ];
  const stamps = await Promise.all(
    sources.map(async (path) => {
      const { size, mtimeMs } = await withFsErrors(path, "read text", () => stat(path));
      return [resolve(path), `${size} bytes of ${new Date(mtimeMs).toISOString()}`] as const;
    }),
  );
  return {
    begun: createHash("sha256").update(JSON.stringify(settings)).digest("hex"),
    sources: Object.fromEntries(stamps),
  };
}

/** The files in the making. */
interface Stage {
  /** How many documents, and ids, are in them. */
  documents: number;
  tokens: number;
  readonly room: string;
  add(ids: Uint8Array, lengths: Int32Array, tokens: number): Promise<void>;
  /** Flushes both files, and remembers it. */
  flush(): Promise<void>;
  /** Flushes and closes the files; the place stays ours. Throws where they cannot be flushed. */
  close(): Promise<void>;
  /** Closes the files, and gives the place to whoever comes. */
  leave(): Promise<void>;
}

const names = { ids: "ids", lengths: "lengths", journal: "journal.jsonl" } as const;

/** The folder of the files in the making. */
const roomOf = (prefix: string): string => join(dirname(resolve(prefix)), `.${basename(resolve(prefix))}.unfinished`);

async function openStage(prefix: string, identity: Identity): Promise<Stage> {
  const room = roomOf(prefix);
  const release = await lockRoom(room, prefix);
  try {
    return await stageIn(room, identity, release);
  } catch (cause) {
    await release();
    throw cause;
  }
}

/** Makes the folder and locks it. */
function lockRoom(room: string, prefix: string): Promise<() => Promise<void>> {
  return lockMade(room, async () => {
    await withFsErrors(prefix, "create folder", async () => {
      await makeFolders(dirname(room));
      await mkdir(room, { recursive: true });
    });
    const known = new Set<string>([...Object.values(names), ...lockNames]);
    const foreign = (await readdir(room).catch(() => [])).filter((name) => !known.has(name));
    if (foreign.length > 0)
      throw inputError(`this folder holds ${foreign[0]}, which no unfinished preparation leaves`, { where: room });
  });
}

interface Flushed {
  readonly documents: number;
  readonly tokens: number;
  readonly bytes: number;
}

async function stageIn(room: string, identity: Identity, release: () => Promise<void>): Promise<Stage> {
  const journalPath = join(room, names.journal);
  const entries = (await exists(journalPath)) ? await readJsonl(journalPath).catch(() => []) : [];
  const begun = entries[0] as Partial<Identity> | undefined;
  const last = (entries.slice(1).at(-1) as Flushed | undefined) ?? { documents: 0, tokens: 0, bytes: 0 };
  // A command that was killed at its very end has left a journal of files that are finished.
  const same = begun?.begun === identity.begun && (await holds(room, last));
  if (same) requireSameSources(begun.sources ?? {}, identity.sources, room);
  if (!same) {
    await rm(journalPath, { force: true });
    await writeFileSynced(journalPath, `${JSON.stringify(identity)}\n`);
  }
  const { documents, tokens, bytes } = same ? last : { documents: 0, tokens: 0, bytes: 0 };
  const openAt = async (name: string, size: number): Promise<FileHandle> => {
    const handle = await open(join(room, name), same && size > 0 ? "r+" : "w+");
    await handle.truncate(size);
    return handle;
  };
  const ids = await openAt(names.ids, bytes);
  const lengths = await openAt(names.lengths, 4 * documents);
  return stageOf({ room, ids, lengths, journal: await openJsonl(journalPath), release }, { documents, tokens, bytes });
}

/** Whether both files have all that was flushed. */
async function holds(room: string, { documents, bytes }: Flushed): Promise<boolean> {
  const sizes = [names.ids, names.lengths].map((name) =>
    stat(join(room, name)).then(
      ({ size }) => size,
      () => 0,
    ),
  );
  const [ids = 0, lengths = 0] = await Promise.all(sizes);
  return ids >= bytes && lengths >= 4 * documents;
}

function requireSameSources(before: Identity["sources"], now: Identity["sources"], room: string): void {
  const changed = Object.keys(now).find((path) => before[path] !== now[path]);
  if (changed === undefined) return;
  throw inputError(`the text changed since this work began: it was ${before[changed]} and is ${now[changed]}`, {
    where: changed,
    hint: `put it back to go on, or remove ${room} to start over`,
  });
}

interface StageFiles {
  readonly room: string;
  readonly ids: FileHandle;
  readonly lengths: FileHandle;
  readonly journal: JsonlWriter;
  readonly release: () => Promise<void>;
}

function stageOf({ room, ids, lengths, journal, release }: StageFiles, begun: Flushed): Stage {
  let [bytes, closed, left] = [begun.bytes, false, false];
  const stage: Stage = {
    documents: begun.documents,
    tokens: begun.tokens,
    room,
    async add(data, counts, tokens) {
      await withFsErrors(room, "write ids", async () => {
        await writeAll(ids, data, bytes);
        await writeAll(lengths, new Uint8Array(counts.buffer), 4 * stage.documents);
      });
      bytes += data.byteLength;
      stage.documents += counts.length;
      stage.tokens += tokens;
    },
    async flush() {
      await withFsErrors(room, "flush ids", () => Promise.all([ids.datasync(), lengths.datasync()]));
      await journal.append({ documents: stage.documents, tokens: stage.tokens, bytes } satisfies Flushed);
      await journal.sync();
    },
    async close() {
      if (closed) return;
      closed = true;
      try {
        await stage.flush();
      } finally {
        await Promise.allSettled([ids.close(), lengths.close(), journal.close()]);
      }
    },
    async leave() {
      if (left) return;
      left = true;
      await stage.close().catch(() => undefined);
      await release();
    },
  };
  return stage;
}

interface Encoding {
  readonly stage: Stage;
  readonly width: IdWidth;
  readonly eod: number | null;
  readonly tell: (event: PrepareEvent) => void;
}

/** Encoded documents, ready to be written. */
interface Encoded {
  readonly ids: Uint8Array;
  readonly lengths: Int32Array;
  readonly tokens: number;
}

async function encodeAll(
  options: PrepareOptions,
  tokenizers: readonly TextTokenizer[],
  { stage, width, eod, tell }: Encoding,
): Promise<void> {
  const { batchUnits, flushIds } = { ...defaultPace, ...options.pace };
  const skipped = stage.documents;
  const free = [...tokenizers];
  const pending: Promise<Encoded>[] = [];
  let unflushed = 0;
  const takeFirst = async (): Promise<void> => {
    const { ids, lengths, tokens } = await pending.shift()!;
    await stage.add(ids, lengths, tokens);
    unflushed += tokens;
    if (unflushed >= flushIds) {
      await stage.flush();
      unflushed = 0;
    }
    tell({ type: "progress", documents: stage.documents, tokens: stage.tokens });
  };
  for await (const texts of batchesOf(options, skipped, batchUnits)) {
    if (options.signal?.aborted === true)
      throw interruptedError(`stopped after ${stage.documents} documents`, { hint: "the same command goes on" });
    while (free.length === 0) await takeFirst();
    const tokenizer = free.pop()!;
    const encoded = encodeBatch(tokenizer, texts, { eod, width, specialTokens: options.specialTokens }).finally(() =>
      free.push(tokenizer),
    );
    // Met when its turn comes.
    encoded.catch(() => undefined);
    pending.push(encoded);
    // A batch that is ahead of its turn waits in memory.
    if (pending.length > 2 * tokenizers.length) await takeFirst();
  }
  while (pending.length > 0) await takeFirst();
}

async function* batchesOf(
  { inputs, field }: PrepareOptions,
  skipped: number,
  batchUnits: number,
): AsyncGenerator<string[]> {
  let [batch, units, index]: [string[], number, number] = [[], 0, 0];
  for (const path of inputs) {
    for await (const { text } of readDocuments({ path, field }, { keepEmpty: true })) {
      if (index++ < skipped) continue;
      batch.push(text);
      units += text.length;
      if (units < batchUnits) continue;
      yield batch;
      [batch, units] = [[], 0];
    }
  }
  if (batch.length > 0) yield batch;
}

async function encodeBatch(
  tokenizer: TextTokenizer,
  texts: readonly string[],
  { eod, width, specialTokens }: Pick<Encoding, "eod" | "width"> & Pick<PrepareOptions, "specialTokens">,
): Promise<Encoded> {
  const documents: Int32Array[] = [];
  for await (const ids of tokenizer.encodeAll(texts, { addSpecialTokens: specialTokens })) documents.push(ids);
  // An end-of-text token goes behind tokens alone.
  const lengths = Int32Array.from(documents, ({ length }) => (length > 0 && eod !== null ? length + 1 : length));
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const out = width === "uint16" ? new Uint16Array(tokens) : new Int32Array(tokens);
  let at = 0;
  documents.forEach((ids, i) => {
    out.set(ids, at);
    at += lengths[i]!;
    if (ids.length > 0 && eod !== null) out[at - 1] = eod;
  });
  return { ids: new Uint8Array(out.buffer), lengths, tokens };
}

/**
 * The index first: without its `.bin` it is no data set. The place stays locked until nothing is left in it: a command
 * that came in between would write into the files that are about to get their names.
 */
async function finish(stage: Stage, prefix: string, width: IdWidth): Promise<void> {
  if (stage.tokens === 0) throw inputError("no document has a token", { where: prefix });
  await stage.close();
  const index = await stageFile(`${prefix}.idx`);
  try {
    const lengths = await openRanges(join(stage.room, names.lengths));
    try {
      await writeIndexFile(index, lengths, width);
    } finally {
      await lengths.close();
    }
    await withFsErrors(prefix, "finish data set", async () => {
      const target = `${resolve(prefix)}.bin`;
      // The ids of a data set that is replaced do not belong to the new index.
      await rm(target, { force: true });
      await index.commit();
      await rename(join(stage.room, names.ids), target);
      await syncDirectory(dirname(target));
      for (const name of [names.lengths, names.journal]) await rm(join(stage.room, name), { force: true });
    });
  } finally {
    await index.discard();
  }
  await stage.leave();
  await rmdir(stage.room).catch(() => undefined);
}
