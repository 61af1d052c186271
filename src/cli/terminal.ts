/**
 * Where a command's words go: results to stdout, progress and errors to stderr. All that is shown passes here and is
 * made harmless, because names in models, tables and answers of servers may hold escape sequences or be endless. On a
 * terminal lines are broken between words; in a file or a pipe they stay whole.
 */
import { fstatSync, writeSync } from "node:fs";
import type { UpcycleError } from "../base/errors.js";
import { folded } from "../base/format.js";
import { visible, visibleLine, visibleText } from "../base/shown.js";
import { displayWidth, shortened } from "../base/width.js";
import { fsError } from "../files/io/fs-errors.js";

/** The two streams of a command, as its results, notes and progress use them. */
export interface Terminal {
  /** Columns that results may take up: those of the terminal, from 20 to 120; 80 where stdout is no terminal. */
  readonly columns: number;
  /** Writes a line of results, or several, to stdout. */
  out(lines: string | readonly string[]): void;
  /**
   * Writes a result as one JSON document to stdout. Characters that would steer a terminal are written as JSON escapes,
   * so it is the same document.
   */
  json(document: unknown): void;
  /** Writes text of a model to stdout as it is; on a terminal without characters that would steer it. */
  write(text: string): void;
  /** Writes a line to stderr that stays. */
  note(line: string): void;
  /**
   * Shows the state of a long command. On a terminal the line is rewritten in place; elsewhere it is a plain line, at
   * most one every few seconds. Two spaces separate its parts, the most important first: where a terminal has too
   * little room, parts are left out from the end. `name` (of a tensor, a file, a run) stands last and is shortened in
   * its middle.
   */
  progress(line: string, name?: string): void;
  /** Takes the rewritten line away, if there is one. */
  settle(): void;
}

/** Least time between two plain progress lines. */
const PLAIN_INTERVAL_MS = 5000;
/** Least time between two rewrites of a line: a terminal shows no more. */
const REWRITE_INTERVAL_MS = 80;
/** Moves to the beginning of the line and clears it. */
const CLEAR = "\r\u001b[2K";

/** Columns of a terminal whose width is not known, and of a stream that is no terminal. */
const usualColumns = 80;
/** Text is hard to read in longer lines, and impossible in shorter ones. */
const [fewestColumns, mostColumns] = [20, 120];
/** A name says nothing in fewer columns. */
const leastName = 8;

interface ShownStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/** What `openTerminal` writes to, and its clock in milliseconds. */
export interface TerminalStreams {
  readonly stdout: ShownStream;
  readonly stderr: ShownStream;
  readonly now: () => number;
}

/** Columns that a terminal has now, since a user may resize it; null for a stream that is no terminal. */
function widthOf({ isTTY, columns }: ShownStream): number | null {
  // A terminal that does not know its size says 0.
  return isTTY === true ? columns || usualColumns : null;
}

/** Columns that results may take up on `stream`. */
export function resultColumns(stream: ShownStream): number {
  return Math.min(mostColumns, Math.max(fewestColumns, widthOf(stream) ?? usualColumns));
}

/** One line as `stream` shows it: harmless, bounded, and on a terminal broken between words. */
function shownLines(stream: ShownStream, line: string): string {
  const width = widthOf(stream);
  const text = visibleLine(line);
  if (width === null || displayWidth(text) <= width) return `${text}\n`;
  return `${folded(text, Math.max(fewestColumns, width), "keep").join("\n")}\n`;
}

/** Streams on which a rewritten line is on the screen and not ended yet, whoever wrote it. */
const openLines = new WeakSet<ShownStream>();

function settle(stream: ShownStream, how: "clear" | "keep"): void {
  if (openLines.delete(stream)) stream.write(how === "clear" ? CLEAR : "\n");
}

/** The terminal of a command on these streams; with `quiet` it shows results and nothing else. */
export function openTerminal({ stdout, stderr, now }: TerminalStreams, quiet: boolean): Terminal {
  let last = -Infinity;
  const clear = (): void => settle(stderr, "clear");
  return {
    get columns() {
      return resultColumns(stdout);
    },
    out(lines) {
      clear();
      for (const line of typeof lines === "string" ? [lines] : lines) stdout.write(shownLines(stdout, line));
    },
    json(document) {
      clear();
      stdout.write(`${visible(JSON.stringify(document))}\n`);
    },
    write(text) {
      clear();
      stdout.write(stdout.isTTY === true ? visibleText(text) : text);
    },
    note(line) {
      if (quiet) return;
      clear();
      stderr.write(shownLines(stderr, line));
    },
    progress(line, name = "") {
      if (quiet) return;
      const width = widthOf(stderr);
      if (now() - last < (width === null ? PLAIN_INTERVAL_MS : REWRITE_INTERVAL_MS)) return;
      last = now();
      if (width === null) {
        stderr.write(`${visibleLine(name === "" ? line : `${line}  ${name}`)}\n`);
        return;
      }
      // Some terminals begin the next line when the last column is written.
      stderr.write(`${CLEAR}${fitted(visibleLine(line), visibleLine(name), width - 1)}`);
      openLines.add(stderr);
    },
    settle: clear,
  };
}

/** As many parts of the line as fit into `width` columns, and as much of the name as then has room. */
function fitted(line: string, name: string, width: number): string {
  const [first = "", ...parts] = line.split(/ {2,}/);
  let text = shortened(first, width);
  for (const part of parts) {
    if (displayWidth(text) + 2 + displayWidth(part) > width) return text;
    text += `  ${part}`;
  }
  const room = width - displayWidth(text) - 2;
  return name === "" || room < Math.min(leastName, displayWidth(name)) ? text : `${text}  ${shortened(name, room)}`;
}

/** Shows an error on stderr, on lines of its own: the last progress of the command stays above it. */
export function showError(lines: readonly string[], stderr: ShownStream): void {
  settle(stderr, "keep");
  for (const line of lines) stderr.write(shownLines(stderr, line));
}

/** Takes away what is left of a progress line at the end of a command. */
export const settleAll = (stderr: ShownStream): void => settle(stderr, "clear");

/** Thrown where nobody reads stdout any more, which is no failure: nothing is left to do. */
export class ReaderGone extends Error {}

let readerGone = false;
/** Why results cannot be written. */
let failure: UpcycleError | null = null;
/** Whether a write has thrown `failure`, so that `main` shows it. */
let failureThrown = false;

/**
 * Standard output, as results are written to it. A reader that has seen enough (`| head`) closes the pipe. Results go
 * to stdout when the work is done, or are the work, so nothing is left to do then: the next write throws `ReaderGone`,
 * and the command ends as after a failure, its engine closed. (To end the process while an engine computes would be a
 * crash.) A training whose progress nobody reads any more continues. Where results cannot be written, on a full disk
 * for example, the write throws stopError.
 */
export const results: TerminalStreams["stdout"] = {
  get isTTY() {
    return process.stdout.isTTY;
  },
  get columns() {
    return process.stdout.columns;
  },
  write(text) {
    if (readerGone) throw new ReaderGone("nobody reads the output");
    if (failure === null && stdoutIsFile()) writeWhole(text);
    else if (failure === null) process.stdout.write(text);
    if (failure === null) return;
    failureThrown = true;
    throw failure;
  },
};

let isFile: boolean | undefined;

/** Devices such as /dev/full count as files here too, as they do for Node's streams; a terminal does not. */
function stdoutIsFile(): boolean {
  try {
    if (isFile === undefined) {
      const stats = fstatSync(1);
      isFile = !process.stdout.isTTY && (stats.isFile() || stats.isCharacterDevice());
    }
  } catch {
    isFile = false;
  }
  return isFile;
}

/**
 * Writes all of a text. A disk that is nearly full takes less of a piece without an error, and Node's stream would drop
 * the rest.
 */
function writeWhole(text: string): void {
  const bytes = Buffer.from(text);
  try {
    for (let offset = 0; offset < bytes.length;) offset += writeSync(1, bytes, offset);
  } catch (cause) {
    fail(cause as NodeJS.ErrnoException);
  }
}

function fail(cause: NodeJS.ErrnoException): void {
  failure ??= fsError(cause, "standard output", "write results");
}

/** EPIPE: the reader of a pipe is gone. EIO: the terminal is gone, with its window or its ssh. */
const isGone = ({ code }: NodeJS.ErrnoException): boolean => code === "EPIPE" || code === "EIO";

/**
 * Keeps a stream that fails from ending the process. Results that are lost make the exit code 1, with one line that
 * says why, also where the last of them, or Commander's help, failed after the command. Words on stderr that cannot be
 * written are lost, and the work continues.
 */
export function quietBrokenPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (isGone(error)) readerGone = true;
    else fail(error);
  });
  process.stderr.on("error", () => undefined);
  // A write beyond `ulimit -f` raises a signal that ends the process by default; where it is caught, the write fails.
  if (process.platform !== "win32") process.on("SIGXFSZ", () => undefined);
  process.on("exit", () => {
    if (failure === null) return;
    if (!failureThrown) process.stderr.write(`upcycle: ${failure.line}\n`);
    process.exitCode = Number(process.exitCode ?? 0) === 0 ? 1 : process.exitCode;
  });
}
