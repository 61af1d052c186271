/**
 * Where a command's words go: results to stdout, progress and errors to stderr. All that is shown passes here, so here
 * it is made harmless: names in models, tables and answers of servers may hold escape sequences or be endless. On a
 * terminal lines are broken between words; what goes to a file or a pipe is not.
 */
import { fstatSync, writeSync } from "node:fs";
import type { UpcycleError } from "../base/errors.js";
import { folded } from "../base/format.js";
import { visible, visibleLine, visibleText } from "../base/shown.js";
import { displayWidth, shortened } from "../base/width.js";
import { fsError } from "../files/io/fs-errors.js";

export interface Terminal {
  /** Columns that results may take up: those of the terminal, within reason; 80 elsewhere. */
  readonly columns: number;
  /** Results: a line on stdout, or several. */
  out(lines: string | readonly string[]): void;
  /**
   * A result as one JSON document on stdout. Characters that would steer a terminal are written as JSON escapes, so it
   * is the same document.
   */
  json(document: unknown): void;
  /** Results: text of a model on stdout, as it is; on a terminal without what would steer it. */
  write(text: string): void;
  /** A line on stderr that stays. */
  note(line: string): void;
  /**
   * The state of a long command: rewritten in place on a terminal; elsewhere a plain line, at most one every few
   * seconds. Two spaces part what is said, the most important first: what a terminal has no room for is left out from
   * the end. `name` (of a tensor, a file, a run) stands last and is shortened in its middle.
   */
  progress(line: string, name?: string): void;
  /** Takes the rewritten line away, if there is one. */
  settle(): void;
}

/** Between two plain progress lines. */
const PLAIN_INTERVAL_MS = 5000;
/** Between two rewrites: a terminal shows no more. */
const REWRITE_INTERVAL_MS = 80;
const CLEAR = "\r\u001b[2K";

/** Where the width is not known, and for what is no terminal. */
const usualColumns = 80;
/** Text is hard to read in longer lines, and impossible in shorter ones. */
const [fewestColumns, mostColumns] = [20, 120];
/** A name in fewer columns says nothing. */
const leastName = 8;

interface ShownStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface TerminalStreams {
  readonly stdout: ShownStream;
  readonly stderr: ShownStream;
  readonly now: () => number;
}

/** Columns of a terminal as it is now: a user may resize it. Null for what is none. */
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
const rewritten = new WeakSet<ShownStream>();

function settle(stream: ShownStream, how: "clear" | "keep"): void {
  if (rewritten.delete(stream)) stream.write(how === "clear" ? CLEAR : "\n");
}

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
      // In the last column some terminals begin the next line.
      stderr.write(`${CLEAR}${fitted(visibleLine(line), visibleLine(name), width - 1)}`);
      rewritten.add(stderr);
    },
    settle: clear,
  };
}

/** As many of the parts as fit into `width` columns, and of the name what then has room. */
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

/** An error on stderr, on lines of its own: how far a command had come stays to be seen above it. */
export function showError(lines: readonly string[], stderr: ShownStream): void {
  settle(stderr, "keep");
  for (const line of lines) stderr.write(shownLines(stderr, line));
}

/** At the end of a command nothing stays half said. */
export const settleAll = (stderr: ShownStream): void => settle(stderr, "clear");

/** Nobody reads stdout any more: no failure, and nothing left to do. */
export class ReaderGone extends Error {}

let readerGone = false;
/** Why results cannot be written, and whether `main` has been told. */
let failure: UpcycleError | null = null;
let thrown = false;

/**
 * A reader that has seen enough (`| head`) closes the pipe. Results go to stdout when the work is done, or are the
 * work, so there is nothing left to do: the next write throws `ReaderGone`, and the command ends as after a failure,
 * its engine closed. (To end the process while an engine computes would be a crash.) But a training whose progress
 * nobody reads any more goes on. Where results cannot be written, on a full disk say, the write throws stopError.
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

/**
 * Node's stream drops what a file does not take of a piece, and a disk that is nearly full takes less without an error.
 */
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

/** EPIPE: the reader of a pipe has gone. EIO: the terminal has, with its window or its ssh. */
const isGone = ({ code }: NodeJS.ErrnoException): boolean => code === "EPIPE" || code === "EIO";

/**
 * Streams that fail end nothing by themselves. Results that are lost make the exit code 1, with one line that says why,
 * also where the last of them, or Commander's help, failed after the command. Words on stderr that cannot be written
 * are lost, and the work goes on.
 */
export function quietBrokenPipe(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (isGone(error)) readerGone = true;
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
