/**
 * How points that come from training runs vary. Checkpoints of one run share what that run's seed, data order and
 * settings made of it: residuals are the sum of a part per run and a part per point, with variances that are estimated
 * from the residuals by their expectations under the fit (analysis of variance, corrected for the parameters that the
 * fit took from each). Standard errors from them are those of the same fit, not of another one with other weights.
 *
 * Letters: `n` points, `G` runs, `X` the tangent's rows, Z the runs' membership, C = (X X^T)^-1, S = Z Z^T,
 * B = Z (Z^T Z)^-1 Z^T; traces are over the p free parameters.
 */
import { at } from "../../base/at.js";
import { inverse } from "../../base/linear-algebra.js";
import { dot } from "../../base/vectors.js";
import type { Variance } from "./deviance.js";
import { fisherTail } from "./distributions.js";
import type { Problem } from "../solvers/local-fit.js";
import type { Fit } from "./fit.js";
import { tangentOf, type Tangent } from "./tangent.js";

/** Noise of points in runs. */
export interface RunNoise {
  readonly runs: number;
  /** Correlation between two points of one run. */
  readonly correlation: number;
  /** Probability of runs that differ at least as much if all points were independent. */
  readonly independence: number;
  /** Variance of one point's pull, of a run that was not fitted. */
  readonly point: Variance;
  /**
   * Variance of a quantity with this gradient over all parameters [p], as a multiple of what it would be if points were
   * independent.
   */
  along(gradient: Float64Array): Variance;
}

/**
 * The noise of a fit's points in runs. Where a parameter ended on a bound, an interval may move it off or not: it is as
 * wide as the wider of both needs. Null where no run has two points.
 */
export function runNoiseOf(fit: Fit, problem: Problem, runs: readonly string[]): RunNoise | null {
  const free = runNoise(tangentOf(fit, problem), runs);
  if (fit.atBound.length === 0 || free === null) return free;
  const held = runNoise(tangentOf(fit, problem, "held"), runs);
  if (held === null) return free;
  return {
    ...held,
    along(gradient) {
      const [one, other] = [free.along(gradient), held.along(gradient)];
      return one.value > other.value ? one : other;
    },
  };
}

/** Estimates the noise; `values` [n] vary, the tangent's pulls where left out. Null where no run has two points. */
export function runNoise(
  tangent: Tangent,
  runs: readonly string[],
  values: Float64Array = tangent.pulls,
): RunNoise | null {
  const { n, free } = tangent;
  const members = membersOf(runs);
  const G = members.length;
  if (G === n || G < 2) return null;
  const norms = tangent.rows.map((row) => Math.sqrt(dot(row, row)) || 1);
  const rows = tangent.rows.map((row, j) => row.map((value) => value / at(norms, j)));
  const p = rows.length;
  const sums = rows.map((row) => sumsOver(row, members));
  const sizes = Float64Array.from(members, ({ length }) => length);
  const C = inverse(products(rows, rows, 1e-11), p);
  if (C === null) return null;
  const KS = products(sums, sums);
  const CB = times(
    C,
    products(
      sums.map((sum) => sum.map((value, g) => value / at(sizes, g))),
      sums,
    ),
    p,
  );
  const CS = times(C, KS, p);
  const [tB, tS, tBS] = [trace(CB, p), trace(CS, p), trace(times(CB, CS, p), p)];
  const total = dot(values, values);
  const between = sumsOver(values, members).reduce((sum, value, g) => sum + value ** 2 / at(sizes, g), 0);
  const within = Math.max(total - between, 0);
  const [freedomBetween, freedomWithin] = [G - tB, n - G - p + tB];
  if (!(freedomBetween > 0.3 && freedomWithin > 0.3)) return null;
  // Expected sums of squares as multiples of both variances: within one run, and between runs.
  const ofPoints = { within: freedomWithin, between: freedomBetween };
  const ofRuns = { between: n - 2 * tS + tBS, within: n - tS - (n - 2 * tS + tBS) };
  const determinant = ofPoints.within * ofRuns.between - ofRuns.within * ofPoints.between;
  const pooled = total / Math.max(n - p, 0.5);
  /** Weights of both sums of squares in the estimate of pointFactor * (point variance) + runFactor * (run variance). */
  const weights = (pointFactor: number, runFactor: number): readonly [within: number, between: number] => [
    (pointFactor * ofRuns.between - runFactor * ofPoints.between) / determinant,
    (runFactor * ofPoints.within - pointFactor * ofRuns.within) / determinant,
  ];
  const estimate = (pointFactor: number, runFactor: number): Variance => {
    const [w, b] = weights(pointFactor, runFactor);
    const [own, other] = [w * within, b * between];
    return {
      value: own + other,
      freedom: (own + other) ** 2 / (own ** 2 / freedomWithin + other ** 2 / freedomBetween),
    };
  };
  const runVariance = estimate(0, 1).value;
  const isIndependent = !(runVariance > 0);
  const combined = (pointFactor: number, runFactor: number): Variance => {
    if (isIndependent) return { value: pointFactor * pooled, freedom: Math.max(1, n - p) };
    const { value, freedom } = estimate(pointFactor, runFactor);
    return { value: Math.max(value, 0), freedom: Math.min(n - p, Math.max(1, freedom)) };
  };
  const point = combined(1, 1);
  const ratio = between / freedomBetween / Math.max(within / freedomWithin, 1e-300);
  return {
    runs: G,
    correlation: isIndependent ? 0 : Math.min(1, runVariance / point.value),
    independence: fisherTail(ratio, freedomBetween, freedomWithin),
    point,
    along(gradient) {
      const g = Float64Array.from(free, (j, k) => at(gradient, j) / at(norms, k));
      const direction = Float64Array.from({ length: p }, (_, j) => dot(C.subarray(j * p, (j + 1) * p), g));
      const pointFactor = dot(direction, g);
      if (!(pointFactor > 0)) return { value: 1, freedom: Math.max(1, n - p) };
      const runFactor = quadratic(KS, direction);
      const { value, freedom } = combined(pointFactor, runFactor);
      return { value: value / (pooled * pointFactor), freedom };
    },
  };
}

function membersOf(runs: readonly string[]): readonly (readonly number[])[] {
  const members = new Map<string, number[]>();
  runs.forEach((name, i) => {
    const own = members.get(name);
    if (own === undefined) members.set(name, [i]);
    else own.push(i);
  });
  return [...members.values()];
}

const sumsOver = (values: Float64Array, members: readonly (readonly number[])[]): Float64Array =>
  Float64Array.from(members, (rows) => rows.reduce((sum, i) => sum + at(values, i), 0));

/** The matrix [p * p] of inner products; `ridge` is added on its diagonal. */
function products(left: readonly Float64Array[], right: readonly Float64Array[], ridge = 0): Float64Array {
  const p = left.length;
  return Float64Array.from({ length: p * p }, (_, i) => {
    const [j, k] = [Math.floor(i / p), i % p];
    return dot(at(left, j), at(right, k)) + (j === k ? ridge : 0);
  });
}

function times(a: Float64Array, b: Float64Array, p: number): Float64Array {
  return Float64Array.from({ length: p * p }, (_, i) => {
    const [j, k] = [Math.floor(i / p), i % p];
    let sum = 0;
    for (let m = 0; m < p; m++) sum += at(a, j * p + m) * at(b, m * p + k);
    return sum;
  });
}

function trace(a: Float64Array, p: number): number {
  let sum = 0;
  for (let j = 0; j < p; j++) sum += at(a, j * (p + 1));
  return sum;
}

function quadratic(a: Float64Array, vector: Float64Array): number {
  const p = vector.length;
  return vector.reduce((sum, own, j) => sum + own * dot(a.subarray(j * p, (j + 1) * p), vector), 0);
}
