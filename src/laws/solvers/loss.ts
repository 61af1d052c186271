/**
 * Losses over residuals r = ln(prediction) - ln(observed), and squares of the raw residuals prediction - observed,
 * which
 * `scipy.optimize.curve_fit` minimises. Objectives are SUMS over points, never means: with the usual
 * stopping rules a mean stops far from the optimum (Besiroglu et al. 2024, "Chinchilla Scaling: A Replication Attempt",
 * section 3).
 */

/** Huber's loss, least absolute deviations, or squares, all of ln-residuals; squares of raw residuals. */
export type LossName = "huber" | "lad" | "mse" | "mse-raw";

/** The losses a fit can use, in the order in which they are listed to users. */
export const lossNames: readonly LossName[] = ["huber", "lad", "mse", "mse-raw"];

/** A loss with what it needs. */
export interface Loss {
  readonly name: LossName;
  /** Huber only: residuals up to `delta` count squared (r^2 / 2), larger ones linearly (delta (|r| - delta / 2)). */
  readonly delta: number;
}

/** Huber's delta that Hoffmann et al. 2022, appendix D.2, use. */
export const defaultDelta = 1e-3;

/** Whether the loss is a sum of squares, for which likelihood ratios are exact under normal noise. */
export const isSquared = (name: LossName): boolean => name === "mse" || name === "mse-raw";

/** What one residual of this size counts, as reported. */
export function lossOf({ name, delta }: Loss, size: number): number {
  if (isSquared(name)) return size * size;
  if (name === "lad") return size;
  return size <= delta ? (size * size) / 2 : delta * (size - delta / 2);
}
