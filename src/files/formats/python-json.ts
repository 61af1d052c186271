/**
 * JSON as Python's `json` module reads and writes it: with `NaN`, `Infinity` and `-Infinity`, which JSON itself does
 * not have. transformers reads and writes its configs so.
 */

/** A string, or a number that JSON does not have. */
const stringsAndNumbers = /"(?:[^"\\]|\\[^])*"|-?\bInfinity\b|\bNaN\b/g;
/** Marks a number as a string between both passes; no text from a file begins with it unescaped. */
const mark = "\\u0000number:";
const parsedMark = "\u0000number:";

/** The value of such a text. Throws SyntaxError where it is neither JSON nor this extension of it. */
export function parsePythonJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    let found = false;
    const marked = text.replace(stringsAndNumbers, (token) => {
      if (token.startsWith('"')) return token;
      found = true;
      return `"${mark}${token}"`;
    });
    if (!found) throw cause;
    try {
      return JSON.parse(marked, (_, value: unknown) =>
        typeof value === "string" && value.startsWith(parsedMark) ? Number(value.slice(parsedMark.length)) : value,
      ) as unknown;
    } catch {
      // The first message has the text as the user wrote it.
      throw cause;
    }
  }
}
