/**
 * Smallest and largest of many numbers: `Math.min(...values)` overflows the stack from some 100,000 values on. Like it,
 * NaN among them gives NaN.
 */

/** The smallest of the values; Infinity where there are none. */
export function smallestOf(values: Iterable<number>): number {
  let least = Infinity;
  for (const value of values) least = Math.min(least, value);
  return least;
}

/** The largest of the values; -Infinity where there are none. */
export function largestOf(values: Iterable<number>): number {
  let most = -Infinity;
  for (const value of values) most = Math.max(most, value);
  return most;
}
