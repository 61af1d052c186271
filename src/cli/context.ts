/** What every command gets: a terminal, and a signal that is raised by Ctrl-C, SIGTERM and SIGHUP. */
import { isAbsolute, relative, resolve, sep } from "node:path";
import { onStopAsked } from "./signals.js";
import { openTerminal, results, type Terminal } from "./terminal.js";

/** What a command works with. */
export interface CommandContext {
  readonly terminal: Terminal;
  /** Print one JSON document on stdout and nothing else. */
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/** How a command shows its results and how it stops. */
export interface ContextOptions {
  readonly json: boolean | undefined;
  /**
   * What the command does on the first Ctrl-C (or SIGTERM, or SIGHUP). The words are shown at once, because it may take
   * a while; empty words are not shown. A second signal ends the process. Where `stopping` is left out, the command
   * leaves nothing half done, and the first signal simply ends it.
   */
  readonly stopping?: string | undefined;
}

/** Opens the terminal and, where `stopping` is given, listens for signals that ask the command to stop. */
export function openContext({ json = false, stopping }: ContextOptions): CommandContext {
  const controller = new AbortController();
  const terminal = openTerminal({ stdout: results, stderr: process.stderr, now: () => performance.now() }, json);
  if (stopping !== undefined) {
    onStopAsked(() => {
      controller.abort();
      if (stopping !== "") terminal.note(`stopping: ${stopping} (once more to stop at once)`);
    });
  }
  return { terminal, json, signal: controller.signal };
}

/** A path as the user would write it: relative where it lies below the working folder. */
export function shownPath(path: string): string {
  const below = relative(process.cwd(), resolve(path));
  if (below === "") return ".";
  // On Windows a path on another drive stays absolute.
  return below === ".." || below.startsWith(`..${sep}`) || isAbsolute(below) ? path : below;
}
