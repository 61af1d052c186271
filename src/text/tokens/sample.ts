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
  const { temperature, topK, topP = 1 } = settings;
  const largest = at(logits, argmax(logits));
  // Subtracting the largest first keeps every exponential at or below 1 however small the temperature.
  const weightOf = (id: number): number => Math.exp((logits[id]! - largest) / temperature);
  const all = new Int32Array(logits.length);
  for (let id = 0; id < all.length; id++) all[id] = id;
  if (topK === undefined && topP === 1) return shared(all, weightOf);
  const likeliest = ranked(logits, all);
  const kept = topK === undefined ? all : firstOf(likeliest, topK);
  if (topP === 1) return shared(kept, weightOf);
  let total = 0;
  for (const id of kept) total += weightOf(id);
  return shared(fewest(topK === undefined ? likeliest : kept, weightOf, topP * total), weightOf);
}

/** Tokens with probabilities in proportion to their weights. */
function shared(ids: Int32Array, weightOf: (id: number) => number): Candidates {
  const weights = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) {
    const weight = weightOf(ids[i]!);
    weights[i] = weight;
    total += weight;
  }
  return { ids, probabilities: weights.map((weight) => weight / total) };
}

/** The first of `ids` whose weights come to `goal`, at least one. */
function fewest(ids: Iterable<number>, weightOf: (id: number) => number, goal: number): Int32Array {
  const taken: number[] = [];
  let sum = 0;
  for (const id of ids) {
    if (taken.length > 0 && sum >= goal) break;
    sum += weightOf(id);
    taken.push(id);
  }
  return Int32Array.from(taken);
}

/** The first so many of numbers. */
function firstOf(ids: Iterable<number>, count: number): Int32Array {
  const first: number[] = [];
  for (const id of ids) {
    if (first.length === count) break;
    first.push(id);
  }
  return Int32Array.from(first);
}

/**
 * Ids from the largest of `logits` to the smallest, equals by lowest id, as far as they are asked for. They are taken
 * from a heap, which is made of `all` in its place: sorting a vocabulary for each token takes longer than many a model.
 */
function* ranked(logits: ArrayLike<number>, all: Int32Array): Generator<number> {
  const heap = all.slice();
  let { length } = heap;
  const isBefore = (a: number, b: number): boolean => {
    const [x, y] = [logits[a]!, logits[b]!];
    return x > y || (x === y && a < b);
  };
  /** Lets the id at a place sink below all that come before it. */
  const sink = (from: number): void => {
    const id = heap[from]!;
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= length) break;
      if (child + 1 < length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, id)) break;
      heap[place] = heap[child]!;
      place = child;
    }
    heap[place] = id;
  };
  for (let place = (length >> 1) - 1; place >= 0; place--) sink(place);
  while (length > 0) {
    yield heap[0]!;
    heap[0] = heap[--length]!;
    sink(0);
  }
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
