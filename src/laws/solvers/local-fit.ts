/** From one start to one local optimum, for each loss. */
import { bfgs } from "./bfgs.js";
import { defaultLimits, isOnBound, isOutside, pointsOut, type LocalMinimum, type SolverLimits } from "./box.js";
import { at } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { levenberg } from "./levenberg.js";
import { solve } from "../../base/linear-algebra.js";
import { isSquared, type Loss } from "./loss.js";
import { Objective, type Penalty } from "./objective.js";
import type { BoundLaw } from "../forms/types.js";
import { largestSize } from "../../base/vectors.js";

/** What is fitted: a law on its points and the loss of their residuals. */
export interface Problem {
  readonly bound: BoundLaw;
  /** ln of the observed losses. */
  readonly logLoss: Float64Array;
  /** How often each point counts: 1, or its number of draws in a bootstrap sample. */
  readonly weights: Float64Array;
  readonly loss: Loss;
}

/** The local optimum reached from one start. */
export interface LocalFit {
  /** Internal parameters. */
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

/** The lowering of Huber's threshold ends at this fraction of the typical residual. */
const ladRatio = 1e-7;

/** Fits from one start, with at most one penalty, by the minimiser that suits the loss. */
export function fitFrom(
  problem: Problem,
  start: Float64Array,
  penalty: Penalty | null = null,
  limits: SolverLimits = defaultLimits,
): LocalFit {
  const { bound, logLoss, weights, loss } = problem;
  const objective = new Objective(bound, logLoss, weights, loss.name, loss.delta);
  objective.penalty = penalty;
  if (isSquared(loss.name)) return finished(objective, loss, levenberg(objective, start, limits));
  const near = approached(objective, start, limits);
  if (loss.name === "lad") return leastAbsolute(objective, near, limits);
  return finished(objective, loss, bfgs(objective, near, limits));
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

function finished(objective: Objective, loss: Loss, { theta, gradient, value, converged }: LocalMinimum): LocalFit {
  const slopesInside = gradient.filter((slope, j) => !pointsOut(objective.law, theta, j, -slope));
  return {
    theta,
    objective: objective.dataSum(loss.name),
    gradientNorm: largestSize(slopesInside),
    converged: converged && Number.isFinite(value),
    evaluations: objective.evaluations,
  };
}

/** Most thresholds tried on the way to least absolute deviations; each is a fifth of the one before. */
const ladSteps = 14;

/**
 * Least absolute deviations: Huber's loss with its threshold lowered step by step, each minimum the start of the next;
 * then, because the optimum passes through as many points as there are free parameters, the step that makes those
 * residuals zero.
 */
function leastAbsolute(objective: Objective, start: Float64Array, limits: SolverLimits): LocalFit {
  objective.delta = 1;
  objective.value(start, new Float64Array(objective.p));
  let floor = Math.max(medianResidual(objective), 1e-12);
  objective.delta = Math.max(floor, 1e-14);
  let minimum = bfgs(objective, start, limits);
  // The start may have been far away: thresholds are relative to the residuals of the first fit.
  floor = Math.max(Math.min(floor, medianResidual(objective)), 1e-13);
  for (let step = 1; step < ladSteps && objective.delta > floor * ladRatio; step++) {
    objective.delta = Math.max(floor * 0.2 ** step, 1e-14);
    minimum = bfgs(objective, minimum.theta, limits);
  }
  const smooth = finished(objective, { name: "lad", delta: 0 }, minimum);
  if (objective.penalty !== null) return smooth;
  const free = [...minimum.theta.keys()].filter((j) => !isOnBound(objective.law, minimum.theta, j));
  const corner = throughPoints(objective, minimum.theta, free);
  return corner === null || !(corner.objective <= smooth.objective) ? smooth : { ...smooth, ...corner };
}

/** Median size of the residuals of points that count. */
function medianResidual({ residuals, weights }: Objective): number {
  return median(residuals.map(Math.abs).filter((_, i) => at(weights, i) > 0));
}

type Corner = Pick<LocalFit, "theta" | "objective" | "gradientNorm" | "converged">;

/**
 * Newton's method on "these residuals are zero" for the points closest to the curve, one per free parameter. The
 * optimum is certain where the slopes of all other points are balanced by multipliers of at most each such point's
 * weight (Koenker 2005, theorem 2.1); what clipped multipliers leave over is the gradient norm.
 */
function throughPoints(objective: Objective, from: Float64Array, free: readonly number[]): Corner | null {
  const theta = from.slice();
  objective.value(theta, new Float64Array(theta.length));
  const order = closestFirst(objective);
  const on = order.slice(0, free.length);
  if (on.length < free.length || !zeroResiduals(objective, theta, on, free)) return null;
  const gradientNorm = unbalancedSlope(objective, on, order.slice(free.length), free);
  if (gradientNorm === null) return null;
  const converged = gradientNorm <= 1e-9 * objective.law.n;
  return { theta, objective: objective.dataSum("lad"), gradientNorm, converged };
}

/** Points that count, by the size of their residual. */
function closestFirst({ residuals, weights }: Objective): number[] {
  const counting = [...residuals.keys()].filter((i) => at(weights, i) > 0);
  return counting.sort((a, b) => Math.abs(at(residuals, a)) - Math.abs(at(residuals, b)));
}

/** Moves `theta` to where the residuals of the points `on` are zero; false where that is nowhere in the box. */
function zeroResiduals(
  objective: Objective,
  theta: Float64Array,
  on: readonly number[],
  free: readonly number[],
): boolean {
  const gradient = new Float64Array(theta.length);
  for (let iteration = 0; iteration < 4; iteration++) {
    const slopes = objective.slopesOfPoints();
    const system = Float64Array.from(on.flatMap((i) => free.map((j) => at(at(slopes, j), i))));
    const aim = Float64Array.from(on, (i) => -at(objective.residuals, i));
    const step = solve(system, free.length, aim);
    if (step === null) return false;
    for (const [column, j] of free.entries()) theta[j] = at(theta, j) + at(step, column);
    if (free.some((j) => isOutside(objective.law, theta, j))) return false;
    objective.value(theta, gradient);
  }
  return true;
}

/**
 * Largest gradient component that multipliers of at most their weights on the points `on` cannot cancel; null if the
 * system is singular.
 */
function unbalancedSlope(
  objective: Objective,
  on: readonly number[],
  off: readonly number[],
  free: readonly number[],
): number | null {
  const { weights, residuals } = objective;
  const allSlopes = objective.slopesOfPoints();
  const jacobian = free.map((j) => at(allSlopes, j));
  const slopes = jacobian.map((own) =>
    off.reduce((sum, i) => sum + at(weights, i) * side(at(residuals, i)) * at(own, i), 0),
  );
  const transposed = Float64Array.from(jacobian.flatMap((own) => on.map((i) => at(own, i))));
  const multipliers = solve(
    transposed,
    free.length,
    Float64Array.from(slopes, (slope) => -slope),
  );
  if (multipliers === null) return null;
  const clippedMultipliers = on.map((i, row) => {
    const limit = at(weights, i);
    return Math.min(limit, Math.max(-limit, at(multipliers, row)));
  });
  const unbalanced = jacobian.map((own, column) =>
    on.reduce((sum, i, row) => sum + at(clippedMultipliers, row) * at(own, i), at(slopes, column)),
  );
  return unbalanced.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

/** The sign of a residual; one that is only rounding has none. */
const side = (residual: number): number => (Math.abs(residual) <= 1e-14 ? 0 : Math.sign(residual));

/** The middle value, or the mean of both middle ones; NaN of no values. */
export function median(values: ArrayLike<number>): number {
  if (values.length === 0) return NaN;
  const ascending = Float64Array.from(values).sort();
  const half = ascending.length >> 1;
  const upper = at(ascending, half);
  return ascending.length % 2 === 1 ? upper : (at(ascending, half - 1) + upper) / 2;
}
