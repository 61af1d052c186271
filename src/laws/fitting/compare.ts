/**
 * Which of several laws describes points better: information criteria on all points, and the error at scales left out
 * of the fit.
 */
import { at } from "../../base/at.js";
import { logLikelihood } from "./distributions.js";
import { fitLaw, type Fit, type FitOptions } from "./fit.js";
import { predict, type Law, type Places, type Points } from "../forms/types.js";

/** Prediction of the largest scales from the smaller ones. */
interface HeldOut {
  /** Points left out: those of the largest scales. */
  readonly n: number;
  /** Points that were fitted. */
  readonly fitted: number;
  /** Root of the mean squared ln-residual of the points left out. */
  readonly rmse: number;
  /** Their mean ln-residual: positive where the law predicts losses that are too high. */
  readonly bias: number;
}

/** How well a law describes its points, for its number of parameters. */
export interface Criteria {
  readonly law: string;
  /** Parameters, the scale of the noise included. */
  readonly k: number;
  readonly logLikelihood: number;
  /** Akaike 1974: 2 k - 2 ln L; of laws fitted to the same points with the same loss the smallest is best. */
  readonly aic: number;
  /** Schwarz 1978: k ln n - 2 ln L. */
  readonly bic: number;
  /** Null where too few points remain. */
  readonly heldOut: HeldOut | null;
}

/** Criteria of a fit; the law is fitted once more to the smaller scales. */
export function criteria(fit: Fit, points: Points, options: FitOptions = {}): Criteria {
  const k = fit.law.parameters.length + 1;
  const value = logLikelihood(fit.loss, fit.objective, points.n);
  return {
    law: fit.law.id,
    k,
    logLikelihood: value,
    aic: 2 * k - 2 * value,
    bic: k * Math.log(points.n) - 2 * value,
    heldOut: heldOutLargest(fit.law, points, { ...options, loss: fit.loss }),
  };
}

/** How well a fit describes the points it was fitted to. */
export interface Quality {
  /** Root mean square and mean absolute error of L, in nats. */
  readonly rmse: number;
  readonly mae: number;
  /** Root mean square of ln-residuals. */
  readonly logRmse: number;
  /** Share of the variance of L that is described. */
  readonly r2: number;
}

/** Errors of a fit on its own points. */
export function qualityOf({ residuals }: Fit, { loss, n }: Points): Quality {
  const mean = loss.reduce((sum, value) => sum + value, 0) / n;
  let [squares, absolute, logs, variance] = [0, 0, 0, 0];
  for (const [i, observed] of loss.entries()) {
    const residual = at(residuals, i);
    const error = observed * Math.expm1(residual);
    squares += error * error;
    absolute += Math.abs(error);
    logs += residual ** 2;
    variance += (observed - mean) ** 2;
  }
  return { rmse: Math.sqrt(squares / n), mae: absolute / n, logRmse: Math.sqrt(logs / n), r2: 1 - squares / variance };
}

/** Size times all tokens where there are both, else the size: what grows with the compute of a run. */
function scaleOf({ n, columns }: Places): Float64Array {
  const { N, D, D1, D2 } = columns;
  return Float64Array.from({ length: n }, (_, i) => {
    const tokens = (D?.[i] ?? 0) || (D1?.[i] ?? 0) + (D2?.[i] ?? 0);
    return (N?.[i] ?? 1) * (tokens || 1);
  });
}

const heldOutShare = 0.2;

/**
 * Fits the smaller scales and predicts the largest: the question a law is asked, which random folds do not ask. Points
 * of equal scale stay together. Null where fewer points than parameters + 1 would remain.
 */
export function heldOutLargest(
  law: Law,
  points: Points,
  options: FitOptions = {},
  share = heldOutShare,
): HeldOut | null {
  const scale = scaleOf(points);
  const smallestHeldOut = at(scale.toSorted(), Math.min(points.n - 1, Math.floor((1 - share) * points.n)));
  const rows = [...scale.keys()];
  const inside = rows.filter((i) => at(scale, i) < smallestHeldOut);
  const outside = rows.filter((i) => at(scale, i) >= smallestHeldOut);
  if (inside.length <= law.parameters.length || outside.length === 0) return null;
  const fit = fitLaw(law, pick(points, inside), options);
  const heldOut = pick(points, outside);
  const residuals = predict(law, fit.params, heldOut).map((value, i) => Math.log(value / at(heldOut.loss, i)));
  const sum = residuals.reduce((total, r) => total + r, 0);
  const squares = residuals.reduce((total, r) => total + r * r, 0);
  return {
    n: outside.length,
    fitted: inside.length,
    rmse: Math.sqrt(squares / outside.length),
    bias: sum / outside.length,
  };
}

/** The points with these indices, in this order. */
export function pick(points: Points, rows: readonly number[]): Points {
  const { columns, loss, cluster, group } = points;
  return {
    n: rows.length,
    columns: Object.fromEntries(
      Object.entries(columns).map(([name, values]) => [name, Float64Array.from(rows, (i) => at(values, i))]),
    ),
    loss: Float64Array.from(rows, (i) => at(loss, i)),
    ...(cluster && { cluster: rows.map((i) => at(cluster, i)) }),
    ...(group && { group: rows.map((i) => at(group, i)) }),
  };
}
