/**
 * What the solvers minimise: the sum over points of w_i rho(r_i) / scale, r = ln prediction - ln observation, plus at
 * most one penalty (half a weight times a squared distance), with which profiles hold a quantity near a value. Dividing
 * Huber's sum by its delta keeps objective and gradient near 1, where stopping rules mean what they say.
 */
import type { LossName } from "./loss.js";
import type { Evaluator, Functional } from "../forms/types.js";

export interface Penalty {
  readonly of: Functional;
  readonly target: number;
  /** In units of the unscaled objective. */
  readonly weight: number;
}

export class Objective {
  readonly p: number;
  readonly residuals: Float64Array;
  private readonly jacobian: Float64Array;
  penalty: Penalty | null = null;
  /** Evaluations with a gradient so far. */
  evaluations = 0;
  /** Huber's threshold; Infinity makes every residual count squared. LAD is reached as the limit of small ones. */
  delta: number;
  private readonly slopes: Float64Array;
  private readonly penaltyGradient: Float64Array;

  constructor(
    readonly law: Evaluator & { readonly p: number; readonly lower: Float64Array; readonly upper: Float64Array },
    readonly logLoss: Float64Array,
    readonly weights: Float64Array,
    loss: LossName,
    delta: number,
  ) {
    this.p = law.p;
    this.residuals = new Float64Array(law.n);
    this.jacobian = new Float64Array(law.n * law.p);
    this.slopes = new Float64Array(law.n);
    this.penaltyGradient = new Float64Array(law.p);
    this.delta = loss === "mse" ? Infinity : delta;
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
    const { law, logLoss, weights, residuals, slopes, delta, scale, p } = this;
    const n = law.n;
    this.evaluations += 1;
    law.evaluate(theta, residuals);
    let sum = 0;
    for (let i = 0; i < n; i++) {
      const r = residuals[i]! - logLoss[i]!;
      residuals[i] = r;
      const w = weights[i]!;
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
    sum *= scale;
    law.pullback(slopes, gradient);
    if (this.penalty !== null) {
      const { of, target } = this.penalty;
      const weight = this.penalty.weight * scale;
      const distance = of.at(theta, this.penaltyGradient) - target;
      sum += 0.5 * weight * distance * distance;
      for (let j = 0; j < p; j++) gradient[j]! += weight * distance * this.penaltyGradient[j]!;
    }
    return sum;
  }

  /**
   * Gauss-Newton matrix J^T W J of the last evaluated point, row-major, W = w psi(r) / r: a convex quadratic with this
   * matrix lies above Huber's loss and touches it there (iteratively reweighted least squares).
   */
  curvature(out: Float64Array): void {
    const { law, weights, residuals, jacobian, slopes, delta, scale, p } = this;
    const n = law.n;
    law.jacobian(jacobian);
    for (let i = 0; i < n; i++) {
      const size = Math.abs(residuals[i]!);
      slopes[i] = weights[i]! * scale * (size <= delta ? 1 : delta / size);
    }
    for (let j = 0; j < p; j++) {
      for (let k = j; k < p; k++) {
        let sum = 0;
        const [a, b] = [j * n, k * n];
        for (let i = 0; i < n; i++) sum += slopes[i]! * jacobian[a + i]! * jacobian[b + i]!;
        if (this.penalty !== null)
          sum += this.penalty.weight * scale * this.penaltyGradient[j]! * this.penaltyGradient[k]!;
        out[j * p + k] = out[k * p + j] = sum;
      }
    }
  }

  /** d ln L_i / d theta_j of the last evaluated point, at [j * n + i]. */
  slopesOfPoints(): Float64Array {
    this.law.jacobian(this.jacobian);
    return this.jacobian;
  }

  /** The data's part of the last evaluated point, without the penalty: w times Huber's loss, |r|, or r^2. */
  dataSum(loss: LossName): number {
    const { residuals, weights, delta } = this;
    let sum = 0;
    for (let i = 0; i < residuals.length; i++) {
      const size = Math.abs(residuals[i]!);
      sum +=
        weights[i]! *
        (loss === "mse"
          ? size * size
          : loss === "lad"
            ? size
            : size <= delta
              ? (size * size) / 2
              : delta * (size - delta / 2));
    }
    return sum;
  }
}
