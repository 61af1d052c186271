/** Text that a command reads from a file, a pipe or standard input. */
import { inputName, isStandardInput, readInputText } from "../files/io/streams.js";

/** For the help of arguments and options. */
export const orStandardInput = "- for standard input";

/** Milliseconds of reading without a word. */
const patience = 2000;

/**
 * Reads, and says what is waited for: whoever types has to know how to end, and a pipe may have nobody at its other
 * end. `quiet`: not a word.
 */
export async function reading<T>(path: string, quiet: boolean | undefined, read: () => Promise<T>): Promise<T> {
  const typed = isStandardInput(path) && process.stdin.isTTY;
  const words = `reading ${inputName(path)}${typed ? ": type, and end it with Ctrl-D" : " to its end"}\n`;
  const say = (): void => void process.stderr.write(words);
  if (quiet === true) return read();
  if (typed) say();
  const timer = typed ? undefined : setTimeout(say, patience);
  try {
    return await read();
  } finally {
    clearTimeout(timer);
  }
}

/** Throws like `readInputText`. */
export function inputText(path: string, quiet: boolean | undefined): Promise<string> {
  return reading(path, quiet, () => readInputText(path));
}
