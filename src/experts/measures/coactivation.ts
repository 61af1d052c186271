/** Which experts serve the same tokens, against independent choices. */
import { at } from "../../base/at.js";
import type { Coactivation } from "../../model/results/experts.js";

/** Rounds of fitting; the ratios of usual loads settle within a few dozen. */
const ROUNDS = 500;
const TOLERANCE = 1e-10;

/**
 * How often each pair of experts was chosen by one token [E, E], of choices [tokens, topK]; an expert with itself: how
 * often it was chosen.
 */
export function pairCounts(chosen: Int32Array, experts: number, topK: number): number[][] {
  const counts = Array.from({ length: experts }, () => new Array<number>(experts).fill(0));
  for (let token = 0; token < chosen.length; token += topK)
    for (let i = token; i < token + topK; i++)
      for (let j = token; j < token + topK; j++) {
        const row = at(counts, at(chosen, i));
        row[at(chosen, j)]! += 1;
      }
  return counts;
}

/**
 * Pairs against independence. No expert is chosen twice by a token, so that the product of two loads is no measure:
 * with 2 of 8 experts it promises 1.75 times as many pairs as there can be. Expected are the counts w_a w_b (a != b)
 * whose rows have the sums of the observed ones: quasi-independence of a table with an empty diagonal (Goodman 1968),
 * found by iterative proportional fitting.
 */
export function coactivationOf(counts: readonly (readonly number[])[]): Coactivation {
  const expected = quasiIndependent(
    counts.map((row, a) => row.reduce((sum, count, b) => sum + (a === b ? 0 : count), 0)),
  );
  const ratios = counts.map((row, a) =>
    row.map((count, b) => {
      const chance = at(at(expected, a), b);
      return a === b || chance === 0 ? null : count / chance;
    }),
  );
  return { counts, ratios };
}

/** The symmetric table w_a w_b with an empty diagonal and these row sums. */
export function quasiIndependent(targets: readonly number[]): number[][] {
  const total = targets.reduce((sum, target) => sum + target, 0);
  const factors = targets.map((target) => (total === 0 ? 0 : target / Math.sqrt(total)));
  for (let round = 0; round < ROUNDS; round++) {
    const sum = factors.reduce((partial, factor) => partial + factor, 0);
    let moved = 0;
    // All rows are taken against the same factors, each by the root of what it lacks, which keeps the table symmetric.
    const next = factors.map((factor, a) => {
      const row = factor * (sum - factor);
      const step = row === 0 ? 1 : Math.sqrt(at(targets, a) / row);
      moved = Math.max(moved, Math.abs(step - 1));
      return factor * step;
    });
    next.forEach((factor, a) => (factors[a] = factor));
    if (moved < TOLERANCE) break;
  }
  return factors.map((own, a) => factors.map((other, b) => (a === b ? 0 : own * other)));
}
