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

export const exitCodes: Readonly<Record<FailureKind, number>> = { input: 2, stopped: 1, interrupted: 130 };

export interface Failure {
  readonly kind: FailureKind;
  /** What was found and what was expected, without a trailing full stop. */
  readonly message: string;
  /** File, tensor, key or line. */
  readonly where?: string;
  /** What the user can do about it. */
  readonly hint?: string;
}

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

  get exitCode(): number {
    return exitCodes[this.kind];
  }

  /**
   * One line: `where: message; hint`. Each is cut for itself, so that a name without end leaves room for what is wrong
   * with it.
   */
  get line(): string {
    const place = this.where === undefined ? "" : `${visibleLine(this.where, mostOfPart)}: `;
    const help = this.hint === undefined ? "" : `; ${oneLine(this.hint)}`;
    return `${place}${oneLine(this.message)}${help}`;
  }

  /** As it is shown. */
  get lines(): readonly string[] {
    return [this.line];
  }
}

/** A word without end in a place, message or hint. */
const mostOfPart = 1200;

/** Messages of libraries may have several lines. */
const oneLine = (text: string): string => visibleLine(text.replace(/\s*\n\s*/g, " "), mostOfPart);

/** Problems that are shown. */
const mostProblems = 50;

/** Several things wrong with one file. As one line it is the first of them, which says how many others there are. */
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

  /** How many, and each on a line of its own. */
  override get lines(): readonly string[] {
    const more = this.problems.length - mostProblems;
    return [
      `${visibleLine(this.file, mostOfPart)}: ${this.problems.length} problems`,
      ...this.problems.slice(0, mostProblems).map(({ line }) => `  ${line}`),
      ...(more > 0 ? [`  and ${more} more`] : []),
    ];
  }
}

/** Bad input: exit code 2. */
export function inputError(
  message: string,
  extra: { where?: string; hint?: string; cause?: unknown } = {},
): UpcycleError {
  return new UpcycleError({ kind: "input", message, where: extra.where, hint: extra.hint }, { cause: extra.cause });
}

/** A run that had to stop: exit code 1. */
export function stopError(
  message: string,
  extra: { where?: string; hint?: string; cause?: unknown } = {},
): UpcycleError {
  return new UpcycleError({ kind: "stopped", message, where: extra.where, hint: extra.hint }, { cause: extra.cause });
}

/** The user asked to stop and everything is saved. */
export function interruptedError(message: string, extra: { where?: string; hint?: string } = {}): UpcycleError {
  return new UpcycleError({ kind: "interrupted", message, where: extra.where, hint: extra.hint });
}

/** An error on its way between threads, which classes do not survive. */
export interface SentError {
  readonly message: string;
  readonly stack: string | undefined;
  /** Set for an UpcycleError. */
  readonly kind: FailureKind | undefined;
  readonly where: string | undefined;
  readonly hint: string | undefined;
}

export function sentError(error: unknown): SentError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const known = error instanceof UpcycleError ? error : undefined;
  return { message, stack, kind: known?.kind, where: known?.where, hint: known?.hint };
}

export function receivedError({ kind, message, where, hint, stack }: SentError): Error {
  const error =
    kind === undefined
      ? new Error(message)
      : new UpcycleError({ kind, message, ...(where !== undefined && { where }), ...(hint !== undefined && { hint }) });
  if (stack !== undefined) error.stack = stack;
  return error;
}
