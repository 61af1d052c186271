/** What the local minimisers share: their result, their limits, and the box of the parameters. */
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
export const longestStep = 3;

/** Parameters that may move: not those on a bound with the downhill direction pointing out. */
export function freeParameters(
  theta: Float64Array,
  gradient: Float64Array,
  { lower, upper }: Objective["law"],
  free: Uint8Array,
): number {
  let count = 0;
  for (let j = 0; j < theta.length; j++) {
    const held = (theta[j]! <= lower[j]! && gradient[j]! >= 0) || (theta[j]! >= upper[j]! && gradient[j]! <= 0);
    free[j] = held ? 0 : 1;
    count += free[j]!;
  }
  return count;
}

export function clipped(
  theta: Float64Array,
  step: Float64Array,
  length: number,
  { lower, upper }: Objective["law"],
  out: Float64Array,
): void {
  for (let j = 0; j < theta.length; j++)
    out[j] = Math.min(upper[j]!, Math.max(lower[j]!, theta[j]! + length * step[j]!));
}

/** Keeps rows and columns of free parameters, unit diagonal elsewhere, so that a solve leaves the others alone. */
export function restrict(matrix: Float64Array, free: Uint8Array, p: number): void {
  for (let j = 0; j < p; j++) {
    if (free[j] === 1) continue;
    for (let k = 0; k < p; k++) matrix[j * p + k] = matrix[k * p + j] = 0;
    matrix[j * p + j] = 1;
  }
}
