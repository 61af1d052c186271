/** `--log`: further forms of a run's metrics. */
import { logFormats, type LogFormat } from "../train/exported-logs.js";
import { oneOf } from "./options.js";

/** Formats from the command line, separated by commas. Throws inputError for another word. */
export function logFormatsOf(option: string): (text: string) => readonly LogFormat[] {
  const read = oneOf(option, logFormats);
  return (text) => [...new Set(text.split(",").map((word) => read(word.trim())))];
}

/** The option as commander takes it. */
export const logOption = [
  "--log <list>",
  "write metrics as tensorboard and csv too, in the folder of each run",
  logFormatsOf("--log"),
] as const;
