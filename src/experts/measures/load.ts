/** How evenly a router's choices fall on its experts. */
import { largestOf, smallestOf } from "../../base/extremes.js";
import { meanOf } from "../../base/mean.js";
import { deadShare } from "../../model/results/collapse.js";
import type { ExpertLoad } from "../../model/results/experts.js";

/** The load of the experts that were chosen `counts` [E] times by `tokens` tokens. */
export function loadOf(counts: readonly number[], tokens: number): ExpertLoad {
  const mean = meanOf(counts);
  const shares = sharesOf(counts);
  const variance = meanOf(counts.map((count) => (count - mean) ** 2));
  return {
    counts,
    shares,
    largest: largestOf(shares),
    smallest: smallestOf(shares),
    variation: Math.sqrt(variance) / mean,
    dead: shares.flatMap((share, expert) => (share < deadShare ? [expert] : [])),
    unchosen: counts.flatMap((count, expert) => (count === 0 ? [expert] : [])),
    unchosenBelow: 1 - 0.05 ** (1 / tokens),
  };
}

/** Counts as multiples of their mean. */
export function sharesOf(counts: readonly number[]): number[] {
  const mean = meanOf(counts);
  return counts.map((count) => count / mean);
}
