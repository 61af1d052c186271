/** What the process of a tokenizer is asked and what it answers; plain data that Node's structured clone carries. */
import type { Failure } from "../../base/errors.js";

/** What a tokenizer's process can be asked, with arguments and answers. */
export interface Methods {
  /** Reads a `tokenizer.json`; `largestId` is -1 for an empty vocabulary. */
  load(file: string): { readonly largestId: number };
  encode(texts: readonly string[], addSpecialTokens: boolean): Int32Array[];
  decode(ids: Int32Array): string;
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
  /** An `UpcycleError` of ours. */
  | { readonly kind: "ours"; readonly failure: Failure }
  /** The file is no JSON at all. */
  | { readonly kind: "not JSON" }
  /** What the library threw. */
  | { readonly kind: "library"; readonly message: string };

/** The answer to a call, with its number: a result or a refusal. */
export interface TokenizerReply {
  readonly id: number;
  readonly result?: unknown;
  readonly refusal?: Refusal;
}

/** What the guard shares with its process: budgets in force, 0 where there is none. */
export const guarded = { processorMs: 0, memoryMB: 1 } as const;

/** What the guard thread of a tokenizer's process is started with. */
export interface GuardData {
  /** Indexed by `guarded`. */
  readonly limits: Int32Array<SharedArrayBuffer>;
  /** Process id of the command. */
  readonly parent: number;
}

/** What the guard writes to the process's stderr before it ends it. */
export const marks = { processorMs: "[guard] out of processor time", memoryMB: "[guard] out of memory" } as const;
