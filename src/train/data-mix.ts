/**
 * A data mix, that is several texts with weights: read, split and tokenized part by part, so that each keeps its
 * weight, its order and its own held-out loss.
 */
import { basename } from "node:path";
import { at } from "../base/at.js";
import { compact, percent, table } from "../base/format.js";
import { inputError } from "../base/errors.js";
import type { MixPartConfig, TrainingBlock, TrainTextConfig } from "../base/schemas/index.js";
import { readDocuments, type CorpusDocument } from "../text/documents/corpus.js";
import { indexedPrefix, readIndexed, type IndexedTokens } from "../text/documents/indexed.js";
import { windowCount, type TokenRow } from "../text/tokens/batches.js";
import { shares, type MixPart } from "../text/tokens/mix.js";
import { splitDocuments } from "../text/tokens/split.js";
import type { TextTokenizer } from "../text/tokenizer/load.js";
import { encodeDocuments, SPLIT_SEED } from "./text.js";

/** What a data mix says of a part. */
interface PartBase {
  readonly name: string;
  readonly weight: number;
}

/** Documents still to be tokenized. */
interface TextPart extends PartBase {
  readonly kind: "text";
  readonly train: readonly CorpusDocument[];
  readonly heldOut: readonly CorpusDocument[];
}

/** Tokens that were prepared. */
interface TokenPart extends PartBase {
  readonly kind: "tokens";
  /** Path of the file. */
  readonly where: string;
  readonly data: IndexedTokens;
  /** First token that is held out, at the start of a document where there are several. */
  readonly cut: number;
}

/** A part of a data mix as it is read: documents, or tokens that were prepared. */
type CorpusPart = TextPart | TokenPart;

/** A part of a data mix as tokens. */
interface TokenizedPart extends PartBase {
  readonly train: TokenRow;
  readonly heldOut: TokenRow;
  /** Something about it that the user should know. */
  readonly warning: string | null;
}

/**
 * Reads every part. A document that is held out in one part is trained on in none. Throws inputError for parts that
 * cannot be read, have the same name, or have nothing left to train on.
 */
export async function readDataMix({ mix = [], heldOut }: TrainTextConfig, signal?: AbortSignal): Promise<CorpusPart[]> {
  const parts: CorpusPart[] = [];
  for (const config of mix) {
    const name = nameOf(config);
    if (parts.some((part) => part.name === name)) {
      throw inputError(`two parts of the data mix are called "${name}"`, {
        where: "text.mix",
        hint: "give them names of their own",
      });
    }
    parts.push(await readPart(config, name, config.heldOut ?? heldOut, signal));
  }
  const hidden = new Set(parts.flatMap((part) => (part.kind === "text" ? part.heldOut.map(({ text }) => text) : [])));
  return parts.map((part) => {
    if (part.kind === "tokens") return part;
    const train = part.train.filter(({ text }) => !hidden.has(text));
    if (train.length > 0) return { ...part, train };
    throw inputError("every document of this part is held out in another one", {
      where: part.name,
      hint: "leave the part out",
    });
  });
}

/** What a part is called: by its configuration, else after its text. */
function nameOf({ name, builtin, path }: MixPartConfig): string {
  return name ?? builtin ?? basename(indexedPrefix(pathOf(path)));
}

/** The path of a part that has no built-in text. The schema proves that it has one of the two. */
function pathOf(path: string | undefined): string {
  if (path === undefined) throw new Error("a part of a data mix has neither a path nor a built-in text");
  return path;
}

async function readPart(
  { path, builtin, field, weight }: MixPartConfig,
  name: string,
  heldOut: number,
  signal: AbortSignal | undefined,
): Promise<CorpusPart> {
  if (path !== undefined && /\.(bin|idx)$/.test(path)) {
    const data = await readIndexed(path);
    return { kind: "tokens", name, weight, where: path, data, cut: heldOutFrom(data.documents, heldOut) };
  }
  const documents: CorpusDocument[] = [];
  const source = builtin === undefined ? { path: pathOf(path), field } : { builtin };
  for await (const document of readDocuments(source)) {
    signal?.throwIfAborted();
    documents.push(document);
  }
  return { kind: "text", name, weight, ...splitDocuments(documents, { seed: SPLIT_SEED, heldOut }) };
}

/**
 * First token that is held out, from the bounds of the documents in tokens: the last documents are, at most the given
 * share of the tokens but one document at least; a single document is cut.
 */
export function heldOutFrom(documents: Float64Array, fraction: number): number {
  const total = at(documents, documents.length - 1);
  const trainedShare = total * (1 - fraction);
  if (documents.length === 2) return Math.floor(trainedShare);
  let bound = documents.length - 2;
  while (bound > 1 && at(documents, bound - 1) >= trainedShare) bound--;
  return at(documents, bound);
}

/** All texts that a tokenizer may learn from. Throws inputError where a part is tokenized already. */
export function learnableTexts(parts: readonly CorpusPart[]): readonly CorpusDocument[] {
  return parts.flatMap((part) => {
    if (part.kind === "text") return part.train;
    throw inputError("these tokens were made by some tokenizer, a new model would learn another", {
      where: part.where,
      hint: "train from a model folder that holds the tokenizer, or give the text",
    });
  });
}

/**
 * Tokenizes every part; text gets the token `end` behind every document. Throws inputError for tokens that the
 * tokenizer does not have.
 */
export async function tokenizeDataMix(
  parts: readonly CorpusPart[],
  tokenizer: TextTokenizer,
  end: number,
  signal?: AbortSignal,
): Promise<TokenizedPart[]> {
  const tokenized: TokenizedPart[] = [];
  for (const part of parts) {
    const { name, weight } = part;
    if (part.kind === "text") {
      tokenized.push({
        name,
        weight,
        warning: null,
        train: await encodeDocuments(part.train, tokenizer, end, signal),
        heldOut: await encodeDocuments(part.heldOut, tokenizer, end, signal),
      });
      continue;
    }
    const { tokens, documents, largestId } = part.data;
    if (largestId >= tokenizer.vocab) {
      throw inputError(`holds token ${largestId}, the model's tokenizer ends at ${tokenizer.vocab - 1}`, {
        where: part.where,
        hint: "prepare it with this model's tokenizer",
      });
    }
    tokenized.push({
      name,
      weight,
      train: tokens.subarray(0, part.cut),
      heldOut: tokens.subarray(part.cut),
      warning: endWarning(name, tokens, documents, end),
    });
  }
  return tokenized;
}

/**
 * A warning where no document ends in the end-of-text token, so that documents run into each other: they were prepared
 * without --append-eod, or by another tokenizer.
 */
function endWarning(name: string, tokens: TokenRow, documents: Float64Array, end: number): string | null {
  const ends = documents.subarray(1).some((bound) => bound > 0 && tokens[bound - 1] === end);
  if (ends) return null;
  return (
    `${name}: no document ends with the tokenizer's end-of-text token ${end}; was it prepared with this ` +
    "tokenizer and --append-eod?"
  );
}

/** Throws inputError where a part could not fill a sequence or measure a loss. */
export function requireEnoughOfEach(
  parts: readonly TokenizedPart[],
  { sequence }: { readonly sequence: number },
): void {
  for (const { name, train, heldOut } of parts) {
    if (train.length <= sequence)
      throw inputError(`too little text: ${train.length} training tokens, one sequence needs ${sequence + 1}`, {
        where: name,
      });
    if (heldOut.length < 2)
      throw inputError(`too little text: ${heldOut.length} held-out tokens, a loss needs at least 2`, {
        where: name,
        hint: "raise heldOut",
      });
  }
}

/** The tokens of each part that are trained on. */
export const trainingParts = (parts: readonly TokenizedPart[]): MixPart[] =>
  parts.map(({ name, weight, train: tokens }) => ({ name, weight, tokens }));

/** The tokens of each part that are held out. */
export const heldOutParts = (parts: readonly TokenizedPart[]): MixPart[] =>
  parts.map(({ name, weight, heldOut: tokens }) => ({ name, weight, tokens }));

/** A table: share, tokens, and how often the training will go through each part. */
export function describeDataMix(
  parts: readonly TokenizedPart[],
  { steps, batch, accumulate, sequence }: TrainingBlock,
): string[] {
  const shareOf = shares(parts);
  const rows = parts.map(({ name, train, heldOut }, i) => {
    const share = at(shareOf, i);
    const epochs = (share * steps * batch * accumulate) / windowCount(train.length, sequence);
    return [name, percent(share), compact(train.length), compact(heldOut.length), epochs.toFixed(2)];
  });
  const warnings = parts.flatMap(({ warning }) => (warning === null ? [] : [`warning: ${warning}`]));
  const head = ["part", "share", "training tokens", "held out", "epochs"];
  return [...table([head, ...rows], ["left", "right", "right", "right", "right"], 78), ...warnings];
}
