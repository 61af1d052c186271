/**
 * How far a likelihood ratio has to rise before a value is rejected, where a bound is in reach. The best fit cannot go
 * then where it would sometimes want to, so chi-squared's quantile makes intervals that are too wide near the bound.
 * The quantile of the ratio's own distribution makes them exact again: Feldman and Cousins 1998 (arXiv physics/9711021)
 * for a parameter with a bound of its own, and the same construction for one that goes together with it.
 *
 * Near the optimum the fit is a projection of standard normal noise, and only two directions matter: across the bound,
 * and along the values that the hypothesis leaves free. In that plane the truth is the origin, the bound is the line
 * y = -distance, and the hypothesis is the part above it of a line through the origin.
 */
import { errorFunction, studentQuantile } from "./distributions.js";

/** A bound as seen from a hypothetical truth. */
export interface NearBound {
  /** How far the truth lies inside of it, in standard errors of the bounded parameter. */
  readonly distance: number;
  /** Correlation between the bounded parameter's estimate and that of the quantity that is held; its sign is free. */
  readonly correlation: number;
}

/** Bounds this many standard errors away are never felt. */
const outOfReach = 4;
/** Correlations this close to one belong to the bounded parameter itself. */
const sameDirection = 1e-9;

/** Quantile `level` of the likelihood ratio of one value of a quantity, near a bound; chi-squared's where it is far. */
export function likelihoodRatioQuantile(level: number, { distance, correlation }: NearBound): number {
  if (!(distance < outOfReach)) return normalQuantile((1 + level) / 2) ** 2;
  const delta = Math.max(0, distance);
  const sine = Math.sqrt(Math.max(0, 1 - correlation ** 2));
  const probability =
    sine ** 2 < sameDirection
      ? (ratio: number): number => ownBoundProbability(ratio, delta)
      : (ratio: number): number => otherBoundProbability(ratio, delta, sine);
  // The ratio is never larger than the squared length of the noise, whose quantile is -2 ln(1 - level).
  return rootOf((root) => probability(root ** 2) - level, Math.sqrt(-2 * Math.log1p(-level))) ** 2;
}

/** A probability this close to the level is the level. */
const closeEnough = 1e-6;

/** Where a function that rises from 0 to `most` passes zero, by false position (Illinois). 0 where it begins above. */
function rootOf(f: (x: number) => number, most: number): number {
  let [low, high] = [0, most];
  let [below, above] = [f(low), f(high)];
  if (below >= 0) return low;
  let side = 0;
  let x = high;
  for (let i = 0; i < 40 && above > 0; i++) {
    x = (low * above - high * below) / (above - below);
    const value = f(x);
    if (Math.abs(value) < closeEnough) break;
    if (value < 0) {
      [low, below] = [x, value];
      if (side < 0) above /= 2;
      side = -1;
    } else {
      [high, above] = [x, value];
      if (side > 0) below /= 2;
      side = 1;
    }
  }
  return x;
}

/** P(ratio <= value) for the bounded parameter itself. */
function ownBoundProbability(value: number, delta: number): number {
  const root = Math.sqrt(value);
  const low = root <= delta ? -root : delta === 0 ? -Infinity : -(value + delta ** 2) / (2 * delta);
  return normalProbability(root) - normalProbability(low);
}

const steps = 120;
const reach = 5;

/**
 * P(ratio <= value) for a quantity whose line meets the bound at an angle with this sine. At each height y of the noise
 * the accepted places are those within a distance of the line's allowed part: an interval of x.
 */
function otherBoundProbability(value: number, delta: number, sine: number): number {
  const cosine = Math.sqrt(Math.max(0, 1 - sine ** 2));
  const end = delta / sine;
  const width = (2 * reach) / steps;
  let sum = 0;
  for (let i = 0; i <= steps; i++) {
    const y = -reach + i * width;
    const beyond = Math.max(0, -delta - y);
    const radius = Math.sqrt(value + beyond ** 2);
    let [low, high] = [Infinity, -Infinity];
    // Beside the line, where the foot of the perpendicular is allowed.
    const foot = cosine < 1e-12 ? (y >= -end ? -Infinity : Infinity) : (-end - y * sine) / cosine;
    const [from, to] = [Math.max(foot, (y * cosine - radius) / sine), (y * cosine + radius) / sine];
    if (from <= to) [low, high] = [from, to];
    // Around its end.
    const half = radius ** 2 - (y + delta) ** 2;
    if (half >= 0) {
      low = Math.min(low, -end * cosine - Math.sqrt(half));
      high = Math.max(high, -end * cosine + Math.sqrt(half));
    }
    if (high > low) sum += Math.exp(-0.5 * y * y) * (normalProbability(high) - normalProbability(low));
  }
  return (sum * width) / Math.sqrt(2 * Math.PI);
}

function normalProbability(x: number): number {
  return 0.5 * (1 + errorFunction(x / Math.SQRT2));
}

const manyDegrees = 1e8;

function normalQuantile(probability: number): number {
  return studentQuantile(probability, manyDegrees);
}
