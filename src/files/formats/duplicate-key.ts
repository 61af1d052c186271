/**
 * What `JSON.parse` does not say of a text: whether an object in it has a key twice, of which it keeps the last
 * silently (in a checkpoint that hides a tensor), and how deeply it is nested, which whoever walks through the value
 * must survive.
 */

/**
 * How deeply a value may be nested: deeper than in any file that a person or a program means to write. Whatever walks
 * through a value calls itself at most so often.
 */
export const deepestJson = 500;

/**
 * Whether lists and objects are nested in each other more than `deepestJson` times. To be called before `JSON.parse`,
 * which takes a kilobyte of memory for each level. For a text that is no JSON the answer means nothing.
 */
export function isNestedTooDeeply(text: string): boolean {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = endOfString(text, at);
      if (at < 0) return false;
    } else if (code === OPEN_OBJECT || code === OPEN_LIST) {
      if (++depth > deepestJson) return true;
    } else if (code === CLOSE_OBJECT || code === CLOSE_LIST) depth--;
  }
  return false;
}

/** The message for a text that is nested too deeply. */
export const nestedTooDeeply = `lists and objects are nested more than ${deepestJson} levels deep`;

/**
 * The first key that occurs twice in one object of a JSON text, or undefined. `value` is what `JSON.parse` made of the
 * text.
 */
export function duplicateKey(text: string, value: unknown = JSON.parse(text)): string | undefined {
  // Counting takes a fraction of the time and memory of remembering the keys of 500,000 tensors.
  return keysWritten(text) === keysOf(value) ? undefined : firstDuplicate(text);
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];
const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];

/** Where the string that begins at `start` has its closing quote. */
function endOfString(text: string, start: number): number {
  let at = text.indexOf('"', start + 1);
  for (;;) {
    let escapes = 0;
    while (text.charCodeAt(at - 1 - escapes) === BACKSLASH) escapes++;
    if (escapes % 2 === 0) return at;
    at = text.indexOf('"', at + 1);
  }
}

/** How many keys the text has: outside of strings, each colon stands behind a key. */
function keysWritten(text: string): number {
  let keys = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === COLON) keys++;
  }
  return keys;
}

/** How many keys the value has, with all objects in it. */
function keysOf(value: unknown): number {
  let keys = 0;
  const pending = [value];
  while (pending.length > 0) {
    const next = pending.pop();
    if (typeof next !== "object" || next === null) continue;
    if (Array.isArray(next)) {
      for (const entry of next) if (typeof entry === "object") pending.push(entry);
      continue;
    }
    for (const key of Object.keys(next)) {
      keys++;
      const inner = (next as Record<string, unknown>)[key];
      if (typeof inner === "object") pending.push(inner);
    }
  }
  return keys;
}

function firstDuplicate(text: string): string | undefined {
  // Has one entry per open bracket: the keys so far of an object, or null for a list.
  const open: (Set<string> | null)[] = [];
  let expectsKey = false;
  for (let at = 0; at < text.length; at++) {
    const char = text.charAt(at);
    if (char === '"') {
      const start = at;
      at = endOfString(text, at);
      const keys = expectsKey ? open.at(-1) : null;
      expectsKey = false;
      if (keys === null || keys === undefined) continue;
      const key = JSON.parse(text.slice(start, at + 1)) as string;
      if (keys.has(key)) return key;
      keys.add(key);
    } else if (char === "{") {
      open.push(new Set());
      expectsKey = true;
    } else if (char === "[") {
      open.push(null);
      expectsKey = false;
    } else if (char === "}" || char === "]") {
      open.pop();
      expectsKey = false;
    } else if (char === ",") {
      expectsKey = open.at(-1) !== null;
    }
  }
  return undefined;
}
