/** Text that a command reads from a file, a pipe or standard input. */
import { inputName, isStandardInput, readInputText } from "../files/io/streams.js";

/** Words for the help of an argument or option that `-` may stand for. */
export const orStandardInput = "- for standard input";

/** Milliseconds of reading after which a note says what the command waits for. */
const patience = 2000;

/**
 * Runs `read`, and says on stderr what is waited for: whoever types has to know how to end, and a pipe may have nobody
 * at its other end. With `quiet` nothing is said.
 */
export async function reading<T>(path: string, quiet: boolean | undefined, read: () => Promise<T>): Promise<T> {
  const isTyping = isStandardInput(path) && process.stdin.isTTY;
  const words = `reading ${inputName(path)}${isTyping ? ": type, and end it with Ctrl-D" : " to its end"}\n`;
  const say = (): void => void process.stderr.write(words);
  if (quiet === true) return read();
  if (isTyping) say();
  const timer = isTyping ? undefined : setTimeout(say, patience);
  try {
    return await read();
  } finally {
    clearTimeout(timer);
  }
}

/** The text of a file, a pipe or standard input, with the notes of `reading`. Throws like `readInputText`. */
export function inputText(path: string, quiet: boolean | undefined): Promise<string> {
  return reading(path, quiet, () => readInputText(path));
}
