/** How far a place lies outside of the sizes and tokens that laws were fitted on. */
import type { Coefficients } from "./coefficients.js";

/** Smallest and largest fitted value; null: not known. */
type Range = readonly [number, number] | null;

/** ln of the factor by which a value lies outside of a range: 0 inside, and where the range is not known. */
export function beyond(value: number, range: Range): number {
  if (range === null || !(value > 0)) return 0;
  return Math.max(0, Math.log(range[0] / value), Math.log(value / range[1]));
}

/**
 * Sum over N and all token counts of how far each lies outside, as logarithms of factors: 0 inside, ln 2 where one of
 * them is twice as large as any fitted one.
 */
export function distanceOutside(ranges: Coefficients["ranges"], size: number, tokens: readonly number[]): number {
  return tokens.reduce((sum, count) => sum + beyond(count, ranges.tokens), beyond(size, ranges.size));
}

/**
 * Beyond this distance no verdict is drawn from a law: a factor of two in all. Below it, the draws of the law are
 * already wider than inside.
 */
export const farOutside = Math.log(2);

/** The value itself inside of the range, else the nearest end. */
export function nearestInside(value: number, range: Range): number {
  return range === null ? value : Math.min(range[1], Math.max(range[0], value));
}
