/**
 * Every failure a user can meet is an `UpcycleError`: what was found, where, what was expected, what to do.
 * Anything else that is thrown is a defect of ours and may show a stack.
 */
import { visibleLine } from "./shown.js";

/**
 * `input`: the user gave something we cannot use (exit 2). `stopped`: a run had to stop (exit 1). `interrupted`: asked
 * to stop, after saving (exit 130, as after Ctrl-C; where another signal asked, the command line says that one's code).
 */
export type FailureKind = "input" | "stopped" | "interrupted";

/** The exit code of the command line for each kind of failure. */
export const exitCodes: Readonly<Record<FailureKind, number>> = { input: 2, stopped: 1, interrupted: 130 };

/** What an `UpcycleError` is made of. */
export interface Failure {
  readonly kind: FailureKind;
  /** What was found and what was expected, without a trailing full stop. */
  readonly message: string;
  /** The file, tensor, key or line that the message is about. */
  readonly where?: string;
  /** What the user can do about it. */
  readonly hint?: string;
}

/**
 * A failure that a caller can cause or meet: bad input, a run that had to stop, a request to stop. `message`, `where`
 * and `hint` mean what they mean in `Failure`.
 */
export class UpcycleError extends Error {
  readonly kind: FailureKind;
  readonly where: string | undefined;
  readonly hint: string | undefined;

  constructor(failure: Failure, options?: { cause?: unknown }) {
    super(failure.message, options);
    this.name = "UpcycleError";
    this.kind = failure.kind;
    this.where = failure.where;
    this.hint = failure.hint;
  }

  /** The exit code with which the command line ends after this error. */
  get exitCode(): number {
    return exitCodes[this.kind];
  }

  /**
   * One line: `where: message; hint`. Each of the three is cut on its own, so that an endless name leaves room for what
   * is wrong with it.
   */
  get line(): string {
    const place = this.where === undefined ? "" : `${visibleLine(this.where, longestPart)}: `;
    const help = this.hint === undefined ? "" : `; ${oneLine(this.hint)}`;
    return `${place}${oneLine(this.message)}${help}`;
  }

  /** The lines in which the command line shows the error. */
  get lines(): readonly string[] {
    return [this.line];
  }
}

/** Most characters of a place, message or hint: each may quote an endless word of a file. */
const longestPart = 1200;

/** Messages of libraries may have several lines, which are joined here. */
const oneLine = (text: string): string => visibleLine(text.replace(/\s*\n\s*/g, " "), longestPart);

/** Most problems of one file that are shown. */
const mostProblems = 50;

/**
 * Several things are wrong with one file. As one line it is the first of them, which says how many others there are.
 */
export class FileProblems extends UpcycleError {
  readonly file: string;
  readonly problems: readonly UpcycleError[];

  constructor(file: string, problems: readonly [UpcycleError, UpcycleError, ...UpcycleError[]]) {
    const [{ kind, message, where, hint }] = problems;
    const others = problems.length - 1;
    const more = `(and ${others} more problem${others === 1 ? "" : "s"})`;
    super({
      kind,
      message: `${message} ${more}`,
      ...(where !== undefined && { where }),
      ...(hint !== undefined && { hint }),
    });
    this.file = file;
    this.problems = problems;
  }

  /** The number of problems, then each problem on a line of its own. */
  override get lines(): readonly string[] {
    const more = this.problems.length - mostProblems;
    return [
      `${visibleLine(this.file, longestPart)}: ${this.problems.length} problems`,
      ...this.problems.slice(0, mostProblems).map(({ line }) => `  ${line}`),
      ...(more > 0 ? [`  and ${more} more`] : []),
    ];
  }
}

interface ErrorDetails {
  readonly where?: string;
  readonly hint?: string;
  readonly cause?: unknown;
}

function failureOf(kind: FailureKind, message: string, { where, hint, cause }: ErrorDetails): UpcycleError {
  return new UpcycleError({ kind, message, where, hint }, { cause });
}

/** The error of bad input, which ends a command with exit code 2. */
export const inputError = (message: string, details: ErrorDetails = {}): UpcycleError =>
  failureOf("input", message, details);

/** The error of a run that had to stop, which ends a command with exit code 1. */
export const stopError = (message: string, details: ErrorDetails = {}): UpcycleError =>
  failureOf("stopped", message, details);

/** The error of a command that was asked to stop and has saved everything. */
export function interruptedError(message: string, extra: { where?: string; hint?: string } = {}): UpcycleError {
  return new UpcycleError({ kind: "interrupted", message, where: extra.where, hint: extra.hint });
}

/** An error on its way between threads, which classes do not survive. */
export interface SentError {
  readonly message: string;
  readonly stack: string | undefined;
  /** The kind of an `UpcycleError`; undefined for any other error. */
  readonly kind: FailureKind | undefined;
  readonly where: string | undefined;
  readonly hint: string | undefined;
}

/** An error as plain data that a message between threads can carry. */
export function sentError(error: unknown): SentError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const failure = error instanceof UpcycleError ? error : undefined;
  return { message, stack, kind: failure?.kind, where: failure?.where, hint: failure?.hint };
}

/** The error that `sentError` took apart in another thread, with that thread's stack. */
export function receivedError({ kind, message, where, hint, stack }: SentError): Error {
  const error =
    kind === undefined
      ? new Error(message)
      : new UpcycleError({ kind, message, ...(where !== undefined && { where }), ...(hint !== undefined && { hint }) });
  if (stack !== undefined) error.stack = stack;
  return error;
}
