/** Levenberg-Marquardt over a box, for sums of squares. */
import {
  clipped,
  defaultLimits,
  freeParameters,
  longestStep,
  restrict,
  roomAhead,
  type Box,
  type LocalMinimum,
  type SolverLimits,
} from "./box.js";
import { cholesky, choleskySolve } from "../../base/linear-algebra.js";
import type { Objective } from "./objective.js";
import { dot, largestSize, zeros, type Matrix } from "../../base/vectors.js";

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
  const model = zeros(p, p);
  const damped = zeros(p, p);
  const step = new Float64Array(p);
  const free = new Uint8Array(p);
  let value = objective.value(theta, gradient);
  objective.curvature(model.rows);
  let damping = 1e-3;
  let growth = 2;
  let iteration = 0;
  let converged = false;
  for (; iteration < limits.iterations; iteration++) {
    if (freeParameters(theta, gradient, law, free) === 0 || value <= rounding) {
      converged = true;
      break;
    }
    damp(model, damping, free, damped);
    if (!boxedStep(damped, gradient, theta, law, free, step)) {
      damping = Math.max(damping * growth, 1e-14);
      growth *= 2;
      if (damping > 1e20) break;
      continue;
    }
    const promised = promisedFall(model, gradient, step);
    if (largestSize(step) < 1e-15 || (promised <= limits.tolerance * 1e-2 * value && damping <= 1)) {
      converged = true;
      break;
    }
    clipped(theta, step, 1, law, next);
    const nextValue = objective.value(next, nextGradient);
    if (nextValue < value) {
      const gain = promised > 0 ? (value - nextValue) / promised : 1;
      [theta, next] = [next, theta];
      [gradient, nextGradient] = [nextGradient, gradient];
      value = nextValue;
      objective.curvature(model.rows);
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

/** Fills `out` with the model, its diagonal made larger by the damping. */
function damp({ values, rows }: Matrix, damping: number, free: Uint8Array, out: Matrix): void {
  out.values.set(values);
  const largest = rows.reduce((most, row, j) => (free[j] === 1 ? Math.max(most, row[j]!) : most), 0);
  for (const [j, row] of out.rows.entries()) row[j]! += damping * (row[j]! + 1e-12 * largest) + 1e-300;
}

/** How much the undamped model g^T s + s^T A s / 2 falls with the step. */
function promisedFall({ rows }: Matrix, gradient: Float64Array, step: Float64Array): number {
  let fall = 0;
  for (const [j, row] of rows.entries()) fall -= step[j]! * (gradient[j]! + 0.5 * dot(row, step));
  return fall;
}

/**
 * Minimises g^T s + s^T A s / 2 with every component inside the box and no longer than `longestStep`, by pinning the
 * component furthest out and solving for the rest until none is. False where A is not positive definite.
 */
function boxedStep(
  { values, rows }: Matrix,
  gradient: Float64Array,
  theta: Float64Array,
  box: Box,
  free: Uint8Array,
  step: Float64Array,
): boolean {
  const p = gradient.length;
  const moving = free.slice();
  const pinned = new Float64Array(p);
  const system = new Float64Array(p * p);
  const factor = new Float64Array(p * p);
  for (let round = 0; round <= p; round++) {
    system.set(values);
    restrict(system, moving);
    if (!cholesky(system, p, factor)) return false;
    for (const [j, row] of rows.entries())
      step[j] = moving[j] === 1 ? rightSide(-gradient[j]!, row, moving, pinned) : 0;
    choleskySolve(factor, p, step, step);
    for (let j = 0; j < p; j++) if (moving[j] === 0) step[j] = pinned[j]!;
    const outside = furthestOut(step, theta, box, moving);
    if (outside === null) return true;
    pinned[outside.index] = outside.limit;
    moving[outside.index] = 0;
  }
  return true;
}

/** Right side of one row's equation: the downhill slope, less what the pinned components contribute. */
function rightSide(downhill: number, row: Float64Array, moving: Uint8Array, pinned: Float64Array): number {
  let right = downhill;
  for (let k = 0; k < row.length; k++) if (moving[k] === 0) right -= row[k]! * pinned[k]!;
  return right;
}

/** The moving component that is furthest beyond what it may be, relative to that, and what it may be; null: none is. */
function furthestOut(
  step: Float64Array,
  theta: Float64Array,
  box: Box,
  moving: Uint8Array,
): { readonly index: number; readonly limit: number } | null {
  let furthest = null;
  let excess = 1;
  for (const [j, length] of step.entries()) {
    if (moving[j] === 0) continue;
    const room = Math.min(longestStep, roomAhead(box, theta, j, length));
    const ratio = Math.abs(length) / Math.max(room, 1e-300);
    if (!(ratio > excess)) continue;
    excess = ratio;
    furthest = { index: j, limit: Math.sign(length) * room };
  }
  return furthest;
}
