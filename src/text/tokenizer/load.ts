/**
 * Opens a Hugging Face `tokenizer.json` of any kind and turns text into ids and back, in a process of its own
 * (`child.ts`).
 */
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { at } from "../../base/at.js";
import { inputError, interruptedError } from "../../base/errors.js";
import { bytes, grouped } from "../../base/format.js";
import { fsError, requireNoDeadLink } from "../../files/io/fs-errors.js";
import { requireKind } from "../../files/io/open.js";
import { decodeBudget, encodeBudget, LARGEST_FILE, loadBudget, MEMORY, PATIENCE, type Leeway } from "./limits.js";
import { startTokenizer, type Doing, type TokenizerProcess } from "./process.js";
import { LARGEST_ID, readSpecialIds, type SpecialIds } from "./special.js";

/** How text becomes ids. */
export interface EncodeSettings {
  /**
   * Let the tokenizer add what its own template asks for, such as a BOS token in front. Off when left out: packed
   * training text gets its end-of-text tokens from the packer.
   */
  readonly addSpecialTokens?: boolean | undefined;
}

/** How ids become text. */
export interface DecodeSettings {
  /** Leave special tokens out, such as the one that ends a text. Off when left out. */
  readonly skipSpecialTokens?: boolean | undefined;
}

/**
 * An open tokenizer. Every call throws inputError where the file cannot do it (a pattern that gives up on a text or
 * never ends, memory without bounds), and interruptedError once the signal that the tokenizer was opened with is
 * raised.
 */
export interface TextTokenizer extends SpecialIds {
  /** Largest id + 1; a model may have more rows in its embedding, never fewer. */
  readonly vocab: number;
  /**
   * The ids [tokens] of one text. A special token written out in the text becomes its id, as everywhere in Hugging
   * Face.
   */
  encode(text: string, settings?: EncodeSettings): Promise<Int32Array>;
  /** Ids of each text in order; memory holds two batches of about a megabyte of text at a time. */
  encodeAll(texts: Iterable<string> | AsyncIterable<string>, settings?: EncodeSettings): AsyncGenerator<Int32Array>;
  /**
   * The text of ids, special tokens written out unless they are skipped. Bytes that are no UTF-8 become U+FFFD; unknown
   * ids become nothing.
   */
  decode(ids: Iterable<number>, settings?: DecodeSettings): Promise<string>;
  /** How a token is written; undefined for an id that the tokenizer does not have. */
  idToToken(id: number): Promise<string | undefined>;
  /** The id of a token; undefined for one that the tokenizer does not have. */
  tokenToId(token: string): Promise<number | undefined>;
  /**
   * Ends the tokenizer's process. One that is never closed ends with this process, and keeps it from ending only while
   * a call is under way.
   */
  close(): Promise<void>;
}

/** How a tokenizer is opened. */
export interface OpenSettings {
  /** Ids of special tokens, in place of those that the files beside the tokenizer name. */
  readonly special?: Partial<SpecialIds>;
  /** Once raised, calls end within a third of a second. */
  readonly signal?: AbortSignal | undefined;
  /** Seconds of processor time that a call may take beyond what the size of its text explains; 20 when left out. */
  readonly patience?: number;
  /** Bytes of memory that a call may take beyond what that size explains; 2 GB when left out. */
  readonly memory?: number;
}

/**
 * UTF-16 units in the first batch, which is all that is encoded for whoever needs a few hundred tokens, and in the
 * largest: an encoding costs roughly a hundred bytes per token until it is collected.
 */
const FIRST_BATCH_UNITS = 1 << 14;
const BATCH_UNITS = 1 << 20;

/**
 * Opens the tokenizer in a folder, or in a file by any name, in a process of its own; close it when it is no longer
 * needed. Throws inputError for a missing or broken file, and for one that the library cannot open; stopError where no
 * process can be started, and interruptedError once the signal is raised.
 */
export async function openTokenizer(
  folderOrFile: string,
  { special = {}, signal, patience = PATIENCE, memory = MEMORY }: OpenSettings = {},
): Promise<TextTokenizer> {
  const { file, size } = await findFile(folderOrFile);
  const leeway = { patience, memory };
  const process = startTokenizer(file, signal);
  try {
    const { largestId } = await process.call("load", [file], {
      what: "opening it",
      budget: loadBudget(leeway, size),
      refused: "the file is no tokenizer",
    });
    if (largestId > LARGEST_ID)
      throw inputError(`it has a token with id ${largestId}, more than any model can have`, { where: file });
    const calls = callsOf(process, { file, leeway, signal });
    const fromFiles = await readSpecialIds(dirname(file), calls.tokenToId);
    return {
      vocab: largestId + 1,
      eosId: special.eosId ?? fromFiles.eosId,
      bosId: special.bosId ?? fromFiles.bosId,
      ...calls,
      close: () => process.close(),
    };
  } catch (error) {
    await process.close();
    throw error;
  }
}

/**
 * Opens a tokenizer for the time that `work` takes, and closes it whatever comes of it. Throws like `openTokenizer`.
 */
export async function withTokenizer<T>(
  folderOrFile: string,
  settings: OpenSettings,
  work: (tokenizer: TextTokenizer) => Promise<T>,
): Promise<T> {
  const tokenizer = await openTokenizer(folderOrFile, settings);
  try {
    return await work(tokenizer);
  } finally {
    await tokenizer.close();
  }
}

type Calls = Omit<TextTokenizer, "vocab" | "close" | keyof SpecialIds>;

interface CallSettings {
  readonly file: string;
  readonly leeway: Leeway;
  readonly signal: AbortSignal | undefined;
}

function callsOf(process: TokenizerProcess, { file, leeway, signal }: CallSettings): Calls {
  const encodeBatch = (
    texts: readonly string[],
    { addSpecialTokens = false }: EncodeSettings,
  ): Promise<Int32Array[]> => {
    const units = texts.reduce((sum, text) => sum + text.length, 0);
    const whose = texts.length === 1 ? "a text" : `${grouped(texts.length)} texts`;
    const what = `encoding ${whose} of ${grouped(units)} characters`;
    return process.call("encode", [texts, addSpecialTokens], {
      what,
      budget: encodeBudget(leeway, units),
      refused: "it cannot encode a text",
    });
  };
  const tokens = (count: number, what: string): Doing => ({
    what,
    budget: decodeBudget(leeway, count),
    refused: "it cannot decode tokens",
  });
  return {
    async encode(text, settings = {}) {
      return at(await encodeBatch([text], settings), 0);
    },
    async *encodeAll(texts, settings = {}) {
      // The next batch is collected, and waits in the process, while this one is encoded.
      let ahead: Promise<Int32Array[]> | undefined;
      for await (const batch of batches(texts)) {
        if (signal?.aborted === true) throw interruptedError("stopped while encoding texts", { where: file });
        const next = encodeBatch(batch, settings);
        // Its failure is met when its turn comes; the caller may also go away before.
        next.catch(() => undefined);
        if (ahead !== undefined) yield* await ahead;
        ahead = next;
      }
      if (ahead !== undefined) yield* await ahead;
    },
    decode(ids, { skipSpecialTokens = false } = {}) {
      const all = Int32Array.from(ids);
      return process.call(
        "decode",
        [all, skipSpecialTokens],
        tokens(all.length, `decoding ${grouped(all.length)} tokens`),
      );
    },
    idToToken: async (id) => (await process.call("idToToken", [id], tokens(1, "looking up a token"))) ?? undefined,
    tokenToId: async (token) =>
      (await process.call("tokenToId", [token], tokens(1, "looking up a token"))) ?? undefined,
  };
}

/** Runs of texts that together grow to about a megabyte. */
async function* batches(texts: Iterable<string> | AsyncIterable<string>): AsyncGenerator<readonly string[]> {
  let batch: string[] = [];
  let units = 0;
  let full = FIRST_BATCH_UNITS;
  for await (const text of texts) {
    batch.push(text);
    units += text.length;
    if (units < full) continue;
    yield batch;
    batch = [];
    units = 0;
    full = Math.min(2 * full, BATCH_UNITS);
  }
  if (batch.length > 0) yield batch;
}

/** Refuses what cannot be a tokenizer's file before a process is started for it. */
async function findFile(folderOrFile: string): Promise<{ readonly file: string; readonly size: number }> {
  const entry = await stat(folderOrFile).catch((cause: unknown) => {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw fsError(cause, folderOrFile, "open tokenizer");
    throw inputError("no such file or folder", {
      where: folderOrFile,
      hint: "give a folder with a tokenizer.json",
      cause,
    });
  });
  const file = entry.isDirectory() ? join(folderOrFile, "tokenizer.json") : folderOrFile;
  const info = entry.isDirectory() ? await stat(file).catch((cause: unknown) => throwNoFile(cause, file)) : entry;
  requireKind(info, file);
  if (info.size > LARGEST_FILE) {
    throw inputError(`the file has ${bytes(info.size)}, a tokenizer at most ${bytes(LARGEST_FILE)}`, {
      where: file,
      hint: "is it really the tokenizer?",
    });
  }
  return { file, size: info.size };
}

/** Throws inputError for a folder without a tokenizer, or what the system said of it. */
async function throwNoFile(cause: unknown, file: string): Promise<never> {
  if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw fsError(cause, file, "open tokenizer");
  await requireNoDeadLink(file);
  throw inputError("the folder has no tokenizer.json", {
    where: dirname(file),
    hint:
      "older models: save them again with transformers, " +
      "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    cause,
  });
}
