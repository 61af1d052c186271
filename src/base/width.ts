/** How many columns of a terminal a text takes up: East Asian characters and emoji take two, combining marks none. */
import isFullwidthCodePoint from "is-fullwidth-code-point";

/** Printable ASCII, which is nearly all text: each character takes one column. */
const plain = /^[ -~]*$/;
/** An emoji as a whole, whatever it is put together from (skin tones, flags, a variation selector). */
const picture = /\p{Emoji_Presentation}|\uFE0F/u;
/** Marks on the character before them, and the inner parts of a Hangul syllable. */
const combining = /[\p{Mn}\p{Me}\p{Cf}\u1160-\u11FF]/u;

let segmenter: Intl.Segmenter | undefined;

/** The parts of a text that a reader takes for single characters. */
function graphemes(text: string): string[] {
  if (plain.test(text)) return text.split("");
  segmenter ??= new Intl.Segmenter(undefined, { granularity: "grapheme" });
  return [...segmenter.segment(text)].map(({ segment }) => segment);
}

/** The number of columns that a text takes up on a terminal. */
export function displayWidth(text: string): number {
  if (plain.test(text)) return text.length;
  return graphemes(text).reduce((sum, one) => sum + graphemeWidth(one), 0);
}

function graphemeWidth(grapheme: string): number {
  if (picture.test(grapheme)) return 2;
  let width = 0;
  for (const character of grapheme) {
    if (!combining.test(character)) width += isFullwidthCodePoint.default(character.codePointAt(0) ?? 0) ? 2 : 1;
  }
  return width;
}

/** The text with spaces behind it (`left`) or before it (`right`) up to `width` columns. */
export function padded(text: string, width: number, side: "left" | "right" = "left"): string {
  const space = " ".repeat(Math.max(0, width - displayWidth(text)));
  return side === "left" ? text + space : space + text;
}

/** As much of the beginning as fits into `width` columns; at least one character of a text that is not empty. */
export function beginning(text: string, width: number): string {
  if (plain.test(text)) return text.slice(0, Math.max(1, width));
  let start = "";
  let columns = 0;
  for (const one of graphemes(text)) {
    columns += graphemeWidth(one);
    if (start !== "" && columns > width) break;
    start += one;
  }
  return start;
}

/** At most `width` columns of a text, with `…` in place of its middle: names differ at their ends. */
export function shortened(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  if (width < 2) return "…".slice(0, Math.max(0, width));
  const parts = graphemes(text);
  let head = "";
  for (const part of parts) {
    if (displayWidth(head + part) > Math.floor((width - 1) / 2)) break;
    head += part;
  }
  let tail = "";
  for (const part of parts.toReversed()) {
    if (displayWidth(part + tail) > Math.ceil((width - 1) / 2)) break;
    tail = part + tail;
  }
  return `${head}…${tail}`;
}
