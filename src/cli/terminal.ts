/** Where a command's words go: results to stdout, progress and errors to stderr. */

export interface Terminal {
  /** Results: a line on stdout. */
  out(line: string): void;
  /** Results: a part of a line on stdout. */
  write(text: string): void;
  /** A line on stderr that stays. */
  note(line: string): void;
  /** The state of a long command: rewritten in place on a terminal; elsewhere a plain line, at most one every few seconds. */
  progress(line: string): void;
  /** Ends the rewritten line, if there is one. */
  settle(): void;
}

/** Between two plain progress lines. */
const PLAIN_INTERVAL_MS = 5000;
/** Between two rewrites: a terminal shows no more. */
const REWRITE_INTERVAL_MS = 80;

export interface TerminalStreams {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown; readonly isTTY?: boolean; readonly columns?: number };
  readonly now: () => number;
}

export function openTerminal({ stdout, stderr, now }: TerminalStreams, quiet: boolean): Terminal {
  // A rewritten line is on the screen and not ended yet.
  let shown = false;
  let last = -Infinity;
  const settle = (): void => {
    if (shown) stderr.write("\n");
    shown = false;
  };
  return {
    out(line) {
      settle();
      stdout.write(`${line}\n`);
    },
    write(text) {
      settle();
      stdout.write(text);
    },
    note(line) {
      if (quiet) return;
      settle();
      stderr.write(`${line}\n`);
    },
    progress(line) {
      if (quiet) return;
      const live = stderr.isTTY === true;
      if (now() - last < (live ? REWRITE_INTERVAL_MS : PLAIN_INTERVAL_MS)) return;
      last = now();
      if (!live) {
        stderr.write(`${line}\n`);
        return;
      }
      const columns = stderr.columns ?? 80;
      stderr.write(`\r\u001b[2K${line.length < columns ? line : `${line.slice(0, columns - 2)}…`}`);
      shown = true;
    },
    settle,
  };
}

/** Nobody reads stdout any more: no failure, and nothing left to do. */
export class ReaderGone extends Error {}

let readerGone = false;

/**
 * A reader that has seen enough (`| head`) closes the pipe. Results go to stdout when the work is done, or are the work, so there is nothing left to do: the next
 * write throws `ReaderGone`, and the command ends as after a failure, its engine closed. (To end the process while an engine computes would be a crash.) But a
 * training whose progress nobody reads any more goes on.
 */
export const results: TerminalStreams["stdout"] = {
  write(text) {
    if (readerGone) throw new ReaderGone("nobody reads the output");
    process.stdout.write(text);
  },
};

/** EPIPE: the reader of a pipe has gone. EIO: the terminal has, with its window or its ssh. */
const isGone = ({ code }: NodeJS.ErrnoException): boolean => code === "EPIPE" || code === "EIO";

export function quietBrokenPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (!isGone(error)) throw error;
    readerGone = true;
  });
  process.stderr.on("error", (error: NodeJS.ErrnoException) => {
    if (!isGone(error)) throw error;
  });
}
