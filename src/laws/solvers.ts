/**
 * Local minimisers over a box. Levenberg-Marquardt for sums of squares, BFGS for Huber's loss; both hold a parameter on its bound while the
 * gradient pushes outwards, and let it go when it no longer does.
 */
import { cholesky, choleskySolve, inverse } from "./linear.js";
import type { Objective } from "./objective.js";

export interface LocalMinimum {
  readonly theta: Float64Array;
  /** Scaled objective, penalty included. */
  readonly value: number;
  readonly gradient: Float64Array;
  /** A stopping rule was met before the iteration limit. */
  readonly converged: boolean;
  readonly iterations: number;
}

export interface SolverLimits {
  readonly iterations: number;
  /** Stop where a full step would lower the objective by less than this part of it. */
  readonly tolerance: number;
}

export const defaultLimits: SolverLimits = { iterations: 500, tolerance: 1e-14 };

/** Longest step of one parameter in one iteration: internal parameters are logarithms and slopes, of order one. */
const longestStep = 4;

/** Parameters that may move: not those on a bound with the downhill direction pointing out. */
function freeParameters(theta: Float64Array, gradient: Float64Array, { lower, upper }: Objective["law"], free: Uint8Array): number {
  let count = 0;
  for (let j = 0; j < theta.length; j++) {
    const held = (theta[j]! <= lower[j]! && gradient[j]! >= 0) || (theta[j]! >= upper[j]! && gradient[j]! <= 0);
    free[j] = held ? 0 : 1;
    count += free[j]!;
  }
  return count;
}

function clipped(theta: Float64Array, step: Float64Array, length: number, { lower, upper }: Objective["law"], out: Float64Array): void {
  for (let j = 0; j < theta.length; j++) out[j] = Math.min(upper[j]!, Math.max(lower[j]!, theta[j]! + length * step[j]!));
}

/** Keeps rows and columns of free parameters, unit diagonal elsewhere, so that a solve leaves the others alone. */
function restrict(matrix: Float64Array, free: Uint8Array, p: number): void {
  for (let j = 0; j < p; j++) {
    if (free[j] === 1) continue;
    for (let k = 0; k < p; k++) matrix[j * p + k] = matrix[k * p + j] = 0;
    matrix[j * p + j] = 1;
  }
}

/** Levenberg-Marquardt with Marquardt's scaling and Nielsen's damping (Madsen, Nielsen, Tingleff 2004, section 3.2), iteratively reweighted. */
export function levenberg(objective: Objective, start: Float64Array, limits: SolverLimits = defaultLimits): LocalMinimum {
  const { p, law, rounding } = objective;
  let theta = start.slice();
  let gradient = new Float64Array(p);
  let nextGradient = new Float64Array(p);
  let next = new Float64Array(p);
  const matrix = new Float64Array(p * p);
  const damped = new Float64Array(p * p);
  const factor = new Float64Array(p * p);
  const step = new Float64Array(p);
  const free = new Uint8Array(p);
  let value = objective.value(theta, gradient);
  objective.curvature(matrix);
  let damping = 1e-3;
  let growth = 2;
  let iteration = 0;
  let converged = false;
  for (; iteration < limits.iterations; iteration++) {
    if (freeParameters(theta, gradient, law, free) === 0 || value <= rounding) {
      converged = true;
      break;
    }
    damped.set(matrix);
    let largest = 0;
    for (let j = 0; j < p; j++) if (free[j] === 1) largest = Math.max(largest, matrix[j * p + j]!);
    for (let j = 0; j < p; j++) damped[j * p + j]! += damping * (matrix[j * p + j]! + 1e-12 * largest) + 1e-300;
    restrict(damped, free, p);
    if (!cholesky(damped, p, factor)) {
      damping = Math.max(damping * growth, 1e-14);
      growth *= 2;
      if (damping > 1e20) break;
      continue;
    }
    for (let j = 0; j < p; j++) step[j] = free[j] === 1 ? -gradient[j]! : 0;
    choleskySolve(factor, p, step, step);
    const size = step.reduce((most, s) => Math.max(most, Math.abs(s)), 0);
    const length = Math.min(1, longestStep / size);
    clipped(theta, step, length, law, next);
    // Fall promised by the quadratic model for the step really taken.
    let promised = 0;
    for (let j = 0; j < p; j++) {
      const s = next[j]! - theta[j]!;
      let row = 0;
      for (let k = 0; k < p; k++) row += matrix[j * p + k]! * (next[k]! - theta[k]!);
      promised -= s * (gradient[j]! + 0.5 * row);
    }
    const tiny = size < 1e-15;
    if (tiny || (promised <= limits.tolerance * 1e-2 * value && damping <= 1)) {
      converged = true;
      break;
    }
    const nextValue = objective.value(next, nextGradient);
    if (nextValue < value) {
      const gain = promised > 0 ? (value - nextValue) / promised : 1;
      [theta, next] = [next, theta];
      [gradient, nextGradient] = [nextGradient, gradient];
      value = nextValue;
      objective.curvature(matrix);
      damping = Math.max(1e-15, damping * Math.max(1 / 3, 1 - (2 * gain - 1) ** 3));
      growth = 2;
    } else {
      damping *= growth;
      growth *= 2;
      // No step, however short, helps: the rest is rounding.
      if (damping > 1e12) {
        converged = true;
        break;
      }
    }
  }
  // Leaves the residuals of the result in the objective.
  value = objective.value(theta, gradient);
  return { theta, value, gradient, converged, iterations: iteration };
}

/**
 * BFGS with the inverse Gauss-Newton matrix as first metric and a line search that asks for a fall and a flattened slope (Wolfe); within
 * rounding of the objective the slope alone decides (Hager and Zhang 2005, approximate Wolfe conditions).
 */
export function bfgs(objective: Objective, start: Float64Array, limits: SolverLimits = defaultLimits): LocalMinimum {
  const { p, law, rounding } = objective;
  let theta = start.slice();
  let gradient = new Float64Array(p);
  let next = new Float64Array(p);
  let nextGradient = new Float64Array(p);
  const metric = new Float64Array(p * p);
  const direction = new Float64Array(p);
  const moved = new Float64Array(p);
  const change = new Float64Array(p);
  const product = new Float64Array(p);
  const free = new Uint8Array(p);
  const before = new Uint8Array(p).fill(2);
  let value = objective.value(theta, gradient);
  let fresh = true;
  let iteration = 0;
  let converged = false;
  let failures = 0;
  for (; iteration < limits.iterations; iteration++) {
    if (freeParameters(theta, gradient, law, free) === 0 || value <= rounding) {
      converged = true;
      break;
    }
    if (fresh || free.some((flag, j) => flag !== before[j])) {
      // The curvature belongs to the last evaluated point, which need not be this one.
      value = objective.value(theta, gradient);
      gaussNewtonMetric(objective, free, metric);
      before.set(free);
      fresh = false;
    }
    let slope = 0;
    let size = 0;
    for (let j = 0; j < p; j++) {
      let sum = 0;
      if (free[j] === 1) for (let k = 0; k < p; k++) if (free[k] === 1) sum -= metric[j * p + k]! * gradient[k]!;
      direction[j] = sum;
      slope += sum * gradient[j]!;
      size = Math.max(size, Math.abs(sum));
    }
    // -slope / 2 is the fall that the metric promises.
    if (-slope <= limits.tolerance * Math.abs(value)) {
      converged = true;
      break;
    }
    const longest = longestStep / size;
    const found = lineSearch(objective, theta, direction, value, slope, Math.min(1, longest), longest, next, nextGradient);
    if (found === null) {
      // A stale metric gets one more chance; rounding does not.
      if (failures++ > 0) {
        converged = -slope <= 1e-9 * Math.abs(value);
        break;
      }
      fresh = true;
      continue;
    }
    failures = 0;
    let curvature = 0;
    for (let j = 0; j < p; j++) {
      moved[j] = next[j]! - theta[j]!;
      change[j] = nextGradient[j]! - gradient[j]!;
      curvature += moved[j]! * change[j]!;
    }
    [theta, next] = [next, theta];
    [gradient, nextGradient] = [nextGradient, gradient];
    value = found;
    if (curvature > 1e-14 * Math.abs(slope)) update(metric, moved, change, curvature, product, p);
  }
  value = objective.value(theta, gradient);
  return { theta, value, gradient, converged, iterations: iteration };
}

/** H <- (I - s y^T / sy) H (I - y s^T / sy) + s s^T / sy. */
function update(metric: Float64Array, s: Float64Array, y: Float64Array, sy: number, product: Float64Array, p: number): void {
  let yHy = 0;
  for (let j = 0; j < p; j++) {
    let sum = 0;
    for (let k = 0; k < p; k++) sum += metric[j * p + k]! * y[k]!;
    product[j] = sum;
    yHy += sum * y[j]!;
  }
  const outer = (1 + yHy / sy) / sy;
  for (let j = 0; j < p; j++) {
    for (let k = 0; k < p; k++) metric[j * p + k]! += outer * s[j]! * s[k]! - (product[j]! * s[k]! + s[j]! * product[k]!) / sy;
  }
}

function gaussNewtonMetric(objective: Objective, free: Uint8Array, metric: Float64Array): void {
  const { p } = objective;
  const matrix = new Float64Array(p * p);
  objective.curvature(matrix);
  let largest = 0;
  for (let j = 0; j < p; j++) if (free[j] === 1) largest = Math.max(largest, matrix[j * p + j]!);
  // Far from the optimum a direction the data hardly feel must not dominate the first step.
  for (let j = 0; j < p; j++) matrix[j * p + j]! += 1e-7 * matrix[j * p + j]! + 1e-10 * largest + 1e-300;
  restrict(matrix, free, p);
  const found = inverse(matrix, p);
  metric.fill(0);
  for (let j = 0; j < p; j++) {
    if (found === null) metric[j * p + j] = 1 / Math.max(matrix[j * p + j]!, 1e-8 * largest);
    else for (let k = 0; k < p; k++) metric[j * p + k] = found[j * p + k]!;
  }
}

/** Fills `next` and `nextGradient` and returns the value there; null where no step helps. */
function lineSearch(
  objective: Objective, theta: Float64Array, direction: Float64Array, value: number, slope: number, first: number, longest: number,
  next: Float64Array, nextGradient: Float64Array,
): number | null {
  const noise = 2e-15 * Math.abs(value);
  let [low, lowValue, lowSlope] = [0, value, slope];
  let [high, highValue, highSlope] = [Infinity, NaN, NaN];
  let length = first;
  for (let trial = 0; trial < 40; trial++) {
    clipped(theta, direction, length, objective.law, next);
    const found = objective.value(next, nextGradient);
    // The slope along the path, which stops at the bounds.
    let here = 0;
    for (let j = 0; j < theta.length; j++) {
      const at = next[j]!;
      if (at > objective.law.lower[j]! && at < objective.law.upper[j]!) here += nextGradient[j]! * direction[j]!;
    }
    const falls = found <= value + 1e-4 * length * slope + noise;
    if (!falls || !Number.isFinite(here)) [high, highValue, highSlope] = [length, found, here];
    else if (Math.abs(here) <= 0.9 * Math.abs(slope) || length >= longest) return found;
    else if (here < 0) [low, lowValue, lowSlope] = [length, found, here];
    else [high, highValue, highSlope] = [length, found, here];
    if (high === Infinity) length = Math.min(longest, 3 * length);
    else {
      length = between(low, lowValue, lowSlope, high, highValue, highSlope);
      if (high - low <= 1e-14 * high) return null;
    }
  }
  return null;
}

/** Minimum of the cubic through both ends, kept off the ends; the middle where there is none. */
function between(low: number, lowValue: number, lowSlope: number, high: number, highValue: number, highSlope: number): number {
  const width = high - low;
  const middle = low + width / 2;
  if (!Number.isFinite(highValue) || !Number.isFinite(highSlope)) return low + 0.1 * width;
  const a = lowSlope + highSlope - (3 * (highValue - lowValue)) / width;
  const inside = a * a - lowSlope * highSlope;
  if (!(inside >= 0)) return middle;
  const root = Math.sqrt(inside);
  const cubic = high - (width * (highSlope + root - a)) / (highSlope - lowSlope + 2 * root);
  return cubic > low + 0.05 * width && cubic < high - 0.05 * width ? cubic : middle;
}
