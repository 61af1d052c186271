/**
 * Points that lie far from a fit. Most of the points, those closest to a robust fit, are taken as sound; then points
 * join them one by one, the closest first, as long as the sound ones make them credible: forward search with Student's
 * test of a new observation (Hadi and Simonoff 1993). Outliers that hide each other, and those at far places, which
 * pull the fit to themselves, are found so, and the level holds for the whole table.
 *
 * Letters: `n` points, `p` free parameters.
 */
import { at } from "../../base/at.js";
import { cholesky, choleskySolve } from "../../base/linear-algebra.js";
import { dot } from "../../base/vectors.js";
import { fitFrom, median, type Problem } from "../solvers/local-fit.js";
import { studentQuantile } from "./distributions.js";
import type { Fit } from "./fit.js";
import { tangentOf } from "./tangent.js";

/** A point far from the fit. */
export interface Outlier {
  /** Index among the points. */
  readonly point: number;
  /** ln observation - ln prediction of the fit to the other points. */
  readonly residual: number;
  /** The residual as a multiple of its standard error, the fit's own included. */
  readonly size: number;
}

/** Residuals within this many times their usual size count squared (Huber 1981: 95 % efficient with normal noise). */
const tuning = 1.345;
/** In tables without outliers this part has a point that is named. */
const falseAlarms = 0.02;
/** Of a large table no more points than this can be named. */
const mostDoubted = 200;
/** Residuals below this are rounding, not noise. */
const rounding = 1e-9;

/** Points that the sound ones make incredible, the furthest first. Empty where too few are left over to judge by. */
export function outliersOf(fit: Fit, problem: Problem): readonly Outlier[] {
  const n = fit.residuals.length;
  const { residuals, rows } = robustTangent(fit, problem);
  const p = rows.length;
  const closest = [...residuals.keys()].sort((a, b) => Math.abs(at(residuals, a)) - Math.abs(at(residuals, b)));
  const fewestSound = Math.max(Math.ceil((n + p + 1) / 2), n - mostDoubted);
  if (fewestSound >= n || fewestSound - p < 3) return [];
  const sound = new SoundPoints(rows, residuals);
  for (const i of closest.slice(0, fewestSound)) sound.add(i);
  let doubted = closest.slice(fewestSound);
  for (;;) {
    const judged = sound.judge(doubted).sort((a, b) => b.size - a.size);
    const nearest = judged.at(-1);
    const limit = studentQuantile(1 - falseAlarms / (2 * n), sound.freedom);
    if (nearest === undefined || nearest.size > limit) return judged;
    sound.add(nearest.point);
    doubted = doubted.filter((i) => i !== nearest.point);
  }
}

/** Residuals, ln observation - ln prediction, and slopes of a fit on which outliers have little pull. */
function robustTangent(
  fit: Fit,
  problem: Problem,
): { readonly residuals: Float64Array; readonly rows: readonly Float64Array[] } {
  const n = fit.residuals.length;
  const residualsAt = (theta: Float64Array): Float64Array => {
    const logs = new Float64Array(n);
    fit.bound.evaluate(theta, logs);
    return logs.map((value, i) => at(problem.logLoss, i) - value);
  };
  let theta = fit.theta;
  // The first fit's usual residual may owe something to the outliers, the second's does not.
  for (let round = 0; round < 2; round++) {
    const delta = Math.max(rounding, tuning * 1.4826 * median(residualsAt(theta).map(Math.abs)));
    theta = fitFrom({ ...problem, loss: { name: "huber", delta } }, theta).theta;
  }
  const { rows } = tangentOf({ ...fit, theta, loss: { name: "mse", delta: 0 } }, problem);
  return { residuals: residualsAt(theta), rows };
}

/** The least-squares fit to the points that are taken as sound, in the tangent of the robust fit. */
class SoundPoints {
  private readonly slopes: readonly Float64Array[];
  private readonly p: number;
  /** Sums over the sound points of products of slopes [p * p], of slopes and residuals [p], and of squares. */
  private readonly gram: Float64Array;
  private readonly moments: Float64Array;
  private squares = 0;
  private count = 0;

  /** `rows` are d ln prediction / d parameter, a row [n] per parameter. */
  constructor(
    rows: readonly Float64Array[],
    private readonly residuals: Float64Array,
  ) {
    this.p = rows.length;
    const norms = rows.map((row) => Math.sqrt(dot(row, row)) || 1);
    this.slopes = Array.from({ length: residuals.length }, (_, i) =>
      Float64Array.from(rows, (row, j) => at(row, i) / at(norms, j)),
    );
    this.gram = new Float64Array(this.p ** 2);
    this.moments = new Float64Array(this.p);
  }

  get freedom(): number {
    return this.count - this.p;
  }

  add(i: number): void {
    const { p, gram, moments } = this;
    const [x, r] = [at(this.slopes, i), at(this.residuals, i)];
    for (let j = 0; j < p; j++) {
      moments[j]! += at(x, j) * r;
      for (let k = 0; k < p; k++) gram[j * p + k]! += at(x, j) * at(x, k);
    }
    this.squares += r * r;
    this.count += 1;
  }

  /** What these points would be as further observations. */
  judge(points: readonly number[]): Outlier[] {
    const { p, gram, moments } = this;
    const factor = new Float64Array(p * p);
    const ridged = gram.map((value, i) => value + (i % (p + 1) === 0 ? 1e-12 : 0));
    if (!cholesky(ridged, p, factor)) return [];
    const change = new Float64Array(p);
    choleskySolve(factor, p, moments, change);
    const variance = Math.max(0, this.squares - dot(moments, change)) / this.freedom;
    return points.map((point) => {
      const x = at(this.slopes, point);
      const spread = new Float64Array(p);
      choleskySolve(factor, p, x, spread);
      const residual = at(this.residuals, point) - dot(x, change);
      const standardError = Math.max(rounding, Math.sqrt(variance * (1 + dot(x, spread))));
      return { point, residual, size: Math.abs(residual) / standardError };
    });
  }
}
