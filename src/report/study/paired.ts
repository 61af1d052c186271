/**
 * Paired comparisons of two arms, run by run: Student's t-test and interval, the power of such a test, and Holm's
 * correction for several of them. Pure arithmetic.
 */
import { errorFunction, incompleteBeta, logGamma, studentQuantile } from "../../laws/fitting/distributions.js";
import { meanOf } from "../../base/mean.js";

/** Chance of calling a difference real that is none, over all questions of a study together. */
export const significance = 0.05;
/** Chance of finding a difference that is there. */
export const power = 0.8;

/** What paired differences say. */
export interface PairedTest {
  /** Number of pairs. */
  readonly n: number;
  readonly mean: number;
  /** Standard deviation of the differences, over n - 1; NaN for one pair. */
  readonly deviation: number;
  /** Interval of the mean at the level 1 - `significance`; NaN for one pair. */
  readonly low: number;
  readonly high: number;
  /** Two-sided p-value of Student's t-test against no difference; NaN for one pair. */
  readonly p: number;
}

/** Tests differences against no difference. */
export function pairedTest(differences: readonly number[]): PairedTest {
  const n = differences.length;
  const mean = meanOf(differences);
  if (n < 2) return { n, mean, deviation: NaN, low: NaN, high: NaN, p: NaN };
  const deviation = Math.sqrt(differences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  const half = (studentQuantile(1 - significance / 2, n - 1) * deviation) / Math.sqrt(n);
  return { n, mean, deviation, low: mean - half, high: mean + half, p: pValue(mean, deviation, n) };
}

function pValue(mean: number, deviation: number, n: number): number {
  if (mean === 0) return 1;
  if (deviation === 0) return 0;
  const t = (mean * Math.sqrt(n)) / deviation;
  return incompleteBeta((n - 1) / 2, 0.5, (n - 1) / (n - 1 + t * t));
}

/**
 * Holm's step-down adjustment (Holm 1979): the smallest significance at which each test is rejected when the chance of
 * any false one is bounded over all. NaN stays NaN and counts as no test.
 */
export function holm(pValues: readonly number[]): number[] {
  const order = pValues.map((p, index) => ({ p, index })).filter(({ p }) => !Number.isNaN(p));
  order.sort((a, b) => a.p - b.p);
  const adjusted = pValues.map(() => NaN);
  let least = 0;
  order.forEach(({ p, index }, rank) => {
    least = Math.min(1, Math.max(least, p * (order.length - rank)));
    adjusted[index] = least;
  });
  return adjusted;
}

/** P(T <= t) for the normal distribution. */
const normal = (x: number): number => 0.5 * (1 + errorFunction(x / Math.SQRT2));

/** Intervals of Simpson's rule; the integrand is smooth. */
const intervals = 2000;

/**
 * P(T <= t) for the noncentral t distribution: the normal probability averaged over the scale s of a sample with
 * `freedom` degrees, whose square is chi-squared over its degrees.
 */
export function noncentralT(t: number, freedom: number, shift: number): number {
  const half = freedom / 2;
  const front = Math.LN2 + half * Math.log(half) - logGamma(half);
  const density = (s: number): number =>
    s <= 0 ? (freedom === 1 ? Math.exp(front) : 0) : Math.exp(front + (freedom - 1) * Math.log(s) - half * s * s);
  const spread = 10 / Math.sqrt(2 * freedom);
  const low = Math.max(0, 1 - spread);
  const high = 1 + spread;
  const step = (high - low) / intervals;
  let sum = 0;
  for (let i = 0; i <= intervals; i++) {
    const s = low + i * step;
    const weight = i === 0 || i === intervals ? 1 : i % 2 === 1 ? 4 : 2;
    sum += weight * normal(t * s - shift) * density(s);
  }
  return (sum * step) / 3;
}

/** Chance that a two-sided paired t-test finds a difference of `effect` deviations with n pairs. */
export function powerOf(effect: number, n: number, alpha = significance): number {
  const limit = studentQuantile(1 - alpha / 2, n - 1);
  const shift = Math.abs(effect) * Math.sqrt(n);
  return 1 - noncentralT(limit, n - 1, shift) + noncentralT(-limit, n - 1, shift);
}

/** The smallest difference that n pairs find with probability `power`, in units of their deviation; n >= 2. */
export function smallestDetectable(n: number, alpha = significance): number {
  let low = 0;
  let high = 1;
  while (powerOf(high, n, alpha) < power && high < 1e6) high *= 2;
  for (let i = 0; i < 60 && high - low > 1e-9 * high; i++) {
    const middle = (low + high) / 2;
    if (powerOf(middle, n, alpha) < power) low = middle;
    else high = middle;
  }
  return high;
}

/** More pairs than any study has. */
const mostPairs = 100_000;

/** The fewest pairs that find a difference of `effect` deviations; null where no study could have as many. */
export function pairsNeeded(effect: number, alpha = significance): number | null {
  if (!(Math.abs(effect) > 0)) return null;
  let [low, high] = [1, 2];
  while (powerOf(effect, high, alpha) < power) {
    if (high > mostPairs) return null;
    [low, high] = [high, high * 2];
  }
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (powerOf(effect, middle, alpha) < power) low = middle;
    else high = middle;
  }
  return high;
}
