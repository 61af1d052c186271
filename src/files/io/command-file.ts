/**
 * The command that made a folder, noted in it: what a reader needs to go on with a stopped run, or to repeat it. It is
 * no part of what a run is, so that the same run may be gone on with by another command.
 */
import { join } from "node:path";
import { writeJson } from "./atomic.js";

/** Name of the file. */
export const commandFile = "command.json";

/** A command line with the folder in which it was given. */
export interface NotedCommand {
  /** The words, `upcycle` first. */
  readonly words: readonly string[];
  readonly folder: string;
}

/** Notes a command in a folder that is there. Throws stopError where the disk is full. */
export const noteCommand = (dir: string, { words, folder }: NotedCommand): Promise<void> =>
  writeJson(join(dir, commandFile), { version: 1, words, folder });

/** The command in the content of such a file; null for any other content. */
export function readCommand(content: unknown): NotedCommand | null {
  const { words, folder } = (content ?? {}) as Partial<NotedCommand>;
  const isCommand = Array.isArray(words) && words.every((word) => typeof word === "string") && words[0] === "upcycle";
  return isCommand && typeof folder === "string" ? { words, folder } : null;
}
