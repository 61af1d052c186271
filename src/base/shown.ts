/** Found values in messages: short, on one line, whatever they are. */

/** A value as JSON; `missing` for undefined, and words for what nests too deeply to be written (a hostile file). */
export function jsonText(value: unknown): string {
  if (value === undefined) return "missing";
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Array.isArray(value) ? "a deeply nested list" : "a deeply nested object";
  }
}

/** The same, cut to at most `length` characters. */
export function shown(value: unknown, length = 60): string {
  const text = jsonText(value);
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}
