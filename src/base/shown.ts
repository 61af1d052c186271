/**
 * Text of others as it is shown: names in models, adapters, configs, tables and answers of servers may hold anything.
 * Whatever would steer a terminal, begin another line, turn the order of the letters round or not be seen at all is
 * written as JSON writes it (`\u001b`, `\n`), and what is endless is cut.
 */

/**
 * Control and format characters, line and paragraph separators, lone surrogates, and all that has no look of its own
 * but the two selectors of emoji.
 */
const unseen = /(?![\uFE0E\uFE0F])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
/**
 * Of a longer text: line ends and tabs are its own, and joiners and marks of direction are needed to write many
 * languages.
 */
const steering = /(?![\n\t])[\p{Cc}\p{Cs}\u202A-\u202E\u2066-\u2069]/gu;

const short: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f" };

/** As in a JSON string. */
function escaped(character: string): string {
  const unit = (_: unknown, i: number): string => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
  return short[character] ?? Array.from({ length: character.length }, unit).join("");
}

/** All of it, on one line. Of a JSON document it is the same document, since only its strings hold such characters. */
export const visible = (text: string): string => text.replace(unseen, escaped);

/** A text of several lines, such as a model writes: nothing in it can do anything but be read. */
export const visibleText = (text: string): string => text.replace(steering, escaped);

/** Characters of one line, or of one part of it, that are shown. */
const mostShown = 4000;

/** Characters that an error repeats of a word of the command line: who wrote it knows the rest. */
export const mostQuoted = 200;

/** One line, cut to `most` characters with a mark that says how many are left out. Doing so twice changes nothing. */
export function visibleLine(text: string, most = mostShown): string {
  if (text.length <= most) {
    const whole = visible(text);
    if (whole.length <= most) return whole;
  }
  const mark = (left: number): string => `… [${left} more characters]`;
  const room = most - mark(text.length).length;
  let line = "";
  let taken = 0;
  for (const character of text) {
    const next = visible(character);
    if (line.length + next.length > room) break;
    line += next;
    taken += character.length;
  }
  return line + mark(text.length - taken);
}

/** A value as JSON; `missing` for undefined, and words for what nests too deeply to be written (a hostile file). */
export function jsonText(value: unknown): string {
  if (value === undefined) return "missing";
  try {
    // Functions and symbols have no JSON.
    return JSON.stringify(value) ?? typeof value;
  } catch {
    return Array.isArray(value) ? "a deeply nested list" : "a deeply nested object";
  }
}

/** The same, cut to at most `length` characters. */
export function shown(value: unknown, length = 60): string {
  const text = jsonText(value);
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}
