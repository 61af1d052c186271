/** Choosing the next token from logits: a pure function of (logits, settings, one uniform number). */
import { inputError, stopError } from "../../base/errors.js";

/** How a token is drawn from logits. */
export interface SampleSettings {
  /** 0 takes the most likely token; 1 samples the model's own distribution. */
  readonly temperature: number;
  /** Keep only this many most likely tokens. */
  readonly topK?: number | undefined;
  /** Keep of those the fewest most likely tokens whose probabilities sum to at least this, in (0, 1]. */
  readonly topP?: number | undefined;
}

/** Tokens that may be drawn, with probabilities that sum to 1. */
interface Candidates {
  readonly ids: Int32Array;
  readonly probabilities: Float64Array;
}

/**
 * The token drawn from `logits` [vocab] by `uniform` in [0, 1), usually `stream.uniformAt(position)`.
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
  let last = ids.length - 1;
  while (last > 0 && probabilities[last] === 0) last--;
  return ids[last]!;
}

/** Index of the largest logit, the lowest index among equals; NaN is an error. */
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
 * What temperature (above 0), top-k and top-p leave, in that order. With a limit set: most likely first, equals by
 * lowest id. Without: all tokens by id.
 */
export function candidates(logits: ArrayLike<number>, settings: SampleSettings): Candidates {
  checkSettings(settings);
  if (settings.temperature === 0) return { ids: Int32Array.of(argmax(logits)), probabilities: Float64Array.of(1) };
  const largest = logits[argmax(logits)]!;
  const limited = settings.topK !== undefined || (settings.topP !== undefined && settings.topP < 1);
  let ids = new Int32Array(logits.length);
  for (let i = 0; i < ids.length; i++) ids[i] = i;
  if (limited) ids.sort((a, b) => compareDescending(logits[a]!, logits[b]!) || a - b);
  if (settings.topK !== undefined) ids = ids.subarray(0, settings.topK);

  // Subtracting the largest first keeps every exponential at or below 1 however small the temperature.
  const weights = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) {
    const weight = Math.exp((logits[ids[i]!]! - largest) / settings.temperature);
    weights[i] = weight;
    total += weight;
  }

  let kept = ids.length;
  let keptTotal = total;
  if (settings.topP !== undefined && settings.topP < 1) {
    kept = 0;
    keptTotal = 0;
    while (kept < ids.length && (kept === 0 || keptTotal < settings.topP * total)) keptTotal += weights[kept++]!;
  }
  const probabilities = weights.subarray(0, kept).map((weight) => weight / keptTotal);
  return { ids: ids.slice(0, kept), probabilities };
}

/** For sorting; a difference would give NaN for two infinities. */
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
