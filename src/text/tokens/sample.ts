/**
 * Choosing the next token from logits: a pure function of (logits, settings, one uniform number).
 *
 * Letters: V words of the vocabulary.
 */
import { at } from "../../base/at.js";
import { inputError, stopError } from "../../base/errors.js";

/** How a token is drawn from logits. */
export interface SampleSettings {
  /** 0 takes the most likely token; 1 samples the model's own distribution. */
  readonly temperature: number;
  /** Draw from this many most likely tokens only. */
  readonly topK?: number | undefined;
  /** Draw of those from the fewest most likely tokens whose probabilities sum to at least this, in (0, 1]. */
  readonly topP?: number | undefined;
}

/** Tokens that may be drawn, with probabilities that sum to 1. */
interface Candidates {
  readonly ids: Int32Array;
  readonly probabilities: Float64Array;
}

/**
 * The token drawn from `logits` [V] by `uniform` in [0, 1), usually `stream.uniformAt(position)`.
 * Throws an input error for settings out of range and a stop error where no logit is usable.
 */
export function sampleToken(logits: ArrayLike<number>, settings: SampleSettings, uniform: number): number {
  checkSettings(settings);
  if (settings.temperature === 0) return argmax(logits);
  const { ids, probabilities } = candidates(logits, settings);
  let sum = 0;
  for (let i = 0; i < ids.length; i++) {
    sum += probabilities[i]!;
    if (uniform < sum) return ids[i]!;
  }
  // Rounding may leave the sum a hair under 1: the draw then belongs to the last token that can occur at all.
  const last = probabilities.findLastIndex((probability) => probability !== 0);
  return at(ids, Math.max(0, last));
}

/**
 * Index of the largest of `logits` [V], the lowest index among equals. Throws stopError for NaN, for plus infinity, and
 * where every logit is minus infinity.
 */
export function argmax(logits: ArrayLike<number>): number {
  let best = -1;
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i]!;
    if (Number.isNaN(value)) throw unusable(`logit ${i} is not a number`);
    if (value > largest) {
      largest = value;
      best = i;
    }
  }
  if (best < 0) throw unusable(logits.length === 0 ? "there are no logits" : "every logit is minus infinity");
  if (largest === Infinity) throw unusable(`logit ${best} is infinite`);
  return best;
}

/**
 * The tokens that temperature (above 0), top-k and top-p leave, in that order, with their probabilities. With a limit
 * set: most likely first, equals by lowest id. Without: all tokens by id. Throws like `sampleToken`.
 */
export function candidates(logits: ArrayLike<number>, settings: SampleSettings): Candidates {
  checkSettings(settings);
  if (settings.temperature === 0) return { ids: Int32Array.of(argmax(logits)), probabilities: Float64Array.of(1) };
  const largest = at(logits, argmax(logits));
  const ids = rankedIds(logits, settings);
  // Subtracting the largest first keeps every exponential at or below 1 however small the temperature.
  const weights = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) {
    const weight = Math.exp((logits[ids[i]!]! - largest) / settings.temperature);
    weights[i] = weight;
    total += weight;
  }
  const nucleus = settings.topP !== undefined && settings.topP < 1 ? fewest(weights, settings.topP * total) : null;
  const { count, sum } = nucleus ?? { count: ids.length, sum: total };
  return { ids: ids.slice(0, count), probabilities: weights.subarray(0, count).map((weight) => weight / sum) };
}

/** All ids in order, or the `topK` most likely ones first where a limit needs them sorted. */
function rankedIds(logits: ArrayLike<number>, { topK, topP }: SampleSettings): Int32Array {
  const ids = new Int32Array(logits.length);
  for (let i = 0; i < ids.length; i++) ids[i] = i;
  const isLimited = topK !== undefined || (topP !== undefined && topP < 1);
  if (isLimited) ids.sort((a, b) => compareDescending(logits[a]!, logits[b]!) || a - b);
  return topK === undefined ? ids : ids.subarray(0, topK);
}

/** How many of the first weights are needed to reach `goal`, at least one, and their sum. */
function fewest(weights: Float64Array, goal: number): { readonly count: number; readonly sum: number } {
  let [count, sum] = [0, 0];
  for (const weight of weights) {
    if (count > 0 && sum >= goal) break;
    sum += weight;
    count++;
  }
  return { count, sum };
}

/** Orders numbers from large to small; their difference would be NaN for two infinities. */
function compareDescending(a: number, b: number): number {
  return a > b ? -1 : a < b ? 1 : 0;
}

function checkSettings({ temperature, topK, topP }: SampleSettings): void {
  if (!(temperature >= 0 && temperature < Infinity)) {
    throw inputError(`temperature is ${temperature}, expected a number from 0`, {
      hint: "0 is greedy, 1 is the model's own distribution",
    });
  }
  if (topK !== undefined && !(Number.isSafeInteger(topK) && topK >= 1)) {
    throw inputError(`top-k is ${topK}, expected a whole number from 1`, { hint: "leave it out to keep all tokens" });
  }
  if (topP !== undefined && !(topP > 0 && topP <= 1)) {
    throw inputError(`top-p is ${topP}, expected a number above 0 and at most 1`, {
      hint: "leave it out to keep all tokens",
    });
  }
}

function unusable(message: string): Error {
  return stopError(`cannot choose a token: ${message}`, { hint: "the model's weights or its training have diverged" });
}
