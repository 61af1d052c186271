/** Words that are not ours in Markdown: names of folders, what a model says of itself. */

/**
 * The text as it reads, on one line: nothing in it is markup, HTML, a link or the end of a block, and nothing of it is
 * invisible. `|` is left to tables, which have to escape it also in text of ours.
 */
export function markdownText(text: string): string {
  const line = oneLine(text);
  // An underscore within a word emphasises nothing, and names are full of them.
  return line.replace(/[\\`*[\]<>~#&$]|(?<![\p{L}\p{N}])_|_(?![\p{L}\p{N}])/gu, "\\$&");
}

/** The text with one space in place of line ends, control characters, characters of no width and direction marks. */
export function oneLine(text: string): string {
  return text.replace(/[\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, " ").trim();
}
