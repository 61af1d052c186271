/**
 * What the solvers minimise: the sum over points of w_i rho(r_i) / scale, r = ln prediction - ln observation, plus at
 * most one penalty (half a weight times a squared distance), with which profiles hold a quantity near a value. Dividing
 * Huber's sum by its delta keeps objective and gradient near 1, where stopping rules mean what they say.
 *
 * Dimensions: `n` points, `p` internal parameters.
 */
import { isSquared, lossOf, type LossName } from "./loss.js";
import type { Evaluator, Functional } from "../forms/types.js";
import type { Box } from "./box.js";
import { addScaled, dot3, zeros, type Matrix } from "../../base/vectors.js";

/** Half `weight` times the squared distance of a quantity from `target`. */
export interface Penalty {
  readonly of: Functional;
  readonly target: number;
  /** In units of the unscaled objective. */
  readonly weight: number;
}

/** The objective of one fit. It remembers the last evaluated point, which `curvature` and `dataSum` are about. */
export class Objective {
  readonly p: number;
  /** ln prediction - ln observation of the last evaluated point; prediction - observation where those are fitted. */
  readonly residuals: Float64Array;
  /** d ln L_i / d theta_j: a row per parameter, a column per point. */
  private readonly jacobian: Matrix;
  penalty: Penalty | null = null;
  /** Evaluations with a gradient so far. */
  evaluations = 0;
  /** Huber's threshold; Infinity makes every residual count squared. LAD is reached as the limit of small ones. */
  delta: number;
  private readonly slopes: Float64Array;
  private readonly penaltyGradient: Float64Array;
  /** Of raw residuals only: the observed losses, and the predictions of the last evaluated point. */
  private readonly raw: { readonly observed: Float64Array; readonly predicted: Float64Array } | null;

  constructor(
    readonly law: Evaluator & Box & { readonly p: number },
    readonly logLoss: Float64Array,
    readonly weights: Float64Array,
    loss: LossName,
    delta: number,
  ) {
    this.p = law.p;
    this.residuals = new Float64Array(law.n);
    this.jacobian = zeros(law.p, law.n);
    this.slopes = new Float64Array(law.n);
    this.penaltyGradient = new Float64Array(law.p);
    this.delta = isSquared(loss) ? Infinity : delta;
    this.raw = loss === "mse-raw" ? { observed: logLoss.map(Math.exp), predicted: new Float64Array(law.n) } : null;
  }

  /** Huber: 1 / delta; squares: 1. */
  get scale(): number {
    return this.delta === Infinity ? 1 : 1 / this.delta;
  }

  /** A scaled objective this small is rounding: residuals of 1e-15 at every point. */
  get rounding(): number {
    return this.scale * this.weights.reduce((sum, w) => sum + w, 0) * 0.5e-30;
  }

  /** The scaled objective at `theta`; fills `gradient`. Leaves the residuals of this point. */
  value(theta: Float64Array, gradient: Float64Array): number {
    const { law, residuals, slopes, penalty, penaltyGradient, scale } = this;
    this.evaluations += 1;
    law.evaluate(theta, residuals);
    const data = this.raw === null ? this.weighResiduals() * scale : this.weighRawResiduals(this.raw);
    law.pullback(slopes, gradient);
    if (penalty === null) return data;
    const weight = penalty.weight * scale;
    const distance = penalty.of.at(theta, penaltyGradient) - penalty.target;
    addScaled(gradient, weight * distance, penaltyGradient);
    return data + 0.5 * weight * distance * distance;
  }

  /** Makes residuals of the predictions that lie in `residuals`, fills `slopes`, and returns the unscaled sum. */
  private weighResiduals(): number {
    const { logLoss, weights, residuals, slopes, delta, scale } = this;
    let sum = 0;
    for (let i = 0; i < residuals.length; i++) {
      const r = residuals[i]! - logLoss[i]!;
      const w = weights[i]!;
      residuals[i] = r;
      if (r > delta) {
        sum += w * delta * (r - delta / 2);
        slopes[i] = w * delta * scale;
      } else if (r < -delta) {
        sum += w * delta * (-r - delta / 2);
        slopes[i] = -w * delta * scale;
      } else {
        sum += w * 0.5 * r * r;
        slopes[i] = w * r * scale;
      }
    }
    return sum;
  }

  /**
   * The same for squares of prediction - observation, whose slope by ln prediction is the residual times the
   * prediction.
   */
  private weighRawResiduals({ observed, predicted }: NonNullable<Objective["raw"]>): number {
    const { weights, residuals, slopes } = this;
    let sum = 0;
    for (let i = 0; i < residuals.length; i++) {
      const prediction = Math.exp(residuals[i]!);
      const r = prediction - observed[i]!;
      const w = weights[i]!;
      predicted[i] = prediction;
      residuals[i] = r;
      sum += w * 0.5 * r * r;
      slopes[i] = w * r * prediction;
    }
    return sum;
  }

  /**
   * Fills the rows [p][p] of the Gauss-Newton matrix J^T W J of the last evaluated point, W = w psi(r) / r: a convex
   * quadratic with this matrix lies above Huber's loss and touches it there (iteratively reweighted least squares).
   */
  curvature(out: readonly Float64Array[]): void {
    const { law, weights, residuals, jacobian, slopes, delta, scale, penalty, penaltyGradient } = this;
    law.jacobian(jacobian.values);
    for (let i = 0; i < residuals.length; i++) {
      const size = Math.abs(residuals[i]!);
      const steepness = this.raw === null ? 1 : this.raw.predicted[i]! ** 2;
      slopes[i] = weights[i]! * scale * steepness * (size <= delta ? 1 : delta / size);
    }
    for (const [j, own] of jacobian.rows.entries()) {
      for (const [k, other] of jacobian.rows.entries()) {
        if (k < j) continue;
        let sum = dot3(slopes, own, other);
        if (penalty !== null) sum += penalty.weight * scale * penaltyGradient[j]! * penaltyGradient[k]!;
        out[j]![k] = out[k]![j] = sum;
      }
    }
  }

  /** d ln L_i / d theta_j of the last evaluated point, at [j][i]. */
  slopesOfPoints(): readonly Float64Array[] {
    this.law.jacobian(this.jacobian.values);
    return this.jacobian.rows;
  }

  /** The data's part of the last evaluated point, without the penalty: w times Huber's loss, |r|, or r^2. */
  dataSum(loss: LossName): number {
    const { residuals, weights, delta } = this;
    let sum = 0;
    for (let i = 0; i < residuals.length; i++)
      sum += weights[i]! * lossOf({ name: loss, delta }, Math.abs(residuals[i]!));
    return sum;
  }
}
