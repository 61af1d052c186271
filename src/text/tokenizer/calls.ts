/** What the process of a tokenizer is asked and what it answers; plain data that Node's structured clone carries. */
import type { Failure } from "../../base/errors.js";

/** What a tokenizer's process can be asked, with arguments and answers. */
export interface Methods {
  /** Reads a `tokenizer.json`; `largestId` is -1 for an empty vocabulary. It must be the first call. */
  load(file: string): { readonly largestId: number };
  /** Ids of each text. */
  encode(texts: readonly string[], addSpecialTokens: boolean): Int32Array[];
  /** The text of ids; special tokens are written out or left out. */
  decode(ids: Int32Array, skipSpecialTokens: boolean): string;
  /** Null for an id or a token that the tokenizer does not have. */
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
}

/** Name of something that a tokenizer's process can be asked. */
export type Method = keyof Methods;

/** What a call may take; more is taken for something that never ends. */
export interface CallBudget {
  /**
   * Milliseconds of the process's processor time: unlike time on the clock it stands still while the machine sleeps,
   * the process is stopped, or others have the processor.
   */
  readonly processorMs: number;
  /** Most memory of the process, in MB. */
  readonly memoryMB: number;
}

/** A call to a tokenizer's process. */
export interface TokenizerRequest {
  readonly id: number;
  readonly method: Method;
  readonly args: readonly unknown[];
  readonly budget: CallBudget;
}

/** Why a call could not be answered. */
export type Refusal =
  /** What an `UpcycleError` of ours says. */
  | { readonly kind: "ours"; readonly failure: Failure }
  /** What the library threw. */
  | { readonly kind: "library"; readonly message: string };

/** The answer to a call, with its number: a result or a refusal. */
export interface TokenizerReply {
  readonly id: number;
  readonly result?: unknown;
  readonly refusal?: Refusal;
}

/** Indices of the limits that the guard shares with its process; a limit of 0 is none. */
export const guardLimitIndex = { processorMs: 0, memoryMB: 1 } as const;

/** What the guard thread of a tokenizer's process is started with. */
export interface GuardData {
  /** Indexed by `guardLimits`. */
  readonly limits: Int32Array<SharedArrayBuffer>;
  /** Process id of the command. */
  readonly parent: number;
}

/** What the guard writes to the process's stderr before it ends it, by the limit that was exceeded. */
export const guardMarks = { processorMs: "[guard] out of processor time", memoryMB: "[guard] out of memory" } as const;
