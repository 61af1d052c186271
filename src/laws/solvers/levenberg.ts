/** Levenberg-Marquardt over a box, for sums of squares. */
import { defaultLimits, freeParameters, longestStep, restrict, type LocalMinimum, type SolverLimits } from "./box.js";
import { cholesky, choleskySolve } from "../../base/linear-algebra.js";
import type { Objective } from "./objective.js";

/**
 * Levenberg-Marquardt with Marquardt's scaling and Nielsen's damping (Madsen, Nielsen, Tingleff 2004, section 3.2), on
 * the reweighted squares of `Objective.curvature`. The quadratic model is minimised inside the box, so that a parameter
 * can reach its bound in one step.
 */
export function levenberg(
  objective: Objective,
  start: Float64Array,
  limits: SolverLimits = defaultLimits,
): LocalMinimum {
  const { p, law, rounding } = objective;
  let theta = start.slice();
  let gradient = new Float64Array(p);
  let nextGradient = new Float64Array(p);
  let next = new Float64Array(p);
  const matrix = new Float64Array(p * p);
  const damped = new Float64Array(p * p);
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
    if (!boxedStep(damped, gradient, theta, law, free, step)) {
      damping = Math.max(damping * growth, 1e-14);
      growth *= 2;
      if (damping > 1e20) break;
      continue;
    }
    // Fall promised by the undamped model.
    let promised = 0;
    let size = 0;
    for (let j = 0; j < p; j++) {
      let row = 0;
      for (let k = 0; k < p; k++) row += matrix[j * p + k]! * step[k]!;
      promised -= step[j]! * (gradient[j]! + 0.5 * row);
      size = Math.max(size, Math.abs(step[j]!));
      next[j] = Math.min(law.upper[j]!, Math.max(law.lower[j]!, theta[j]! + step[j]!));
    }
    if (size < 1e-15 || (promised <= limits.tolerance * 1e-2 * value && damping <= 1)) {
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
 * Minimises g^T s + s^T A s / 2 with every component inside the box and no longer than `longestStep`, by pinning the
 * component furthest out and solving for the rest until none is. False where A is not positive definite.
 */
function boxedStep(
  matrix: Float64Array,
  gradient: Float64Array,
  theta: Float64Array,
  { lower, upper }: Objective["law"],
  free: Uint8Array,
  step: Float64Array,
): boolean {
  const p = gradient.length;
  const moving = free.slice();
  const pinned = new Float64Array(p);
  const system = new Float64Array(p * p);
  const factor = new Float64Array(p * p);
  for (let round = 0; round <= p; round++) {
    system.set(matrix);
    restrict(system, moving, p);
    if (!cholesky(system, p, factor)) return false;
    for (let j = 0; j < p; j++) {
      let right = moving[j] === 1 ? -gradient[j]! : 0;
      if (moving[j] === 1) for (let k = 0; k < p; k++) if (moving[k] === 0) right -= matrix[j * p + k]! * pinned[k]!;
      step[j] = right;
    }
    choleskySolve(factor, p, step, step);
    let worst = -1;
    let excess = 1;
    for (let j = 0; j < p; j++) {
      if (moving[j] === 0) {
        step[j] = pinned[j]!;
        continue;
      }
      const room =
        step[j]! < 0 ? Math.min(longestStep, theta[j]! - lower[j]!) : Math.min(longestStep, upper[j]! - theta[j]!);
      const ratio = Math.abs(step[j]!) / Math.max(room, 1e-300);
      if (ratio > excess) {
        excess = ratio;
        worst = j;
        pinned[j] = Math.sign(step[j]!) * room;
      }
    }
    if (worst < 0) return true;
    for (let j = 0; j < p; j++) if (j !== worst && moving[j] === 1) pinned[j] = 0;
    moving[worst] = 0;
  }
  return true;
}
