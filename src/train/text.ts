/** From the text block of a file to token streams: documents -> split -> tokenizer -> packed tokens. */
import { basename } from "node:path";
import { inputError } from "../base/errors.js";
import type { TextConfig } from "../base/schemas/index.js";
import { readDocuments, type CorpusDocument, type CorpusSource } from "../text/documents/corpus.js";
import { tokenPacker } from "../text/tokens/pack.js";
import { splitDocuments, utf8Length, type DocumentSplit } from "../text/tokens/split.js";
import type { TextTokenizer } from "../text/tokenizer/load.js";

/** The documents of a training, split, with where they came from. */
export interface Corpus {
  readonly sources: readonly { readonly name: string; readonly documents: number; readonly bytes: number }[];
  readonly split: DocumentSplit<CorpusDocument>;
}

/** What there is to say of a corpus once it is tokenized. */
export interface CorpusFacts extends Pick<Corpus, "sources"> {
  readonly trainDocuments: number;
  readonly heldOutDocuments: number;
}

/** Counts the documents of a corpus. */
export const corpusFacts = ({ sources, split }: Corpus): CorpusFacts => ({
  sources,
  trainDocuments: split.train.length,
  heldOutDocuments: split.heldOut.length,
});

/** A split corpus as tokens. */
export interface TokenizedCorpus {
  /** The token behind every document. */
  readonly end: number;
  readonly train: Int32Array;
  readonly heldOut: Int32Array;
  /** Mean bytes of text per token of the training part. */
  readonly bytesPerToken: number;
}

/**
 * The split never depends on a run's seed: every run of every study on one text holds out the same documents, so that
 * losses can be compared.
 */
export const SPLIT_SEED = "held-out";

/**
 * Reads all documents and splits them. Throws inputError for unreadable or too little text, and the signal's reason
 * when it fires.
 */
export async function readCorpus(text: TextConfig, signal?: AbortSignal): Promise<Corpus> {
  const sources: (CorpusSource & { name: string })[] = [
    ...(text.builtin ?? []).map((builtin) => ({ builtin, name: builtin })),
    ...(text.files ?? []).map((path) => ({ path, field: text.field, name: basename(path) })),
  ];
  const summaries: { name: string; documents: number; bytes: number }[] = [];
  const documents: CorpusDocument[] = [];
  for (const source of sources) {
    const first = documents.length;
    let bytes = 0;
    for await (const document of readDocuments(source)) {
      signal?.throwIfAborted();
      documents.push(document);
      bytes += utf8Length(document.text);
    }
    summaries.push({ name: source.name, documents: documents.length - first, bytes });
  }
  return { sources: summaries, split: splitDocuments(documents, { seed: SPLIT_SEED, heldOut: text.heldOut }) };
}

/** The token that ends a document. Throws inputError if the tokenizer has no such token. */
export function endOfText(tokenizer: TextTokenizer, eosOfModel: number | undefined): number {
  const end = tokenizer.eosId ?? eosOfModel ?? tokenizer.bosId;
  if (end !== undefined) return end;
  throw inputError("the tokenizer names no eos_token, which separates documents", {
    hint: "add eos_token to tokenizer_config.json",
  });
}

/** One row of tokens, `end` after every document. Throws the signal's reason when it fires. */
export async function encodeDocuments(
  documents: readonly CorpusDocument[],
  tokenizer: TextTokenizer,
  end: number,
  signal?: AbortSignal,
): Promise<Int32Array> {
  const packer = tokenPacker(end);
  for await (const ids of tokenizer.encodeAll(documents.map(({ text }) => text))) {
    signal?.throwIfAborted();
    packer.add(ids);
  }
  return packer.finish().tokens;
}

/**
 * Token streams with an end-of-text token after every document. Throws inputError if the tokenizer has no such token.
 */
export async function tokenizeCorpus(
  corpus: Corpus,
  tokenizer: TextTokenizer,
  eosOfModel: number | undefined,
  signal?: AbortSignal,
): Promise<TokenizedCorpus> {
  const end = endOfText(tokenizer, eosOfModel);
  const train = await encodeDocuments(corpus.split.train, tokenizer, end, signal);
  const heldOut = await encodeDocuments(corpus.split.heldOut, tokenizer, end, signal);
  return { end, train, heldOut, bytesPerToken: corpus.split.trainBytes / train.length };
}

/** Throws inputError where a training could not fill its first batch or measure a loss. */
export function requireEnoughText(
  corpus: TokenizedCorpus,
  block: { readonly batch: number; readonly sequence: number },
): void {
  const needed = block.batch * block.sequence + 1;
  if (corpus.train.length < needed) {
    throw inputError(
      `too little text: ${corpus.train.length} training tokens, one batch of ${block.batch} x ` +
        `${block.sequence} needs ${needed}`,
      {
        where: "text",
        hint: "give more text, or lower batch or sequence",
      },
    );
  }
  if (corpus.heldOut.length < 2) {
    throw inputError(`too little text: ${corpus.heldOut.length} held-out tokens, a loss needs at least 2`, {
      where: "text",
      hint: "give more text or raise heldOut",
    });
  }
}
