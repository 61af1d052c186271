/**
 * Classes of tokens by what is written: plain rules over a token's text and the text in front of it, the same for every
 * tokenizer.
 */

/** The classes in the order of reports. */
export const tokenClasses = [
  "begins a word",
  "inside a word",
  "digits",
  "punctuation",
  "white space",
  "non-Latin",
  "special",
] as const;

/** A class of tokens. */
type TokenClass = (typeof tokenClasses)[number];

/** A token as it is written. */
export interface TokenText {
  /** Its text, with white space where the token stands for it; U+FFFD for bytes that are a part of a character. */
  readonly text: string;
  /** A token with a meaning to the model, such as the end of a text. */
  readonly special: boolean;
}

/**
 * The class of a token behind `previous` (null: at the beginning). What decides is its first character that is no white
 * space: a Latin letter begins a word behind white space or behind anything but a Latin letter, and else stands inside
 * one; letters and marks of other scripts, and bytes that are a part of a character, are non-Latin; numbers of any
 * script are digits; the rest is punctuation, symbols included.
 */
export function tokenClass(token: TokenText, previous: TokenText | null): TokenClass {
  if (token.special) return "special";
  const written = token.text.trimStart();
  if (written === "") return "white space";
  const first = String.fromCodePoint(written.codePointAt(0) ?? 0);
  if (isLatinLetter(first)) {
    const goesOn = written === token.text && previous !== null && !previous.special && endsInLetter(previous.text);
    return goesOn ? "inside a word" : "begins a word";
  }
  if (/[\p{L}\p{M}\uFFFD]/u.test(first)) return "non-Latin";
  return /\p{N}/u.test(first) ? "digits" : "punctuation";
}

const isLatinLetter = (character: string): boolean => /\p{L}/u.test(character) && /\p{Script=Latin}/u.test(character);
const endsInLetter = (text: string): boolean => /\p{Script=Latin}$/u.test(text);

/**
 * The text of a token from how the tokenizer writes it (`piece`) and what it decodes to alone. Decoders of
 * SentencePiece take away white space at a text's beginning, which the piece still has.
 */
export function textOfPiece(piece: string, decoded: string): string {
  const begins = /^[▁Ġ]/u.test(piece);
  return begins && !/^\s/u.test(decoded) ? ` ${decoded}` : decoded;
}
