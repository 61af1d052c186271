/** Points that lie far from a fit, by residuals of a robust fit, on which they have no pull. */
import { at } from "../../base/at.js";
import { fitFrom, median, type Problem } from "../solvers/local-fit.js";
import { studentQuantile } from "./distributions.js";
import type { Fit } from "./fit.js";

/** A point far from the fit. */
export interface Outlier {
  /** Index among the points. */
  readonly point: number;
  /** ln observation - ln prediction of the fit that outliers do not pull on. */
  readonly residual: number;
  /** How many times the usual size the residual has. */
  readonly size: number;
}

/** Residuals within this many times their usual size count squared (Huber 1981: 95 % efficient with normal noise). */
const tuning = 1.345;
/** In tables without outliers this part has a point that is named. */
const falseAlarms = 0.02;

/** Points further off than noise of the usual size would put one of so many, the furthest first. */
export function outliersOf(fit: Fit, problem: Problem): readonly Outlier[] {
  const n = fit.residuals.length;
  const freedom = n - fit.bound.p;
  if (freedom < 3) return [];
  const rough = usualSize(fit.residuals);
  if (!(rough > 1e-12)) return [];
  const loss = { name: "huber", delta: tuning * rough } as const;
  const { theta } = fitFrom({ ...problem, loss }, fit.theta);
  const logs = new Float64Array(n);
  fit.bound.evaluate(theta, logs);
  const residuals = logs.map((value, i) => at(problem.logLoss, i) - value);
  // A fit brings residuals closer to zero than the noise was.
  const usual = usualSize(residuals) * Math.sqrt(n / freedom);
  const limit = Math.max(4, studentQuantile(1 - falseAlarms / (2 * n), freedom));
  return [...residuals]
    .map((residual, point) => ({ point, residual, size: Math.abs(residual) / usual }))
    .filter(({ size }) => size > limit)
    .sort((a, b) => b.size - a.size);
}

/** The standard deviation of normal residuals of this median size. */
function usualSize(residuals: Float64Array): number {
  return 1.4826 * median(residuals.map(Math.abs));
}
