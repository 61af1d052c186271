/** BFGS over a box, for Huber's loss. */
import {
  clipped,
  defaultLimits,
  freeParameters,
  longestStep,
  restrict,
  type LocalMinimum,
  type SolverLimits,
} from "./box.js";
import { inverse } from "../../base/linear-algebra.js";
import type { Objective } from "./objective.js";

/**
 * BFGS with the inverse Gauss-Newton matrix as first metric and a line search that asks for a fall and a flattened
 * slope (Wolfe); within rounding of the objective the slope alone decides (Hager and Zhang 2005, approximate Wolfe
 * conditions). A step ends at the first bound it meets; that parameter is then held, and let go once the others have
 * nearly settled and its gradient points inwards.
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
  const wanted = new Uint8Array(p);
  let value = objective.value(theta, gradient);
  freeParameters(theta, gradient, law, free);
  let fresh = true;
  let iteration = 0;
  let converged = false;
  let failures = 0;
  for (; iteration < limits.iterations; iteration++) {
    if (value <= rounding) {
      converged = true;
      break;
    }
    if (fresh) {
      // The curvature belongs to the last evaluated point, which need not be this one.
      value = objective.value(theta, gradient);
      gaussNewtonMetric(objective, free, metric);
      fresh = false;
    }
    let slope = descent(metric, gradient, free, direction);
    for (let j = 0; j < p; j++) {
      const stuck =
        (theta[j]! <= law.lower[j]! && direction[j]! < 0) || (theta[j]! >= law.upper[j]! && direction[j]! > 0);
      if (free[j] === 0 || !stuck) continue;
      hold(metric, j, p);
      free[j] = 0;
      slope = descent(metric, gradient, free, direction);
      j = -1;
    }
    // -slope / 2 is the fall that the metric promises.
    if (-slope <= Math.max(settled, limits.tolerance) * Math.abs(value)) {
      freeParameters(theta, gradient, law, wanted);
      const released = wanted.some((flag, j) => flag === 1 && free[j] === 0);
      if (released && failures === 0) {
        free.set(wanted);
        fresh = true;
        failures = 1;
        continue;
      }
      if (-slope <= limits.tolerance * Math.abs(value)) {
        converged = true;
        break;
      }
    }
    let longest = Infinity;
    let meets = -1;
    for (let j = 0; j < p; j++) {
      if (direction[j] === 0) continue;
      const room = ((direction[j]! > 0 ? law.upper[j]! : law.lower[j]!) - theta[j]!) / direction[j]!;
      if (room < longest) [longest, meets] = [room, j];
      if (longestStep / Math.abs(direction[j]!) < longest)
        [longest, meets] = [longestStep / Math.abs(direction[j]!), -1];
    }
    const found = lineSearch(
      objective,
      theta,
      direction,
      value,
      slope,
      Math.min(1, longest),
      longest,
      next,
      nextGradient,
    );
    if (found === null) {
      // A stale metric gets one more chance; rounding does not.
      if (failures > 1) {
        converged = -slope <= 1e-9 * Math.abs(value);
        break;
      }
      failures = 2;
      fresh = true;
      continue;
    }
    failures = 0;
    if (meets >= 0) {
      const bound = direction[meets]! > 0 ? law.upper[meets]! : law.lower[meets]!;
      // A hair beside the bound is on it.
      if (Math.abs(next[meets]! - bound) <= 1e-12 * Math.max(1, Math.abs(bound))) next[meets] = bound;
    }
    let curvature = 0;
    for (let j = 0; j < p; j++) {
      moved[j] = next[j]! - theta[j]!;
      // Parameters on a bound take no part until they are let go, and then start from a fresh metric.
      change[j] = free[j] === 1 ? nextGradient[j]! - gradient[j]! : 0;
      curvature += moved[j]! * change[j]!;
    }
    [theta, next] = [next, theta];
    [gradient, nextGradient] = [nextGradient, gradient];
    value = found;
    if (curvature > 1e-14 * Math.abs(slope)) update(metric, moved, change, curvature, product, p);
    if (meets >= 0 && (theta[meets]! <= law.lower[meets]! || theta[meets]! >= law.upper[meets]!)) {
      hold(metric, meets, p);
      free[meets] = 0;
    }
  }
  value = objective.value(theta, gradient);
  return { theta, value, gradient, converged, iterations: iteration };
}

/** Part of the objective that a step may still promise when held parameters are looked at again. */
const settled = 1e-2;

/** Fills `direction` with -H g over the free parameters and returns its slope. */
function descent(metric: Float64Array, gradient: Float64Array, free: Uint8Array, direction: Float64Array): number {
  const p = gradient.length;
  let slope = 0;
  for (let j = 0; j < p; j++) {
    let sum = 0;
    if (free[j] === 1) for (let k = 0; k < p; k++) if (free[k] === 1) sum -= metric[j * p + k]! * gradient[k]!;
    direction[j] = sum;
    slope += sum * gradient[j]!;
  }
  return slope;
}

/** The inverse of the matrix without row and column `held`, from the inverse with it. */
function hold(metric: Float64Array, held: number, p: number): void {
  const pivot = metric[held * p + held]!;
  for (let j = 0; j < p; j++) {
    if (j === held || !(pivot > 0)) continue;
    const factor = metric[j * p + held]! / pivot;
    for (let k = 0; k < p; k++) if (k !== held) metric[j * p + k]! -= factor * metric[held * p + k]!;
  }
  for (let j = 0; j < p; j++) metric[j * p + held] = metric[held * p + j] = 0;
}

/** H <- (I - s y^T / sy) H (I - y s^T / sy) + s s^T / sy. */
function update(
  metric: Float64Array,
  s: Float64Array,
  y: Float64Array,
  sy: number,
  product: Float64Array,
  p: number,
): void {
  let yHy = 0;
  for (let j = 0; j < p; j++) {
    let sum = 0;
    for (let k = 0; k < p; k++) sum += metric[j * p + k]! * y[k]!;
    product[j] = sum;
    yHy += sum * y[j]!;
  }
  const outer = (1 + yHy / sy) / sy;
  for (let j = 0; j < p; j++) {
    for (let k = 0; k < p; k++)
      metric[j * p + k]! += outer * s[j]! * s[k]! - (product[j]! * s[k]! + s[j]! * product[k]!) / sy;
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
  objective: Objective,
  theta: Float64Array,
  direction: Float64Array,
  value: number,
  slope: number,
  first: number,
  longest: number,
  next: Float64Array,
  nextGradient: Float64Array,
): number | null {
  const noise = 2e-15 * Math.abs(value);
  let [low, lowValue, lowSlope] = [0, value, slope];
  let [high, highValue, highSlope] = [Infinity, NaN, NaN];
  let length = first;
  for (let trial = 0; trial < 40; trial++) {
    clipped(theta, direction, length, objective.law, next);
    const found = objective.value(next, nextGradient);
    let here = 0;
    for (let j = 0; j < theta.length; j++) here += nextGradient[j]! * direction[j]!;
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
function between(
  low: number,
  lowValue: number,
  lowSlope: number,
  high: number,
  highValue: number,
  highSlope: number,
): number {
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
