/**
 * Splits documents into a training part and a held-out part, whole documents only. The side a document falls on
 * depends on the seed and on what the documents say, not on their order or names; copies of one text always
 * stay on one side, so a held-out loss never measures a document seen in training.
 */
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";

interface SplitSettings {
  readonly seed: number | string;
  /** The share of the UTF-8 bytes to hold out, in (0, 1). */
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
 * No more documents are looked for once this part of the bytes to hold out is reached: filling up the rest would favour
 * short documents.
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
  const first = documents.find(({ text }) => text !== "");
  if (first === undefined)
    throw inputError("too little text to split: every document is empty", { hint: "give some text" });
  if (groups.length === 1) return splitInTwo(first, settings.heldOut);
  const heldOutGroups = chooseHeldOut(groups, settings.heldOut);
  const heldOutBytes = bytesOf(heldOutGroups);
  const texts = new Set(heldOutGroups.map(({ text }) => text));
  return {
    train: documents.filter(({ text }) => !texts.has(text)),
    heldOut: documents.filter(({ text }) => texts.has(text)),
    trainBytes: bytesOf(groups) - heldOutBytes,
    heldOutBytes,
  };
}

function bytesOf(groups: readonly Group[]): number {
  return groups.reduce((sum, { bytes }) => sum + bytes, 0);
}

/**
 * Splits the only document there is by one cut: its end is held out. The cut is the last end of a paragraph, else of a
 * line, else of a word, before the place that gives the share exactly; the held-out part is at most twice its share.
 */
function splitInTwo<D extends { readonly text: string }>(document: D, fraction: number): DocumentSplit<D> {
  const { text } = document;
  const latest = Math.floor(text.length * (1 - fraction));
  const earliest = Math.floor(text.length * (1 - 2 * fraction));
  const [first] = ["\n\n", "\n", " "]
    .map((mark) => ({ mark, at: text.lastIndexOf(mark, latest - mark.length) }))
    .filter(({ at }) => at > Math.max(0, earliest));
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
    const group = groups.get(text);
    if (group !== undefined) {
      group.bytes += utf8Length(text);
    } else {
      const rank = randomStream(seed, `split/${contentHash(text)}`).uniformAt(0);
      groups.set(text, { text, rank, bytes: utf8Length(text) });
    }
  }
  return [...groups.values()].sort((a, b) => a.rank - b.rank);
}

/** Takes groups in their order as long as they fit; where none does, the shortest one. */
function chooseHeldOut(groups: readonly Group[], fraction: number): readonly Group[] {
  const goal = fraction * bytesOf(groups);
  const heldOut: Group[] = [];
  let bytes = 0;
  for (const group of groups) {
    if (bytes >= CLOSE_ENOUGH * goal) break;
    if (bytes + group.bytes > goal) continue;
    heldOut.push(group);
    bytes += group.bytes;
  }
  if (heldOut.length > 0) return heldOut;
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
 * A hash of a text, as hex: two 32-bit lanes in the style of FNV-1a over the UTF-16 code units, and the length.
 * `hash64` in base would be slow on megabytes.
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
