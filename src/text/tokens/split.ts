/**
 * Splits documents into a training part and a held-out part, whole documents only. The side a document falls on
 * depends on the seed and on what the documents say, not on their order or names; copies of one text always
 * stay on one side, so a held-out loss never measures a document seen in training.
 */
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";

interface SplitSettings {
  readonly seed: number | string;
  /** Wanted share of the UTF-8 bytes to hold out, in (0, 1). */
  readonly heldOut: number;
}

/** Documents that are trained on and documents that are held out. */
export interface DocumentSplit<D> {
  /** In the order given. */
  readonly train: readonly D[];
  /** In the order given; never empty. */
  readonly heldOut: readonly D[];
  readonly trainBytes: number;
  readonly heldOutBytes: number;
}

/** All documents with one text; `bytes` counts every copy. */
interface Group {
  readonly text: string;
  readonly rank: number;
  bytes: number;
}

/**
 * Stop looking for more documents once this share of the wanted bytes is held out: chasing the rest favours short ones.
 */
const CLOSE_ENOUGH = 0.9;

/**
 * Takes documents in a seeded random order for as long as they fit into `heldOut` of the bytes; where no document fits,
 * the shortest one. So the held-out part is at most the wanted share, or one document. A text that is all one document
 * is cut once, near its end. Throws an input error for a fraction outside (0, 1) and for no text.
 */
export function splitDocuments<D extends { readonly text: string }>(
  documents: readonly D[],
  settings: SplitSettings,
): DocumentSplit<D> {
  if (!(settings.heldOut > 0 && settings.heldOut < 1)) {
    throw inputError(`the held-out fraction is ${settings.heldOut}, expected a number between 0 and 1`, {
      hint: "0.05 holds out a twentieth of the text",
    });
  }
  const groups = groupByText(documents, settings.seed);
  if (groups.length === 0)
    throw inputError("too little text to split: every document is empty", { hint: "give some text" });
  if (groups.length === 1)
    return splitInTwo(
      documents.find(({ text }) => text !== "")!,
      settings.heldOut,
    );
  const chosen = chooseHeldOut(groups, settings.heldOut);
  let totalBytes = 0;
  for (const group of groups) totalBytes += group.bytes;
  let heldOutBytes = 0;
  for (const group of chosen) heldOutBytes += group.bytes;
  const texts = new Set(chosen.map((group) => group.text));
  return {
    train: documents.filter((document) => !texts.has(document.text)),
    heldOut: documents.filter((document) => texts.has(document.text)),
    trainBytes: totalBytes - heldOutBytes,
    heldOutBytes,
  };
}

/**
 * The only document there is, cut once: its end is held out. The cut is the last paragraph or line break before the
 * wanted place; half the held-out part may be lost to it, no more.
 */
function splitInTwo<D extends { readonly text: string }>(document: D, fraction: number): DocumentSplit<D> {
  const { text } = document;
  const wanted = Math.floor(text.length * (1 - fraction));
  const earliest = Math.floor(text.length * (1 - 2 * fraction));
  const breaks = ["\n\n", "\n", " "]
    .map((mark) => ({ mark, at: text.lastIndexOf(mark, wanted - mark.length) }))
    .filter(({ at }) => at > Math.max(0, earliest));
  const first = breaks[0];
  if (first === undefined) {
    throw inputError(
      `too little text to split: found one document of ${text.length} characters and no place to cut it`,
      {
        hint: "give more documents",
      },
    );
  }
  const cut = first.at + first.mark.length;
  const [train, heldOut] = [
    { ...document, text: text.slice(0, cut) },
    { ...document, text: text.slice(cut) },
  ];
  return {
    train: [train],
    heldOut: [heldOut],
    trainBytes: utf8Length(train.text),
    heldOutBytes: utf8Length(heldOut.text),
  };
}

/** One group per different non-empty text, in rank order. */
function groupByText(documents: readonly { readonly text: string }[], seed: number | string): Group[] {
  const groups = new Map<string, Group>();
  for (const { text } of documents) {
    if (text === "") continue;
    const known = groups.get(text);
    if (known !== undefined) {
      known.bytes += utf8Length(text);
    } else {
      const rank = randomStream(seed, `split/${contentHash(text)}`).uniformAt(0);
      groups.set(text, { text, rank, bytes: utf8Length(text) });
    }
  }
  return [...groups.values()].sort((a, b) => a.rank - b.rank);
}

function chooseHeldOut(groups: readonly Group[], fraction: number): readonly Group[] {
  let total = 0;
  for (const group of groups) total += group.bytes;
  const wanted = fraction * total;
  const chosen: Group[] = [];
  let bytes = 0;
  for (const group of groups) {
    if (bytes >= CLOSE_ENOUGH * wanted) break;
    if (bytes + group.bytes > wanted) continue;
    chosen.push(group);
    bytes += group.bytes;
  }
  if (chosen.length > 0) return chosen;
  return [groups.reduce((shortest, group) => (group.bytes < shortest.bytes ? group : shortest))];
}

/** Bytes of `text` in UTF-8; a lone surrogate counts as the three bytes of U+FFFD, as encoders write it. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (unit >= 0xd800 && unit < 0xdc00 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      bytes += 4;
      i++;
    } else bytes += 3;
  }
  return bytes;
}

/**
 * Two 32-bit FNV-1a style lanes over the UTF-16 code units, as hex: `hash64` in base is exact but slow on megabytes.
 */
function contentHash(text: string): string {
  let low = 0x811c9dc5;
  let high = 0x9747b28c;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    low = Math.imul(low ^ unit, 0x01000193);
    high = Math.imul(high ^ unit, 0x85ebca6b);
  }
  return `${(low >>> 0).toString(16)}-${(high >>> 0).toString(16)}-${text.length}`;
}
