/**
 * Trains a byte-level BPE tokenizer with Hugging Face's Rust trainer and writes the result as `tokenizer.json`.
 *
 *   texts -> one file -> Rust trainer (in a child process) -> its merges -> our alphabet + the first merges -> JSON
 *
 * The Node binding's `train` takes no options: always up to 30,000 entries, only the bytes seen, no special tokens.
 * Training is greedy (each merge is chosen from the counts that earlier merges left), so the first merges of a long
 * training are a shorter training; taking the result apart gives what the options would have given.
 */
import { execFile } from "node:child_process";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { inputError, interruptedError, stopError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";

/** The token that ends documents in tokenizers that are learnt here. */
export const END_OF_TEXT = "<|endoftext|>";

/** Which tokenizer is trained. */
interface BpeSettings {
  /** Entries in all: special tokens, 256 bytes, merges. At most 30,000. */
  readonly vocab: number;
  /** Special tokens, which get the first ids in this order; `[END_OF_TEXT]` when left out. */
  readonly specialTokens?: readonly string[] | undefined;
  /** Ends the training with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Most entries: the binding's own default, which cannot be changed from Node. */
const LARGEST_VOCAB = 30_000;

/**
 * Trains a tokenizer and gives the text of its `tokenizer.json`; equal texts and settings give equal bytes. Ids:
 * special tokens, then the 256 bytes (as the printable characters that stand for them, by code point), then merges in
 * the order learned. Needs room for one copy of the texts in the system's temporary folder. Throws an input error for a
 * vocabulary out of range and for texts too small to reach it, and interruptedError once the signal is raised.
 */
export async function trainByteLevelBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  settings: BpeSettings,
): Promise<string> {
  const { vocab, specialTokens = [END_OF_TEXT], signal } = settings;
  checkSettings(vocab, specialTokens);
  const folder = await withFsErrors(tmpdir(), "make a temporary folder (TMPDIR)", () =>
    mkdtemp(join(tmpdir(), "upcycle-tokenizer-")),
  );
  try {
    const textFile = join(folder, "texts.txt");
    const resultFile = join(folder, "tokenizer.json");
    await writeTexts(textFile, texts, signal);
    await runTrainer(textFile, resultFile, signal);
    const text = await withFsErrors(resultFile, "read the tokenizer", () => readFile(resultFile, "utf8"));
    const { model } = JSON.parse(text) as { model: { merges: [string, string][] } };
    // The package loads a native library, for which no command waits that trains no tokenizer.
    const { byteLevelAlphabet } = await import("tokenizers");
    const first = [...specialTokens, ...byteLevelAlphabet().sort()];
    return JSON.stringify(assemble(specialTokens, vocabularyOf(model.merges, vocab, first)));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function checkSettings(vocab: number, specialTokens: readonly string[]): void {
  const smallest = 256 + specialTokens.length;
  if (!Number.isSafeInteger(vocab) || vocab < smallest || vocab > LARGEST_VOCAB) {
    throw inputError(`the vocabulary is ${vocab}, expected a whole number from ${smallest} to ${LARGEST_VOCAB}`, {
      hint: "256 entries are the bytes; 2048 to 8192 suits a small model",
    });
  }
  if (new Set(specialTokens).size < specialTokens.length || specialTokens.includes("")) {
    throw inputError("special tokens must be different from each other and not empty");
  }
}

async function writeTexts(
  path: string,
  texts: Iterable<string> | AsyncIterable<string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const onDisk = <T>(run: () => Promise<T>): Promise<T> => withFsErrors(path, "write temporary file", run);
  const file = await onDisk(() => open(path, "w"));
  try {
    for await (const text of texts) {
      signal?.throwIfAborted();
      await onDisk(() => file.appendFile(text));
      // The trainer reads line by line, so this keeps words of two documents apart.
      await onDisk(() => file.appendFile("\n"));
    }
  } finally {
    await onDisk(() => file.close());
  }
}

/** What the trainer's process runs. Its arguments are the tokenizers package, the text file, the file to write. */
const trainerProgram = `
const [tokenizers, input, output] = process.argv.slice(1);
const { BPE, Tokenizer, byteLevelPreTokenizer } = require(tokenizers);
const tokenizer = new Tokenizer(BPE.empty());
tokenizer.setPreTokenizer(byteLevelPreTokenizer(false, true));
tokenizer.train([input]);
tokenizer.save(output);
`;

/**
 * Runs the trainer in a process of its own, because the native trainer draws a progress bar or prints blank lines,
 * which no option turns off, and because it would block this process for seconds.
 */
async function runTrainer(input: string, output: string, signal: AbortSignal | undefined): Promise<void> {
  const tokenizers = createRequire(import.meta.url).resolve("tokenizers");
  try {
    await promisify(execFile)(process.execPath, ["-e", trainerProgram, tokenizers, input, output], {
      signal,
      killSignal: "SIGKILL",
    });
  } catch (cause) {
    // A terminal's Ctrl-C ends the trainer too, perhaps before it has raised the signal here.
    await new Promise(setImmediate);
    signal?.throwIfAborted();
    const killedBy = (cause as { signal?: unknown }).signal;
    if (killedBy === "SIGINT" || killedBy === "SIGHUP" || killedBy === "SIGTERM")
      throw interruptedError("stopped while the tokenizer was trained");
    const { stderr = "" } = cause as { readonly stderr?: string };
    const reason = stderr.trim().split("\n").at(-1) || String(cause);
    throw stopError(`training the tokenizer failed: ${reason}`, { cause });
  }
}

/** A tokenizer of this vocabulary, which may use any byte characters. */
function assemble(specialTokens: readonly string[], { ids, merges }: Vocabulary): unknown {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: { ...byteLevel, trim_offsets: false },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(ids),
      merges,
    },
  };
}

/** Tokens with their ids, and the merges that make them. */
interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
  readonly merges: readonly [string, string][];
}

/** Exactly `vocab` tokens: the `first`, and those of as many of the merges as it takes. */
function vocabularyOf(merges: readonly [string, string][], vocab: number, first: readonly string[]): Vocabulary {
  const ids = new Map<string, number>();
  for (const token of first) {
    if (ids.has(token)) {
      throw inputError(`the special token "${token}" is also the character of a byte`, { hint: "use a longer one" });
    }
    ids.set(token, ids.size);
  }
  let mergeCount = 0;
  for (const merge of merges) {
    if (ids.size >= vocab) break;
    const token = merge.join("");
    // Two ways to build one token share its id, as in the trainer.
    if (!ids.has(token)) ids.set(token, ids.size);
    mergeCount++;
  }
  if (ids.size < vocab) {
    throw inputError(`the texts are too small: they give ${ids.size} entries, wanted ${vocab}`, {
      hint: `give more text or ask for a vocabulary of at most ${ids.size}`,
    });
  }
  return { ids, merges: merges.slice(0, mergeCount) };
}
