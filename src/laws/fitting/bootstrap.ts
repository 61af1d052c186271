/**
 * Bootstrap (Efron 1979): the fit repeated on points drawn with replacement, from the optimum, as often as asked.
 * Points of one training run are not independent; where runs are named, whole runs are drawn. Draw number i of a seed
 * is the same on any thread.
 */
import { at } from "../../base/at.js";
import { randomStream } from "../../base/random.js";
import { quantile } from "./distributions.js";
import { fitFrom, type Problem } from "../solvers/local-fit.js";
import type { BoundLaw, Points } from "../forms/types.js";

interface BootstrapOptions {
  readonly seed: number;
  /** Draws `from` (inclusive) to `to` (exclusive). */
  readonly from: number;
  readonly to: number;
}

/** Internal parameters of each draw, one after another: [(to - from) * p]. */
export function bootstrapDraws(
  problem: Problem,
  optimum: Float64Array,
  clusters: readonly string[] | undefined,
  { seed, from, to }: BootstrapOptions,
): Float64Array {
  const n = problem.logLoss.length;
  const p = optimum.length;
  const groups = clusterRows(n, clusters);
  const stream = randomStream(seed, "bootstrap");
  const weights = new Float64Array(n);
  const out = new Float64Array((to - from) * p);
  for (let draw = from; draw < to; draw++) {
    weights.fill(0);
    for (let i = 0; i < groups.length; i++) {
      const group = at(groups, Math.floor(stream.uniformAt(draw * groups.length + i) * groups.length));
      for (const row of group) weights[row] = at(weights, row) + 1;
    }
    out.set(fitFrom({ ...problem, weights }, optimum, null, drawLimits).theta, (draw - from) * p);
  }
  return out;
}

/** Parameters to a thousandth of their spread need less than a fit does. */
const drawLimits = { iterations: 300, tolerance: 1e-11 };

function clusterRows(n: number, clusters: readonly string[] | undefined): readonly (readonly number[])[] {
  if (clusters === undefined) return Array.from({ length: n }, (_, i) => [i]);
  const rows = new Map<string, number[]>();
  clusters.forEach((name, i) => rows.set(name, [...(rows.get(name) ?? []), i]));
  return [...rows.values()];
}

/** A percentile interval with the standard deviation of the draws. */
export interface BootstrapInterval {
  readonly level: number;
  readonly low: number;
  readonly high: number;
  readonly standardError: number;
}

/** Percentile interval and standard deviation of one number over draws. */
export function summarise(values: Float64Array, level: number): BootstrapInterval {
  const ascending = values.filter(Number.isFinite).sort();
  const mean = ascending.reduce((sum, value) => sum + value, 0) / ascending.length;
  const variance = ascending.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, ascending.length - 1);
  return {
    level,
    low: quantile(ascending, (1 - level) / 2),
    high: quantile(ascending, (1 + level) / 2),
    standardError: Math.sqrt(variance),
  };
}

/** Natural parameters by draw: column j holds parameter j. */
export function naturalDraws(bound: BoundLaw, draws: Float64Array): readonly Float64Array[] {
  const { p } = bound;
  const count = draws.length / p;
  const columns = Array.from({ length: p }, () => new Float64Array(count));
  for (let i = 0; i < count; i++)
    bound.natural(draws.subarray(i * p, (i + 1) * p)).forEach((value, j) => (at(columns, j)[i] = value));
  return columns;
}

/** How many independent units there are to draw: runs where they are named, else points. */
export function clusterCount(points: Points): number {
  return points.cluster === undefined ? points.n : new Set(points.cluster).size;
}
