/** Where a command's words go: results to stdout, progress and errors to stderr. */
import { fstatSync, writeSync } from "node:fs";
import type { UpcycleError } from "../base/errors.js";
import { fsError } from "../io/fs-errors.js";

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
/** Why results cannot be written, and whether `main` has been told. */
let failure: UpcycleError | null = null;
let thrown = false;

/**
 * A reader that has seen enough (`| head`) closes the pipe. Results go to stdout when the work is done, or are the work,
 * so there is nothing left to do: the next write throws `ReaderGone`, and the command ends as after a failure, its engine
 * closed. (To end the process while an engine computes would be a crash.) But a training whose progress nobody reads any
 * more goes on. Where results cannot be written, on a full disk say, the write throws stopError.
 */
export const results: TerminalStreams["stdout"] = {
  write(text) {
    if (readerGone) throw new ReaderGone("nobody reads the output");
    if (failure === null && stdoutIsFile()) writeWhole(text);
    else if (failure === null) process.stdout.write(text);
    if (failure === null) return;
    thrown = true;
    throw failure;
  },
};

let isFile: boolean | undefined;

/** Devices such as /dev/full count as files here too, as they do for Node's streams; a terminal does not. */
function stdoutIsFile(): boolean {
  try {
    isFile ??= !process.stdout.isTTY && ((found) => found.isFile() || found.isCharacterDevice())(fstatSync(1));
  } catch {
    isFile = false;
  }
  return isFile;
}

/** Node's stream drops what a file does not take of a piece, and a disk that is nearly full takes less without an error. */
function writeWhole(text: string): void {
  const bytes = Buffer.from(text);
  try {
    for (let done = 0; done < bytes.length;) done += writeSync(1, bytes, done);
  } catch (cause) {
    fail(cause as NodeJS.ErrnoException);
  }
}

function fail(cause: NodeJS.ErrnoException): void {
  failure ??= fsError(cause, "standard output", "write results");
}

/**
 * Streams that fail end nothing by themselves. Results that are lost make the exit code 1, with one line that says why,
 * also where the last of them, or Commander's help, failed after the command. Words on stderr that cannot be written are
 * lost, and the work goes on.
 */
export function quietBrokenPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") readerGone = true;
    else fail(error);
  });
  process.stderr.on("error", () => undefined);
  // Beyond `ulimit -f` the signal's default is to end the process; without it the write fails like any other.
  if (process.platform !== "win32") process.on("SIGXFSZ", () => undefined);
  process.on("exit", () => {
    if (failure === null) return;
    if (!thrown) process.stderr.write(`upcycle: ${failure.line}\n`);
    process.exitCode = Number(process.exitCode ?? 0) === 0 ? 1 : process.exitCode;
  });
}
