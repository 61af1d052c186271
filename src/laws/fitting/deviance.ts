/**
 * How much worse a fit may get before it is rejected: the scale on which profiles are read.
 *
 * Squares: the likelihood ratio of normal residuals, n ln(S / S_min). Huber's loss and absolute values are chosen
 * because residuals are NOT of the one distribution whose likelihood they are, so their rise is scaled by what it means
 * for the residuals at hand, 2 (S - S_min) E psi' / E psi^2 (Ronchetti 1982; for absolute values Koenker and Bassett
 * 1982), which is chi-squared again. With normal noise and a small delta the plain likelihood of Laplace's distribution
 * would give 90 % intervals that hold the truth in four cases of five.
 */
import { quantile, studentQuantile } from "./distributions.js";
import { isSquared, type Loss } from "../solvers/loss.js";

/** A variance with how well it is known. */
export interface Variance {
  readonly value: number;
  /** Degrees of freedom of its estimate (Satterthwaite 1946). */
  readonly freedom: number;
}

interface Deviance {
  /** Where an interval of the level ends. */
  readonly threshold: number;
  /** Deviance of a fit with this unscaled objective; never negative. */
  readonly of: (objective: number) => number;
}

interface DevianceOptions {
  /** Parameters of the law. */
  readonly p: number;
  readonly level: number;
  /** How much larger the quantity's variance is than among independent points, and how well that is known. */
  readonly inflation?: Variance | undefined;
}

/**
 * Chi-squared with one degree of freedom for many points. For few, Student's t enters as it does for squares, where the
 * threshold n ln(1 + t^2 / (n - p)) makes the interval of a linear law exact. Where points of a run go together, the
 * threshold grows by the inflation of the variance (Chandler and Bate 2007).
 */
export function devianceOf(
  loss: Loss,
  objective: number,
  residuals: Float64Array,
  { p, level, inflation }: DevianceOptions,
): Deviance {
  const n = residuals.length;
  const freedom = Math.max(1, n - p);
  const known = inflation === undefined ? freedom : Math.min(freedom, inflation.freedom);
  const t = studentQuantile((1 + level) / 2, known) * Math.sqrt(inflation?.value ?? 1);
  if (isSquared(loss.name)) {
    const least = Math.max(objective, 1e-300);
    return {
      threshold: n * Math.log1p((t * t) / freedom),
      of: (other) => Math.max(0, n * Math.log(Math.max(other, least) / least)),
    };
  }
  const factor = steepness(loss, residuals, p);
  // A fit makes residuals smaller than the noise, which a square feels twice, a density at zero once.
  const inside = loss.name === "huber" ? residuals.filter((r) => Math.abs(r) <= loss.delta).length / n : 0;
  return {
    threshold: t * t * (n / freedom) ** ((1 + inside) / 2),
    of: (other) => Math.max(0, 2 * (other - objective) * factor),
  };
}

/** E psi' / E psi^2 for the loss as summed: psi is r up to delta and +-delta beyond, for absolute values +-1. */
function steepness({ name, delta }: Loss, residuals: Float64Array, p: number): number {
  const n = residuals.length;
  const sizes = residuals.map(Math.abs).sort();
  // A fit passes (nearly) through as many points as it has parameters: those say nothing about the density at zero.
  const others = sizes.subarray(Math.min(p, n - 2));
  // Hall and Sheather's bandwidth at the median, on the scale of probabilities.
  const half = Math.min(0.45, 0.9717 * n ** (-1 / 3));
  const window = Math.max(quantile(others, 2 * half), 1e-300);
  const density = half / window;
  if (name === "lad") return 2 * density;
  const inside = delta >= window ? sizes.filter((size) => size <= delta).length / n : Math.min(1, 2 * delta * density);
  const square = sizes.reduce((sum, size) => sum + Math.min(size, delta) ** 2, 0) / n;
  return inside / Math.max(square, 1e-300);
}
