/**
 * Losses over residuals r = ln(prediction) - ln(observed). Objectives are SUMS over points, never means: with the usual
 * stopping rules a mean stops far from the optimum (Besiroglu et al. 2024, "Chinchilla Scaling: A Replication Attempt",
 * section 3).
 */

/** Huber's loss, least absolute deviations, or squares. */
export type LossName = "huber" | "lad" | "mse";

/** The losses a fit can use, in the order in which they are listed to users. */
export const lossNames: readonly LossName[] = ["huber", "lad", "mse"];

/** A loss with what it needs. */
export interface Loss {
  readonly name: LossName;
  /** Huber only: residuals up to `delta` count squared (r^2 / 2), larger ones linearly (delta (|r| - delta / 2)). */
  readonly delta: number;
}

/** Huber's delta that Hoffmann et al. 2022, appendix D.2, use. */
export const defaultDelta = 1e-3;
