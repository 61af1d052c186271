/** The data of a training: a model's shape with its tokenizer, and the text as that tokenizer's tokens. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import type { ModelConfig, TokenizerConfig } from "../base/schemas/index.js";
import { exists, writeFileAtomic } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { readText } from "../files/io/ranges.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { tokenizerConfig } from "../text/tokenizer/config.js";
import { openTokenizer, type TextTokenizer } from "../text/tokenizer/load.js";
import { trainByteLevelBpe } from "../text/tokenizer/train.js";
import { newModelSpec } from "./init.js";
import {
  corpusFacts,
  requireEnoughText,
  tokenizeCorpus,
  type Corpus,
  type CorpusFacts,
  type TokenizedCorpus,
} from "./text.js";

/** A model's shape with its tokenizer. */
export interface ModelBase {
  readonly spec: DecoderSpec;
  /** Whoever opened the base closes it, once the text is tokenized. */
  readonly tokenizer: TextTokenizer;
  /** Folder whose tokenizer files every checkpoint carries. */
  readonly carry: string;
}

/** A model's shape and tokenizer, with the text as that tokenizer's tokens. */
export interface TrainingData extends ModelBase {
  readonly text: CorpusFacts;
  readonly tokens: TokenizedCorpus;
}

/**
 * Shape and tokenizer of a model folder. Throws inputError if either is missing or they do not fit together, and for an
 * adapter that cannot be merged in.
 */
export async function openBase(source: ModelSource, signal?: AbortSignal): Promise<ModelBase> {
  const checkpoint = await openCheckpoint(source);
  await checkpoint.close();
  const { dir, spec } = checkpoint;
  const tokenizer = await openTokenizer(dir, { signal });
  if (tokenizer.vocab > spec.vocab) {
    await tokenizer.close();
    throw inputError(`the tokenizer has ${tokenizer.vocab} tokens, the model's embedding ${spec.vocab} rows`, {
      where: dir,
    });
  }
  return { spec, tokenizer, carry: dir };
}

/** What a new model is made of. */
interface NewBase {
  readonly model: ModelConfig;
  readonly tokenizer: TokenizerConfig;
  /** Reads the training part of the text, from which the tokenizer is learnt; not called where one is taken. */
  readonly learnable: () => Promise<readonly { readonly text: string }[]>;
  /** Run folder; the tokenizer goes to `tokenizer/` in it. */
  readonly dir: string;
  /** Take the tokenizer that is there already: only for a folder that is known to hold this very run. */
  readonly reuse: boolean;
  /** Stops the learning with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The folder within that of a new model which its tokenizer lies in. */
const tokenizerFolder = (dir: string): string => join(dir, "tokenizer");

/** The file of a tokenizer that is written last: where it is, the tokenizer is complete. */
const lastFile = "tokenizer_config.json";

/** Whether `newBase` finds a tokenizer in a folder. */
export const hasTokenizer = (dir: string): Promise<boolean> => exists(join(tokenizerFolder(dir), lastFile));

/** Shape of a new model, and a tokenizer learnt from the training part of the text. */
export async function newBase({
  model,
  tokenizer: { vocab },
  learnable,
  dir,
  reuse,
  signal,
}: NewBase): Promise<ModelBase> {
  const carry = tokenizerFolder(dir);
  const config = join(carry, lastFile);
  if (!reuse || !(await exists(config))) {
    const texts = await learnable();
    const json = await trainByteLevelBpe(
      texts.map(({ text }) => text),
      { vocab, signal },
    );
    await withFsErrors(carry, "create tokenizer folder", () => makeFolders(carry));
    const files = [
      [join(carry, "tokenizer.json"), json],
      [config, tokenizerConfig({ maxLength: model.maxPositions })],
    ] as const;
    if (!reuse) for (const [path, text] of files) await requireSame(path, text);
    for (const [path, text] of files) await writeFileAtomic(path, text);
  }
  const tokenizer = await openTokenizer(carry, { signal });
  return { tokenizer, carry, spec: newModelSpec(model, tokenizer.vocab, tokenizer.eosId ?? null) };
}

/**
 * A run that was stopped before it began has left the same tokenizer; another one is somebody else's. Throws
 * inputError.
 */
async function requireSame(path: string, text: string): Promise<void> {
  if (!(await exists(path)) || (await readText(path).catch(() => null)) === text) return;
  throw inputError("there is another tokenizer than this training learns", {
    where: path,
    hint: "choose another run folder, or move the tokenizer away",
  });
}

/** Throws inputError where a sequence is longer than the model's positions. */
export function requirePositions({ spec, carry }: Pick<ModelBase, "spec" | "carry">, sequence: number): void {
  if (sequence <= spec.maxPositions) return;
  throw inputError(`sequence ${sequence} is longer than the model's ${spec.maxPositions} positions`, {
    where: carry,
    hint: "lower sequence",
  });
}

/**
 * Tokenizes the text for a model; `blocks` are the trainings to come. Throws inputError where the text is too short for
 * one of them or a sequence longer than the model's positions.
 */
export async function prepareTrainingData(
  base: ModelBase,
  corpus: Corpus,
  blocks: readonly { readonly batch: number; readonly sequence: number }[],
  signal?: AbortSignal,
): Promise<TrainingData> {
  const { spec, tokenizer } = base;
  for (const { sequence } of blocks) requirePositions(base, sequence);
  const tokens = await tokenizeCorpus(corpus, tokenizer, spec.tokens.eos[0], signal);
  for (const block of blocks) requireEnoughText(tokens, block);
  return { ...base, text: corpusFacts(corpus), tokens };
}

/** Says in one line how many documents and tokens there are. */
export function describeText({ tokens, text, tokenizer }: TrainingData): string {
  return (
    `${text.trainDocuments} documents, ${tokens.train.length} tokens to train on; ` +
    `${text.heldOutDocuments} documents, ${tokens.heldOut.length} tokens held out; vocabulary ${tokenizer.vocab}`
  );
}
