/**
 * Training batches of a data mix, several texts with weights: which text a sequence comes from, and which of its
 * windows, is a pure function of the sequence's number, so that order survives a resume.
 *
 * Letters: B sequences in a batch, S tokens in a sequence.
 */
import { at } from "../../base/at.js";
import { inputError, UpcycleError } from "../../base/errors.js";
import {
  emptyBatch,
  openBatches,
  requireStep,
  setWindow,
  windowCount,
  windowReader,
  type Batch,
  type BatchReader,
  type BatchSettings,
  type TokenRow,
} from "./batches.js";

/** One part of a data mix: its tokens and its weight. */
export interface MixPart {
  /** Also names the random stream of its order. */
  readonly name: string;
  /** Share of the sequences, relative to the other parts. */
  readonly weight: number;
  readonly tokens: TokenRow;
}

/** The weights of parts as shares, which sum to 1. */
export function shares(parts: readonly { readonly weight: number }[]): number[] {
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  return parts.map(({ weight }) => weight / total);
}

/** How many sequences each part has got; their sum is the number of the next one. */
type Counts = readonly number[];

const sumOf = (counts: Counts): number => counts.reduce((a, b) => a + b, 0);

/**
 * Deals one more sequence, which it adds to `counts` and whose part it returns: the part that is furthest behind its
 * share (the first of equals), as in Megatron-LM's build_blending_indices (megatron/core/datasets/helpers.cpp). After
 * any number of sequences each part has its share to within about one.
 */
export function dealNext(weights: readonly number[], counts: number[]): number {
  const number = sumOf(counts) + 1;
  let best = 0;
  let most = -Infinity;
  for (let i = 0; i < counts.length; i++) {
    const behind = weights[i]! * number - counts[i]!;
    if (behind > most) [best, most] = [i, behind];
  }
  counts[best]!++;
  return best;
}

/**
 * How many sequences each part has got before sequence `number`. Batches are mostly read one after another, and now and
 * then the last one again, so two places to start counting from are enough.
 */
function countReader(weights: readonly number[]): (number: number) => number[] {
  const zero: Counts = weights.map(() => 0);
  let [latest, previous] = [zero, zero];
  return (number) => {
    const nearest = [latest, previous, zero]
      .filter((counts) => sumOf(counts) <= number)
      .reduce((a, b) => (sumOf(b) > sumOf(a) ? b : a));
    const counts = [...nearest];
    for (let dealt = sumOf(nearest); dealt < number; dealt++) dealNext(weights, counts);
    [latest, previous] = [[...counts], latest];
    return counts;
  };
}

/**
 * Training batches of a data mix; each part goes through its own windows, epoch by epoch, in its own order. Throws
 * inputError like `openBatches`.
 */
export function openMix(parts: readonly MixPart[], settings: BatchSettings): BatchReader {
  if (parts.length === 0) throw inputError("the data mix has no text");
  const { batch, sequence, seed } = settings;
  for (const part of parts) requirePart(part, settings);
  const texts = parts.map(({ name, tokens }) => {
    const windows = windowCount(tokens.length, sequence);
    return { tokens, windows, windowAt: windowReader(windows, `${seed}/${name}`) };
  });
  const weights = shares(parts);
  const countsBefore = countReader(weights);
  return {
    windows: texts.reduce((sum, { windows }) => sum + windows, 0),
    at(step): Batch {
      requireStep(step);
      const rows = emptyBatch(batch, sequence);
      const counts = countsBefore(step * batch);
      for (let row = 0; row < batch; row++) {
        const part = dealNext(weights, counts);
        const { tokens, windowAt } = at(texts, part);
        setWindow(rows, row, tokens, windowAt(at(counts, part) - 1) * sequence, sequence);
      }
      return rows;
    },
  };
}

/** Throws inputError, naming the text, where its batches cannot be opened. */
function requirePart({ name, tokens }: MixPart, settings: BatchSettings): void {
  try {
    openBatches(tokens, settings);
  } catch (cause) {
    if (!(cause instanceof UpcycleError)) throw cause;
    throw inputError(cause.message, { where: name, hint: cause.hint, cause });
  }
}
