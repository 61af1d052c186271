/**
 * The one judgement of arms beside each other: whether a difference is more than chance explains. A study's report, its
 * terminal table and the studio all ask here, so that they cannot say different things of the same runs.
 */
import { at } from "../../base/at.js";
import { significant } from "../../base/format.js";
import { holm, pairedTest, pairsNeeded, significance, type PairedTest } from "./paired.js";

/** `beyond` chance, perhaps `chance`, or `unknown`: fewer than two seeds in common. */
export type Verdict = "beyond" | "chance" | "unknown";

/** A paired t-test of two arms among several, and what it means. */
export interface Judgement extends PairedTest {
  /** The p-value by Holm over all pairs of arms; NaN where `p` is. */
  readonly adjusted: number;
  /** How many tests the p-value is corrected for. */
  readonly tests: number;
  readonly verdict: Verdict;
}

/**
 * Judges the differences of several pairs of arms, seed by seed. Which arms are looked at is decided when the losses
 * are known, so Holm's correction is over all pairs that are given: give those of all arms.
 */
export function judge(pairs: readonly (readonly number[])[]): Judgement[] {
  const tests = pairs.map(pairedTest);
  const adjusted = holm(tests.map(({ p }) => p));
  const count = adjusted.filter((p) => !Number.isNaN(p)).length;
  return tests.map((test, i) => {
    const p = at(adjusted, i);
    const verdict = test.n < 2 ? "unknown" : p < significance ? "beyond" : "chance";
    return { ...test, adjusted: p, tests: count, verdict };
  });
}

/** The test of two seeds or more: `paired t-test over 5 seeds, p = 0.01, corrected for all 6 pairs`. */
export function testWords({ n, adjusted, tests }: Pick<Judgement, "n" | "adjusted" | "tests">): string {
  const probability = adjusted === 0 ? "p < 1e-15" : `p = ${significant(adjusted, 2)}`;
  const correction = tests > 1 ? `, corrected for all ${tests} pairs of arms` : "";
  return `paired t-test over ${n} seeds, ${probability}${correction}`;
}

/** How many seeds would show a difference as large as the measured one; null where it is shown, or none would. */
export function seedsNeeded({ verdict, mean, deviation, tests }: Judgement): number | null {
  return verdict === "chance" && deviation > 0 ? pairsNeeded(mean / deviation, significance / tests) : null;
}
