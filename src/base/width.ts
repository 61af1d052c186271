/** How many columns of a terminal text takes up: East Asian characters and emoji take two, combining marks none. */
import isFullwidthCodePoint from "is-fullwidth-code-point";

/** Printable ASCII, which is nearly everything: one column each. */
const plain = /^[ -~]*$/;
/** A picture as a whole, whatever it is put together from (skin tones, flags, a variation selector). */
const picture = /\p{Emoji_Presentation}|\uFE0F/u;
/** Marks on the character before, and the inner parts of a Hangul syllable. */
const combining = /[\p{Mn}\p{Me}\p{Cf}\u1160-\u11FF]/u;

let segmenter: Intl.Segmenter | undefined;

/** What a reader takes for single characters. */
function graphemes(text: string): string[] {
  if (plain.test(text)) return text.split("");
  segmenter ??= new Intl.Segmenter(undefined, { granularity: "grapheme" });
  return [...segmenter.segment(text)].map(({ segment }) => segment);
}

export function displayWidth(text: string): number {
  if (plain.test(text)) return text.length;
  return graphemes(text).reduce((sum, one) => sum + graphemeWidth(one), 0);
}

function graphemeWidth(grapheme: string): number {
  if (picture.test(grapheme)) return 2;
  let width = 0;
  for (const character of grapheme) {
    if (!combining.test(character)) width += isFullwidthCodePoint.default(character.codePointAt(0)!) ? 2 : 1;
  }
  return width;
}

export function padded(text: string, width: number, side: "left" | "right" = "left"): string {
  const space = " ".repeat(Math.max(0, width - displayWidth(text)));
  return side === "left" ? text + space : space + text;
}

/** As much of the beginning as fits into `width` columns; at least one character of a text that is not empty. */
export function beginning(text: string, width: number): string {
  if (plain.test(text)) return text.slice(0, Math.max(1, width));
  let taken = "";
  let used = 0;
  for (const one of graphemes(text)) {
    used += graphemeWidth(one);
    if (taken !== "" && used > width) break;
    taken += one;
  }
  return taken;
}

/** At most `width` columns of it, the middle left out: names differ at their ends. */
export function shortened(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  if (width < 2) return "…".slice(0, Math.max(0, width));
  const parts = graphemes(text);
  const [head, tail] = [Math.floor((width - 1) / 2), Math.ceil((width - 1) / 2)];
  let [left, right] = ["", ""];
  for (let i = 0; displayWidth(left + parts[i]!) <= head; i++) left += parts[i]!;
  for (let i = parts.length - 1; displayWidth(parts[i]! + right) <= tail; i--) right = parts[i]! + right;
  return `${left}…${right}`;
}
