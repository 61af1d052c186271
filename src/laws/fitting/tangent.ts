/** A fit near its optimum as a linear problem: what tests and intervals that need no further fits work on. */
import { at } from "../../base/at.js";
import { largestSize } from "../../base/vectors.js";
import type { LossName } from "../solvers/loss.js";
import type { Problem } from "../solvers/local-fit.js";
import type { Fit } from "./fit.js";

/** Derivatives and residuals at the optimum. `n` points, `p` free parameters. */
export interface Tangent {
  readonly n: number;
  /** Indices of the parameters that the points feel. */
  readonly free: readonly number[];
  /** d prediction / d parameter, a row [n] per free parameter: of ln L, or of L where raw residuals are fitted. */
  readonly rows: readonly Float64Array[];
  /** How strongly each point pulls on the fit: the loss's derivative by its residual [n]. */
  readonly pulls: Float64Array;
}

/**
 * The tangent of a fit at its optimum, over the parameters that the points feel; with `bounds` "held" without those
 * on a
 * bound.
 */
export function tangentOf(fit: Fit, { bound }: Problem, bounds: "free" | "held" = "free"): Tangent {
  const { n } = bound;
  const logs = new Float64Array(n);
  bound.evaluate(fit.theta, logs);
  const jacobian = new Float64Array(bound.p * n);
  bound.jacobian(jacobian);
  const sizes = fit.law.parameters.map((_, j) => largestSize(jacobian.subarray(j * n, (j + 1) * n)));
  const isHeld = (j: number): boolean => bounds === "held" && fit.atBound.includes(at(fit.law.parameters, j).name);
  const free = sizes.flatMap((size, j) => (size > 1e-6 * Math.max(...sizes) && !isHeld(j) ? [j] : []));
  const isRaw = fit.loss.name === "mse-raw";
  const rows = free.map((j) => {
    const row = jacobian.slice(j * n, (j + 1) * n);
    return isRaw ? row.map((slope, i) => slope * Math.exp(at(logs, i))) : row;
  });
  const residuals = isRaw
    ? fit.residuals.map((r, i) => Math.exp(at(logs, i)) - Math.exp(at(logs, i) - r))
    : fit.residuals;
  return { n, free, rows, pulls: residuals.map((r) => pull(fit.loss.name, r, fit.loss.delta)) };
}

function pull(loss: LossName, residual: number, delta: number): number {
  if (loss === "lad") return Math.sign(residual);
  return loss === "huber" ? Math.min(delta, Math.max(-delta, residual)) : residual;
}
