/** What every command gets: a terminal, and a signal that Ctrl-C and its like raise. */
import { isAbsolute, relative, resolve, sep } from "node:path";
import { onStopAsked } from "./signals.js";
import { openTerminal, results, type Terminal } from "./terminal.js";

export interface CommandContext {
  readonly terminal: Terminal;
  /** Print one JSON document on stdout and nothing else. */
  readonly json: boolean;
  readonly signal: AbortSignal;
}

export interface ContextOptions {
  readonly json: boolean | undefined;
  /**
   * What the command does on the first Ctrl-C (or SIGTERM, or SIGHUP), shown at once because it may take a while; the
   * second one ends the process. Empty: nothing to say. Left out: the command leaves nothing half done, and the signal
   * simply ends it.
   */
  readonly stopping?: string | undefined;
}

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
