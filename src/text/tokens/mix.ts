/**
 * Training batches from several texts with weights: which text a sequence comes from, and which of its windows, is a
 * pure function of the sequence's number, so that order survives a resume.
 */
import { inputError } from "../../base/errors.js";
import {
  IGNORED_TARGET,
  openBatches,
  windowCount,
  windowOrder,
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

/** Weights that sum to 1. */
export function shares(parts: readonly { readonly weight: number }[]): number[] {
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  return parts.map(({ weight }) => weight / total);
}

/** How many sequences each part has got; their sum is the number of the next one. */
type Dealt = readonly number[];

/**
 * Deals one more sequence: to the part that is furthest behind its share (the first of equals), as Megatron-LM's
 * build_blending_indices does. After any number of sequences each part has its share to within about one.
 */
export function dealNext(weights: readonly number[], counts: number[]): number {
  const number = counts.reduce((a, b) => a + b) + 1;
  let best = 0;
  let most = -Infinity;
  for (let i = 0; i < weights.length; i++) {
    const behind = weights[i]! * number - counts[i]!;
    if (behind > most) [best, most] = [i, behind];
  }
  counts[best]!++;
  return best;
}

interface Position {
  readonly part: number;
  /** Which of this part's sequences it is, from 0. */
  readonly index: number;
}

/**
 * Training batches of a data mix; each part goes through its own windows, epoch by epoch, in its own order. Throws
 * inputError like `openBatches`.
 */
export function openMix(parts: readonly MixPart[], settings: BatchSettings): BatchReader {
  if (parts.length === 0) throw inputError("the data mix has no text");
  const { batch, sequence, seed } = settings;
  // Checks sizes and lengths, naming the text.
  for (const { name, tokens } of parts) {
    try {
      openBatches(tokens, settings);
    } catch (cause) {
      throw inputError((cause as Error).message, { where: name, cause });
    }
  }
  const windows = parts.map(({ tokens }) => windowCount(tokens.length, sequence));
  const orders = parts.map((): { epoch: number; order: Int32Array } => ({ epoch: -1, order: new Int32Array(0) }));
  const weights = shares(parts);
  // Batches are mostly read one after another, and now and then the last one again, so two places to start counting
  // from are enough.
  const zero = parts.map(() => 0);
  let places: readonly Dealt[] = [zero, zero];
  const dealtBefore = (number: number): number[] => {
    const sum = (counts: Dealt): number => counts.reduce((a, b) => a + b);
    const nearest = [...places, zero]
      .filter((counts) => sum(counts) <= number)
      .reduce((a, b) => (sum(b) > sum(a) ? b : a));
    const counts = [...nearest];
    for (let dealt = sum(nearest); dealt < number; dealt++) dealNext(weights, counts);
    places = [[...counts], places[0]!];
    return counts;
  };
  const startOf = ({ part, index }: Position): number => {
    const epoch = Math.floor(index / windows[part]!);
    if (orders[part]!.epoch !== epoch)
      orders[part] = { epoch, order: windowOrder(windows[part]!, `${seed}/${parts[part]!.name}`, epoch) };
    return orders[part]!.order[index % windows[part]!]! * sequence;
  };
  return {
    windows: windows.reduce((a, b) => a + b),
    at(step): Batch {
      if (!Number.isSafeInteger(step) || step < 0)
        throw inputError(`batch number ${step} is not a whole number from 0`);
      const inputs = new Int32Array(batch * sequence);
      const targets = new Int32Array(batch * sequence).fill(IGNORED_TARGET);
      const counts = dealtBefore(step * batch);
      for (let row = 0; row < batch; row++) {
        const part = dealNext(weights, counts);
        const { tokens } = parts[part]!;
        const start = startOf({ part, index: counts[part]! - 1 });
        inputs.set(tokens.subarray(start, start + sequence), row * sequence);
        targets.set(tokens.subarray(start + 1, start + sequence + 1), row * sequence);
      }
      return { inputs, targets };
    },
  };
}
