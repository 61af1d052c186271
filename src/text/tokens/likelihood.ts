/**
 * How likely tokens are by a model's logits: pure functions of them.
 *
 * Letters: V words of the vocabulary.
 */
import { at } from "../../base/at.js";

/** A token with the natural logarithm of its probability. */
export interface LikelyToken {
  readonly id: number;
  readonly logProbability: number;
}

/** How likely a token was, and which ones were likeliest in its place. */
interface Likelihood {
  readonly logProbability: number;
  /** The likeliest first, equals by the lower id; the token itself may be among them. */
  readonly alternatives: readonly LikelyToken[];
}

/**
 * The log-probability of token `id` and the `count` likeliest tokens under the softmax of `logits` [V], of which some
 * are finite and none is infinite or NaN; summed in float64.
 */
export function likelihood(logits: ArrayLike<number>, id: number, count: number): Likelihood {
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) largest = Math.max(largest, logits[i]!);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - largest);
  const normaliser = largest + Math.log(sum);
  return {
    logProbability: at(logits, id) - normaliser,
    alternatives: largestIds(logits, count).map((one) => ({ id: one, logProbability: at(logits, one) - normaliser })),
  };
}

/** Places of the `count` largest values, the largest first, equals by the lower place. */
function largestIds(values: ArrayLike<number>, count: number): number[] {
  const best: number[] = [];
  if (count === 0) return best;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (best.length === count && !(value > values[best[count - 1]!]!)) continue;
    let place = best.length === count ? count - 1 : best.length;
    while (place > 0 && value > values[best[place - 1]!]!) {
      best[place] = best[place - 1]!;
      place--;
    }
    best[place] = i;
  }
  return best;
}
