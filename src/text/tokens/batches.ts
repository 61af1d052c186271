/**
 * Which tokens a training or evaluation step sees: a pure function of (tokens, settings, step), so a run that is
 * stopped and resumed sees the same data, and so does one that accumulates over smaller micro-batches.
 *
 * A window of S inputs reads S + 1 tokens, the last one only as a target; the next window starts at that token:
 *
 *   tokens    t0 t1 t2 t3 t4 t5 t6 ...        S = 3
 *   window 0  [t0 t1 t2] -> [t1 t2 t3]
 *   window 1           [t3 t4 t5] -> [t4 t5 t6]
 *
 * Letters: B sequences in a batch, S tokens in a sequence.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";

/** The token ids of a text, one after the other; ids below 65536 may take 16 bits each. */
export type TokenRow = Int32Array | Uint16Array;

/** A target that carries no loss. */
export const IGNORED_TARGET = -1;

/** Inputs of one micro-batch, and the tokens that follow them. */
export interface Batch {
  /** [B, S] token ids. */
  readonly inputs: Int32Array;
  /** [B, S]: the token that follows each input, or `IGNORED_TARGET`. */
  readonly targets: Int32Array;
}

/** Shape and order of training batches. */
export interface BatchSettings {
  /** B, sequences in one (micro-)batch. */
  readonly batch: number;
  /** S, tokens in one sequence. */
  readonly sequence: number;
  /** Decides the order of the windows. */
  readonly seed: number | string;
}

/** Training batches of one token row. */
export interface BatchReader {
  /** Windows in one pass over the text; up to S tokens at the end of the text belong to no window. */
  readonly windows: number;
  /**
   * Batch number `step`, from 0. With accumulation over A micro-batches, optimizer step s reads batches
   * s * A .. s * A + A - 1; that is the same data as one batch of A * B sequences.
   */
  at(step: number): Batch;
}

/** How many full windows of `sequence` inputs the tokens hold. */
export function windowCount(tokens: number, sequence: number): number {
  return Math.max(0, Math.floor((tokens - 1) / sequence));
}

/** The order in which epoch `epoch` visits its windows: [windows], a permutation of 0..windows-1. */
export function windowOrder(windows: number, seed: number | string, epoch: number): Int32Array {
  const order = new Int32Array(windows);
  randomStream(seed, `batches/epoch/${epoch}`).permutation(order);
  return order;
}

/**
 * A reader of training batches. It keeps the order of the last epoch it read, which changes its speed only.
 * Throws an input error for sizes below 1 and for a text shorter than one window.
 */
export function openBatches(tokens: TokenRow, settings: BatchSettings): BatchReader {
  const { batch, sequence, seed } = settings;
  checkSizes(batch, sequence);
  const windows = windowCount(tokens.length, sequence);
  if (windows === 0) {
    throw inputError(
      `the training text has ${tokens.length} tokens, needed at least ${sequence + 1} for one sequence`,
      {
        hint: "give more text or a shorter sequence",
      },
    );
  }
  const windowAt = windowReader(windows, seed);
  return {
    windows,
    at(step) {
      requireStep(step);
      const rows = emptyBatch(batch, sequence);
      for (let row = 0; row < batch; row++) {
        const start = windowAt(step * batch + row) * sequence;
        setWindow(rows, row, tokens, start, sequence);
      }
      return rows;
    },
  };
}

/**
 * The window of each sequence of a text, by the sequence's number. It keeps the order of the last epoch it was asked
 * for, which changes its speed only.
 */
export function windowReader(windows: number, seed: number | string): (index: number) => number {
  let orderEpoch = -1;
  let order: Int32Array = new Int32Array(0);
  return (index) => {
    const epoch = Math.floor(index / windows);
    if (epoch !== orderEpoch) {
      order = windowOrder(windows, seed, epoch);
      orderEpoch = epoch;
    }
    return at(order, index % windows);
  };
}

/** Throws inputError for what is no number of a batch. */
export function requireStep(step: number): void {
  if (!Number.isSafeInteger(step) || step < 0) throw inputError(`batch number ${step} is not a whole number from 0`);
}

/** A batch [B, S] of input 0 whose targets carry no loss. */
export function emptyBatch(batch: number, sequence: number): Batch {
  return {
    inputs: new Int32Array(batch * sequence),
    targets: new Int32Array(batch * sequence).fill(IGNORED_TARGET),
  };
}

/** Fills row `row` of a batch [B, S] with the window that begins at token `start`. */
export function setWindow(
  { inputs, targets }: Batch,
  row: number,
  tokens: TokenRow,
  start: number,
  sequence: number,
): void {
  inputs.set(tokens.subarray(start, start + sequence), row * sequence);
  targets.set(tokens.subarray(start + 1, start + sequence + 1), row * sequence);
}

/** Shape and number of evaluation batches. */
export interface EvalSettings {
  /** B, sequences in one batch. */
  readonly batch: number;
  /** S, tokens in one sequence. */
  readonly sequence: number;
  /** Stop after this many predicted tokens; everything when left out. */
  readonly limitTokens?: number | undefined;
}

interface EvalBatch extends Batch {
  /** Targets in this batch that carry loss. */
  readonly count: number;
}

/**
 * Batches of the text in order, each token predicted at most once (the first never: nothing precedes it). All batches
 * have the full [B, S] shape; what is missing at the end is input 0 with target `IGNORED_TARGET`, always after the real
 * tokens of its row, so causal attention never sees it. Throws an input error for sizes below 1, a limit below 1, and
 * fewer than two tokens.
 */
export function* evalBatches(tokens: TokenRow, settings: EvalSettings): Generator<EvalBatch> {
  const { batch, sequence, limitTokens } = settings;
  checkSizes(batch, sequence);
  if (limitTokens !== undefined && !(limitTokens >= 1)) {
    throw inputError(`the limit of evaluation tokens is ${limitTokens}, expected at least 1`);
  }
  if (tokens.length < 2) {
    throw inputError(`the evaluation text has ${tokens.length} tokens, needed at least 2`, { hint: "give more text" });
  }
  const predictions = Math.min(tokens.length - 1, Math.floor(limitTokens ?? Infinity));
  for (let start = 0; start < predictions; start += batch * sequence) {
    const count = Math.min(batch * sequence, predictions - start);
    const rows = emptyBatch(batch, sequence);
    // Rows are consecutive windows, so the whole batch is one consecutive stretch of the text.
    setWindow(rows, 0, tokens, start, count);
    yield { ...rows, count };
  }
}

/** Throws inputError for sizes of a batch that are no whole numbers from 1. */
function checkSizes(batch: number, sequence: number): void {
  for (const [name, value] of [
    ["batch", batch],
    ["sequence", sequence],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < 1)
      throw inputError(`${name} is ${value}, expected a whole number from 1`);
  }
}
