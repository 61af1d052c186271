/**
 * Losses over residuals r = ln(prediction) - ln(observed). Objectives are SUMS over points, never means: with the usual
 * stopping rules a mean stops far from the optimum (Besiroglu et al. 2024, "Chinchilla Scaling: A Replication Attempt",
 * section 3).
 */

export type LossName = "huber" | "lad" | "mse";

export const lossNames: readonly LossName[] = ["huber", "lad", "mse"];

export interface Loss {
  readonly name: LossName;
  /** Huber only: residuals up to `delta` count squared (r^2 / 2), larger ones linearly (delta (|r| - delta / 2)). */
  readonly delta: number;
}

/** Hoffmann et al. 2022, appendix D.2. */
export const defaultDelta = 1e-3;

/** The objective as reported: sum of w times Huber's loss, |r|, or r^2. */
export function unscaledObjective(loss: Loss, residuals: ArrayLike<number>, weights?: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < residuals.length; i++) {
    const size = Math.abs(residuals[i]!);
    const value =
      loss.name === "mse"
        ? size * size
        : loss.name === "lad"
          ? size
          : size <= loss.delta
            ? (size * size) / 2
            : loss.delta * (size - loss.delta / 2);
    sum += weights === undefined ? value : weights[i]! * value;
  }
  return sum;
}
