/** What the page of a plan computes with, and the command line that pages repeat. */
import { fileURLToPath } from "node:url";
import { shellWord } from "../base/shell.js";
import { readText } from "../files/io/ranges.js";
import type { NotedCommand } from "../files/io/command-file.js";

/** The planner as one script, which the build makes. */
export async function plannerBundle(): Promise<string> {
  return readText(fileURLToPath(new URL("../report/plan/plan-live.bundle.js", import.meta.url)));
}

/** The words of the running command after the program's name. */
export function commandWords(): readonly string[] {
  return process.argv.slice(2);
}

/** The running command, as it is noted in the folder that it makes. */
export const givenCommand = (): NotedCommand => ({ words: ["upcycle", ...commandWords()], folder: process.cwd() });

/** The running command, quoted so that it can be typed again. */
export function commandLine(): string {
  return `upcycle ${commandWords().map(shellWord).join(" ")}`;
}
