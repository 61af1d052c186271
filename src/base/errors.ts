/**
 * Every failure a user can meet is an `UpcycleError`: what was found, where, what was expected, what to do.
 * Anything else that is thrown is a defect of ours and may show a stack.
 */

/**
 * `input`: the user gave something we cannot use (exit 2). `stopped`: a run had to stop (exit 1). `interrupted`: asked to stop, after saving (exit 130, as after
 * Ctrl-C; where another signal asked, the command line says that one's code).
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

  /** One line: `where: message; hint`. */
  get line(): string {
    const place = this.where === undefined ? "" : `${this.where}: `;
    const help = this.hint === undefined ? "" : `; ${this.hint}`;
    return `${place}${this.message}${help}`.replace(/\s*\n\s*/g, " ");
  }
}

/** Bad input: exit code 2. */
export function inputError(message: string, extra: { where?: string; hint?: string; cause?: unknown } = {}): UpcycleError {
  return new UpcycleError({ kind: "input", message, where: extra.where, hint: extra.hint }, { cause: extra.cause });
}

/** A run that had to stop: exit code 1. */
export function stopError(message: string, extra: { where?: string; hint?: string; cause?: unknown } = {}): UpcycleError {
  return new UpcycleError({ kind: "stopped", message, where: extra.where, hint: extra.hint }, { cause: extra.cause });
}

/** The user asked to stop and everything is saved. */
export function interruptedError(message: string, extra: { where?: string; hint?: string } = {}): UpcycleError {
  return new UpcycleError({ kind: "interrupted", message, where: extra.where, hint: extra.hint });
}
