/** From one start to one local optimum, for each loss. */
import { bfgs } from "./bfgs.js";
import { defaultLimits, type LocalMinimum, type SolverLimits } from "./box.js";
import { meanOf } from "../../base/mean.js";
import { levenberg } from "./levenberg.js";
import { solve } from "../../base/linear-algebra.js";
import type { Loss } from "./loss.js";
import { Objective, type Penalty } from "./objective.js";
import type { BoundLaw } from "../forms/types.js";

export interface Problem {
  readonly bound: BoundLaw;
  readonly logLoss: Float64Array;
  /** How often each point counts: 1, or its number of draws in a bootstrap sample. */
  readonly weights: Float64Array;
  readonly loss: Loss;
}

export interface LocalFit {
  readonly theta: Float64Array;
  /** The objective as reported: sum of w times Huber's loss, |r|, or r^2. */
  readonly objective: number;
  /**
   * Largest component of the gradient of the scaled objective (Huber: divided by delta) that a bound does not hold
   * back.
   */
  readonly gradientNorm: number;
  readonly converged: boolean;
  readonly evaluations: number;
}

/** LAD is Huber's loss with a threshold this much smaller than the typical residual. */
const ladThreshold = 1e-7;

export function fitFrom(
  problem: Problem,
  start: Float64Array,
  penalty: Penalty | null = null,
  limits: SolverLimits = defaultLimits,
): LocalFit {
  const { bound, logLoss, weights, loss } = problem;
  const objective = new Objective(bound, logLoss, weights, loss.name, loss.delta);
  objective.penalty = penalty;
  if (loss.name === "mse") {
    const found = levenberg(objective, start, limits);
    return finished(objective, loss, found, found.converged);
  }
  const near = approached(objective, start, limits);
  if (loss.name === "lad") return leastAbsolute(objective, near, limits);
  const found = bfgs(objective, near, limits);
  return finished(objective, loss, found, found.converged);
}

/** Residuals of ln L that are larger than this on average belong to a start far from any fit. */
const farResidual = 0.1;

/**
 * From far away a small threshold makes the objective a narrow bent valley, along which BFGS takes a hundred steps;
 * squares for all but gross residuals lead to its bottom in a few.
 */
function approached(objective: Objective, start: Float64Array, limits: SolverLimits): Float64Array {
  const { delta } = objective;
  if (delta >= farResidual) return start;
  objective.value(start, new Float64Array(start.length));
  if (meanOf(objective.residuals.map(Math.abs)) <= farResidual) return start;
  objective.delta = farResidual;
  const { theta } = levenberg(objective, start, { iterations: Math.min(200, limits.iterations), tolerance: 1e-3 });
  objective.delta = delta;
  return theta;
}

function finished(objective: Objective, loss: Loss, found: LocalMinimum, converged: boolean): LocalFit {
  const { theta, gradient } = found;
  const { lower, upper } = objective.law;
  let norm = 0;
  for (let j = 0; j < theta.length; j++) {
    const held = (theta[j]! <= lower[j]! && gradient[j]! > 0) || (theta[j]! >= upper[j]! && gradient[j]! < 0);
    if (!held) norm = Math.max(norm, Math.abs(gradient[j]!));
  }
  return {
    theta,
    objective: objective.dataSum(loss.name),
    gradientNorm: norm,
    converged: converged && Number.isFinite(found.value),
    evaluations: objective.evaluations,
  };
}

/**
 * Least absolute deviations: Huber's loss with its threshold lowered step by step, each minimum the start of the next;
 * then, because the optimum passes through as many points as there are free parameters, the step that makes those
 * residuals zero.
 */
function leastAbsolute(objective: Objective, start: Float64Array, limits: SolverLimits): LocalFit {
  const { p, law, weights } = objective;
  const gradient = new Float64Array(p);
  objective.delta = 1;
  objective.value(start, gradient);
  const typical = median(objective.residuals.map(Math.abs).filter((_, i) => weights[i]! > 0));
  let found: LocalMinimum | null = null;
  let floor = Math.max(typical, 1e-12);
  for (let step = 0; step < 14; step++) {
    objective.delta = Math.max(floor * 0.2 ** step, 1e-14);
    found = bfgs(objective, found?.theta ?? start, limits);
    if (step === 0) {
      // The start may have been far away: thresholds are relative to the residuals of the first fit.
      floor = Math.max(
        Math.min(floor, median(objective.residuals.map(Math.abs).filter((_, i) => weights[i]! > 0))),
        1e-13,
      );
    }
    if (objective.delta <= floor * ladThreshold) break;
  }
  const smooth = finished(objective, { name: "lad", delta: 0 }, found!, found!.converged);
  const free = Array.from({ length: p }, (_, j) => j).filter(
    (j) => found!.theta[j]! > law.lower[j]! && found!.theta[j]! < law.upper[j]!,
  );
  if (objective.penalty !== null) return smooth;
  const corner = throughPoints(objective, found!.theta, free);
  return corner === null || !(corner.objective <= smooth.objective) ? smooth : { ...smooth, ...corner };
}

type Corner = Pick<LocalFit, "theta" | "objective" | "gradientNorm" | "converged">;

/**
 * Newton's method on "these residuals are zero" for the points closest to the curve, one per free parameter. The
 * optimum is certain where the slopes of all other points are balanced by multipliers of at most each such point's
 * weight (Koenker 2005, theorem 2.1); what clipped multipliers leave over is the gradient norm.
 */
function throughPoints(objective: Objective, from: Float64Array, free: readonly number[]): Corner | null {
  const { law, weights, residuals } = objective;
  const n = law.n;
  const k = free.length;
  const gradient = new Float64Array(from.length);
  const theta = from.slice();
  objective.value(theta, gradient);
  const order = Array.from({ length: n }, (_, i) => i).filter((i) => weights[i]! > 0);
  order.sort((a, b) => Math.abs(residuals[a]!) - Math.abs(residuals[b]!));
  const on = order.slice(0, k);
  const off = order.slice(k);
  if (on.length < k) return null;
  const matrix = new Float64Array(k * k);
  let jacobian = objective.slopesOfPoints();
  for (let iteration = 0; iteration < 4; iteration++) {
    on.forEach((i, row) => free.forEach((j, column) => (matrix[row * k + column] = jacobian[j * n + i]!)));
    const step = solve(
      matrix,
      k,
      Float64Array.from(on, (i) => -residuals[i]!),
    );
    if (step === null) return null;
    free.forEach((j, column) => (theta[j]! += step[column]!));
    if (free.some((j) => theta[j]! < law.lower[j]! || theta[j]! > law.upper[j]!)) return null;
    objective.value(theta, gradient);
    jacobian = objective.slopesOfPoints();
  }
  const slopes = Float64Array.from(free, (j) =>
    off.reduce((sum, i) => sum + weights[i]! * side(residuals[i]!) * jacobian[j * n + i]!, 0),
  );
  const transposed = new Float64Array(k * k);
  on.forEach((i, row) => free.forEach((j, column) => (transposed[column * k + row] = jacobian[j * n + i]!)));
  const multipliers = solve(
    transposed,
    k,
    slopes.map((slope) => -slope),
  );
  if (multipliers === null) return null;
  const left = free.map((j, column) =>
    on.reduce((sum, i, row) => {
      const limit = weights[i]!;
      return sum + Math.min(limit, Math.max(-limit, multipliers[row]!)) * jacobian[j * n + i]!;
    }, slopes[column]!),
  );
  const gradientNorm = left.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return { theta, objective: objective.dataSum("lad"), gradientNorm, converged: gradientNorm <= 1e-9 * n };
}

/** The sign of a residual; one that is only rounding has none. */
const side = (residual: number): number => (Math.abs(residual) <= 1e-14 ? 0 : Math.sign(residual));

export function median(values: ArrayLike<number>): number {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  if (sorted.length === 0) return NaN;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}
