/** The interval in which the loss of a new training run lies: the law's own, widened by what runs differ by. */
import { studentQuantile } from "./distributions.js";
import type { Interval } from "./profile.js";
import type { Variance } from "./deviance.js";
import type { RunNoise } from "./run-noise.js";

/** Variance of ln-residuals about the fit, of one point of a run that was not fitted. */
export function noiseOfOne(residuals: Float64Array, p: number, runs: RunNoise | null): Variance {
  if (runs !== null) return runs.point;
  const freedom = Math.max(1, residuals.length - p);
  return { value: residuals.reduce((sum, r) => sum + r * r, 0) / freedom, freedom };
}

/**
 * Interval of one new measurement at a place whose loss by the law is `loss` with the interval `law`: both errors are
 * independent, so the distances of their ends add as squares.
 */
export function newRunInterval(law: Interval, loss: number, noise: Variance): Interval {
  const own = studentQuantile((1 + law.level) / 2, noise.freedom) * Math.sqrt(noise.value);
  const below = Math.hypot(Math.log(loss / law.low), own);
  const above = Math.hypot(Math.log(law.high / loss), own);
  return { ...law, low: loss * Math.exp(-below), high: loss * Math.exp(above) };
}
