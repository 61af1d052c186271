/** What the local minimisers share: their result, their limits, and the box of the parameters. */

/** Where a local minimiser ended. */
export interface LocalMinimum {
  readonly theta: Float64Array;
  /** Scaled objective, penalty included. */
  readonly value: number;
  readonly gradient: Float64Array;
  /** A stopping rule was met before the iteration limit. */
  readonly converged: boolean;
  readonly iterations: number;
}

/** When a local minimiser stops. */
export interface SolverLimits {
  readonly iterations: number;
  /** Stop where a full step would lower the objective by less than this part of it. */
  readonly tolerance: number;
}

/** Limits of a fit. */
export const defaultLimits: SolverLimits = { iterations: 500, tolerance: 1e-14 };

/** Longest step of one parameter in one iteration: internal parameters are logarithms and slopes, of order one. */
export const longestStep = 3;

/** Lower and upper bounds of the internal parameters, one per parameter. */
export interface Box {
  readonly lower: Float64Array;
  readonly upper: Float64Array;
}

/** The bound that parameter `j` moves towards with a step in the direction of `step`. */
export function boundAhead({ lower, upper }: Box, j: number, step: number): number {
  return step > 0 ? upper[j]! : lower[j]!;
}

/**
 * How far parameter `j` is from the bound that it moves towards with a step in the direction of `step`; negative where
 * it lies beyond.
 */
export function roomAhead(box: Box, theta: Float64Array, j: number, step: number): number {
  const toUpper = boundAhead(box, j, step) - theta[j]!;
  return step > 0 ? toUpper : -toUpper;
}

/** True where parameter `j` is on a bound and a step in the direction of `step` would leave the box. */
export function pointsOut(box: Box, theta: Float64Array, j: number, step: number): boolean {
  return (step < 0 || step > 0) && roomAhead(box, theta, j, step) <= 0;
}

/** True where parameter `j` is on one of its bounds. */
export function isOnBound(box: Box, theta: Float64Array, j: number): boolean {
  return roomAhead(box, theta, j, -1) <= 0 || roomAhead(box, theta, j, 1) <= 0;
}

/** True where parameter `j` lies beyond one of its bounds. */
export function isOutside(box: Box, theta: Float64Array, j: number): boolean {
  return roomAhead(box, theta, j, -1) < 0 || roomAhead(box, theta, j, 1) < 0;
}

/**
 * Marks in `free` the parameters that may move and returns their number: all but those on a bound whose downhill
 * direction points out, or that have no slope there.
 */
export function freeParameters(theta: Float64Array, gradient: Float64Array, box: Box, free: Uint8Array): number {
  let count = 0;
  for (let j = 0; j < theta.length; j++) {
    const slope = gradient[j]!;
    const isFree = slope === 0 ? !isOnBound(box, theta, j) : !pointsOut(box, theta, j, -slope);
    free[j] = isFree ? 1 : 0;
    if (isFree) count += 1;
  }
  return count;
}

/** Writes `theta + length * step` into `out`, moved into the box. */
export function clipped(
  theta: Float64Array,
  step: Float64Array,
  length: number,
  { lower, upper }: Box,
  out: Float64Array,
): void {
  for (let j = 0; j < theta.length; j++) {
    const aim = theta[j]! + length * step[j]!;
    out[j] = Math.min(upper[j]!, Math.max(lower[j]!, aim));
  }
}

/** Keeps rows and columns of free parameters, unit diagonal elsewhere, so that a solve leaves the others alone. */
export function restrict(matrix: Float64Array, free: Uint8Array): void {
  const p = free.length;
  for (const [j, flag] of free.entries()) {
    if (flag === 1) continue;
    for (let k = 0; k < p; k++) matrix[j * p + k] = matrix[k * p + j] = 0;
    matrix[j * p + j] = 1;
  }
}
