/**
 * Makes text of others safe to show: names in models, adapters, configs, tables and answers of servers may hold
 * anything. A character that would steer a terminal, begin another line, turn the order of letters round or not be seen
 * at all is written as JSON writes it (`\u001b`, `\n`). An endless text is cut.
 */

/**
 * Control and format characters, line and paragraph separators, lone surrogates, and all that has no look of its own
 * but the two selectors of emoji.
 */
const unseen = /(?![\uFE0E\uFE0F])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;
/**
 * Characters that are escaped in a longer text. Line ends and tabs belong to it, and many languages need joiners and
 * marks of direction.
 */
const steering = /(?![\n\t])[\p{Cc}\p{Cs}\u202A-\u202E\u2066-\u2069]/gu;

const short: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f" };

/** A character as a JSON string has it. */
function escaped(character: string): string {
  const unit = (_: unknown, i: number): string => `\\u${character.charCodeAt(i).toString(16).padStart(4, "0")}`;
  return short[character] ?? Array.from({ length: character.length }, unit).join("");
}

/**
 * The whole text on one line. A JSON document stays the same document, since only its strings can hold such characters.
 */
export const visible = (text: string): string => text.replace(unseen, escaped);

/** A text of several lines, such as a model writes, in which nothing steers a terminal. */
export const visibleText = (text: string): string => text.replace(steering, escaped);

/** Most characters of one line that are shown. */
const longestLine = 4000;

/** Most characters of a word of the command line that an error repeats: whoever wrote it knows the rest. */
export const mostQuoted = 200;

/** One line, cut to `most` characters with a mark that says how many are left out. Doing so twice changes nothing. */
export function visibleLine(text: string, most = longestLine): string {
  if (text.length <= most) {
    const whole = visible(text);
    if (whole.length <= most) return whole;
  }
  const mark = (count: number): string => `… [${count} more characters]`;
  const room = most - mark(text.length).length;
  let line = "";
  let position = 0;
  for (const character of text) {
    const next = visible(character);
    if (line.length + next.length > room) break;
    line += next;
    position += character.length;
  }
  return line + mark(text.length - position);
}

/** A value as JSON; `missing` for undefined, and words for what nests too deeply to be written (a hostile file). */
export function jsonText(value: unknown): string {
  if (value === undefined) return "missing";
  // JSON has none of these, and would say null.
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  try {
    // Functions and symbols have no JSON.
    return JSON.stringify(value) ?? typeof value;
  } catch {
    return Array.isArray(value) ? "a deeply nested list" : "a deeply nested object";
  }
}

/** A value as `jsonText` writes it, cut to at most `length` characters. */
export function shown(value: unknown, length = 60): string {
  const text = jsonText(value);
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}
