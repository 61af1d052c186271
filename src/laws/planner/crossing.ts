/**
 * D*: the number of further tokens D2 until which upcycling stays ahead of training an MoE from scratch; `catchUp`
 * computes it as the point where the two loss curves cross. Both definitions are OURS (the paper's own D* was not
 * available):
 *
 * - sunk: the parent exists and costs nothing. Both models are trained on D2 tokens.
 * - charged: the parent's D1 tokens count too. The MoE from scratch is trained on D1 / r + D2 tokens, r = 1 for equal
 *   tokens, r = FLOPs per token of the MoE over the dense model's for equal FLOPs.
 *
 * The laws have different limits at infinite data, so the curves cross a second time, in the other direction, at 1e13
 * tokens and more. A head start cannot grow, so such a crossing is an artefact of extrapolation unless points as large
 * were fitted.
 */
import { at } from "../../base/at.js";
import type { Curves } from "./coefficients.js";

/** Tokens at which the sign changes: `behind` upcycled falls behind, `ahead` it overtakes. */
interface Crossing {
  readonly tokens: number;
  readonly to: "behind" | "ahead";
}

/** Where an MoE from scratch catches up with an upcycled one. */
export interface CatchUp {
  /**
   * `at`: from `tokens` on scratch is ahead. `always-ahead`: upcycled never falls behind. `never-ahead`: no D2 at which
   * upcycled is ahead that could be believed.
   */
  readonly outcome: "at" | "always-ahead" | "never-ahead";
  /** Null unless `at`. */
  readonly tokens: number | null;
  /** An overtaking beyond the fitted tokens, not believed. */
  readonly artefact: number | null;
}

const lowest = 1e6;
const decades = 12;

/** Tokens of a scan: logarithmic steps. (A bracket over the whole range would miss curves that cross twice.) */
const scan = (perDecade: number): readonly number[] =>
  Array.from({ length: decades * perDecade + 1 }, (_, i) => lowest * 10 ** (i / perDecade));
/** Fine for answers; coarse for draws, of which only the spread is wanted. */
const scans = { fine: { steps: scan(10), tolerance: 1e-10 }, coarse: { steps: scan(3), tolerance: 1e-3 } } as const;

/** Sign changes of `lead`, smallest first. */
export function crossings(lead: (tokens: number) => number, detail: keyof typeof scans = "fine"): Crossing[] {
  const { steps, tolerance } = scans[detail];
  const changes: Crossing[] = [];
  let before = lead(at(steps, 0));
  for (let i = 1; i < steps.length; i++) {
    const here = lead(at(steps, i));
    if (before > 0 !== here > 0)
      changes.push({
        tokens: root(lead, at(steps, i - 1), at(steps, i), before, tolerance),
        to: here > 0 ? "ahead" : "behind",
      });
    before = here;
  }
  return changes;
}

/** Bisection in the logarithm. */
function root(lead: (tokens: number) => number, low: number, high: number, atLow: number, tolerance: number): number {
  let [a, b] = [Math.log(low), Math.log(high)];
  while (b - a > tolerance) {
    const middle = (a + b) / 2;
    if (lead(Math.exp(middle)) > 0 === atLow > 0) a = middle;
    else b = middle;
  }
  return Math.exp((a + b) / 2);
}

interface CatchUpOptions {
  readonly size: number;
  /** D1. */
  readonly seen: number;
  /** Tokens the MoE from scratch gets for the parent's training: 0 (sunk) or D1 / r. */
  readonly credit: number;
  /** Largest number of tokens the laws were fitted on. */
  readonly largestFitted: number;
  readonly detail?: keyof typeof scans;
}

/**
 * D* for a parent of `size` parameters that has seen D1 tokens. `credit` says which of the definitions above is meant.
 */
export function catchUp(curves: Curves, { size, seen, credit, largestFitted, detail }: CatchUpOptions): CatchUp {
  const lead = (tokens: number): number => curves.scratch(size, credit + tokens) - curves.upcycled(size, seen, tokens);
  const all = crossings(lead, detail);
  const startsAhead = lead(lowest) > 0;
  const overtaking = all.find(({ to }) => to === "ahead");
  const falling = all.find(({ to }) => to === "behind");
  const artefact = overtaking !== undefined && overtaking.tokens > largestFitted ? overtaking.tokens : null;
  if (startsAhead || (overtaking !== undefined && artefact === null)) {
    return falling === undefined
      ? { outcome: "always-ahead", tokens: null, artefact: null }
      : { outcome: "at", tokens: falling.tokens, artefact };
  }
  return { outcome: "never-ahead", tokens: null, artefact };
}

/** First D2 at which the upcycled law is below the parent's loss: before, it does not hold. Null: never. */
export function validFrom(curves: Curves, size: number, seen: number): number | null {
  const parent = curves.dense(size, seen);
  if (parent - curves.upcycled(size, seen, lowest) > 0) return 0;
  return crossings((tokens) => parent - curves.upcycled(size, seen, tokens))[0]?.tokens ?? null;
}
