/** Words of a suggested command, quoted so that it can be copied into a shell whatever a path is called. */

/** No character of such a word means anything to a shell; `~` and `=` would at its beginning. */
const harmless = /^(?![~=])[\w./:=,@%~+-]+$/;

/** An argument as bash, zsh and ksh take it, quoted only where it has to be. */
export function shellWord(text: string): string {
  if (harmless.test(text)) return text;
  // What cannot be seen would not survive being shown, so it is spelled out: $'...' of bash, zsh and ksh.
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(text)) return `$'${text.replace(/[\\'\p{C}\p{Zl}\p{Zp}]/gu, spelled)}'`;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A path as an argument; one that begins with a dash, which would be taken for an option, gets `./` in front. */
export const shellPath = (path: string): string => shellWord(path.startsWith("-") ? `./${path}` : path);

function spelled(character: string): string {
  if (character === "\\" || character === "'") return `\\${character}`;
  if (character === "\n") return "\\n";
  // A lone surrogate has no bytes of its own in UTF-8.
  return [...new TextEncoder().encode(character)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}
