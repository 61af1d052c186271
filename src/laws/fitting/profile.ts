/**
 * Profile likelihood: how much worse the best fit gets when one quantity (a parameter, or a prediction) is held at
 * another value. Its interval is the set of values whose deviance (`deviance.ts`) stays below the threshold; flat
 * valleys and bounds show as open ends, where standard errors would show a number.
 *
 * A quantity is held near a target by a penalty W/2 (g - target)^2; the optimum with the penalty is exactly the
 * constrained optimum for the value of g that it reaches, whatever W is, so W only has to be large enough to move it.
 */
import { at as elementAt } from "../../base/at.js";
import { devianceOf } from "./deviance.js";
import type { Fit } from "./fit.js";
import { inverse } from "../../base/linear-algebra.js";
import { fitFrom, type LocalFit, type Problem } from "../solvers/local-fit.js";
import { Objective } from "../solvers/objective.js";
import type { Functional, Places } from "../forms/types.js";

interface ProfilePoint {
  readonly value: number;
  readonly deviance: number;
}

export interface Profile {
  readonly level: number;
  /** Ends of the interval; an open end holds the last value that could be reached. */
  readonly low: number;
  readonly high: number;
  /** No value on this side is rejected: the data do not bound the quantity there. */
  readonly lowOpen: boolean;
  readonly highOpen: boolean;
  /** Values tried, ascending, the optimum among them. */
  readonly curve: readonly ProfilePoint[];
  readonly threshold: number;
}

interface ProfileOptions {
  readonly level: number;
  /** Fits per side. */
  readonly limit?: number;
}

interface ProfileSetup {
  readonly fit: Fit;
  readonly problem: Problem;
  readonly quantity: Functional;
  readonly threshold: number;
  readonly center: number;
  /** Second derivative of the unscaled objective along the profile. */
  readonly curvature: number;
  /** Distance at which a parabola reaches the threshold. */
  readonly reach: number;
  readonly deviance: (objective: number) => number;
}

/** Profile of a quantity in its own coordinate. */
export function profile(
  fit: Fit,
  problem: Problem,
  quantity: Functional,
  { level, limit = 24 }: ProfileOptions,
): Profile {
  const setup = setUp(fit, problem, quantity, level);
  const below = side(setup, -1, limit);
  const above = side(setup, 1, limit);
  const curve = [...below.tried, { value: setup.center, deviance: 0 }, ...above.tried].sort(
    (a, b) => a.value - b.value,
  );
  return {
    level,
    curve,
    threshold: setup.threshold,
    low: below.end,
    lowOpen: below.open,
    high: above.end,
    highOpen: above.open,
  };
}

function setUp(fit: Fit, problem: Problem, quantity: Functional, level: number): ProfileSetup {
  const { bound, logLoss, weights, loss } = problem;
  const { p } = bound;
  const { threshold, of: deviance } = devianceOf(loss, fit.objective, fit.residuals, p, level);
  const gradient = new Float64Array(p);
  const center = quantity.at(fit.theta, gradient);
  const matrix = unscaledCurvature(
    problem,
    fit.theta,
    new Objective(bound, logLoss, weights, loss.name, ladSmoothing(fit, loss.delta)),
  );
  const covariance = inverse(matrix, p);
  let variance = 0;
  for (let j = 0; j < p; j++)
    for (let k = 0; k < p; k++)
      variance +=
        gradient[j]! * (covariance?.[j * p + k] ?? (j === k ? 1 / (matrix[j * p + j]! || 1) : 0)) * gradient[k]!;
  const curvature = 1 / Math.max(variance, 1e-300);
  // Rise of the deviance per unit of unscaled objective.
  const small = 1e-4 * fit.objective + 1e-300;
  const rate = deviance(fit.objective + small) / small;
  // Squares are summed whole but differentiated as halves.
  const half = loss.name === "mse" ? 1 : 0.5;
  const reach = Math.sqrt(threshold / Math.max(rate * half * curvature, 1e-300));
  return {
    fit,
    problem,
    quantity,
    threshold,
    center,
    curvature,
    reach: Number.isFinite(reach) && reach > 0 ? reach : 1e-3,
    deviance,
  };
}

/** LAD has no curvature of its own; that of Huber's loss at the typical residual stands in for step sizes. */
function ladSmoothing(fit: Fit, delta: number): number {
  if (fit.loss.name !== "lad") return delta;
  return fit.residuals.reduce((sum, r) => sum + Math.abs(r), 0) / fit.residuals.length + 1e-12;
}

/** Gauss-Newton matrix of the unscaled objective (of half the squares for squared losses), a hair of damping added. */
export function unscaledCurvature(problem: Problem, theta: Float64Array, objective: Objective): Float64Array {
  const { p } = problem.bound;
  const matrix = new Float64Array(p * p);
  objective.value(theta, new Float64Array(p));
  objective.curvature(matrix);
  let largest = 0;
  for (let j = 0; j < p; j++) largest = Math.max(largest, matrix[j * p + j]!);
  return matrix.map((value, at) => (value + (at % (p + 1) === 0 ? 1e-13 * largest : 0)) / objective.scale);
}

interface Side {
  readonly end: number;
  readonly open: boolean;
  readonly tried: readonly ProfilePoint[];
}

/**
 * Walks from the optimum until the deviance passes the threshold, then closes in; sqrt(deviance) is nearly linear in
 * the quantity.
 */
function side(
  { fit, problem, quantity, threshold, center, curvature, reach, deviance }: ProfileSetup,
  sign: 1 | -1,
  limit: number,
): Side {
  const tried: ProfilePoint[] = [];
  let inside = { distance: 0, root: 0, theta: fit.theta };
  let outside: { distance: number; root: number } | null = null;
  let weight = 10 * curvature;
  let target = reach;
  let aim = 0;
  for (let fits = 0; fits < limit; fits++) {
    const held: LocalFit = fitFrom(problem, inside.theta, { of: quantity, target: center + sign * target, weight });
    const value = quantity.at(held.theta, null);
    const distance = sign * (value - center);
    const root = Math.sqrt(deviance(held.objective) / threshold);
    if (!Number.isFinite(distance) || !Number.isFinite(root)) break;
    tried.push({ value, deviance: root * root * threshold });
    if (Math.abs(root - 1) < 2e-3) return { end: value, open: false, tried };
    if (root > 1) outside = { distance, root };
    else if (distance > inside.distance) inside = { distance, root, theta: held.theta };
    if (outside === null) {
      // Not moved although pulled: pull harder, and give up where nothing helps.
      const stuck = distance < 0.6 * target;
      if (stuck && weight > 1e7 * curvature) return { end: center + sign * inside.distance, open: true, tried };
      if (stuck) weight *= 100;
      else target *= Math.min(3, 1.05 / Math.max(root, 0.2));
    } else {
      const width = outside.distance - inside.distance;
      const part = (1 - inside.root) / (outside.root - inside.root);
      // A penalised optimum falls short of its target; the next one will by about as much.
      const shortfall = Math.max(0, target - distance);
      if (weight < 1000 * curvature) weight = 1000 * curvature;
      else aim = shortfall;
      target = inside.distance + width * Math.min(0.95, Math.max(0.05, part)) + aim;
      if (width < 1e-4 * outside.distance) break;
    }
  }
  if (outside === null) return { end: center + sign * inside.distance, open: true, tried };
  const part = (1 - inside.root) / (outside.root - inside.root);
  return { end: center + sign * (inside.distance + part * (outside.distance - inside.distance)), open: false, tried };
}

/** Profile of natural parameter number j, in natural units. */
export function profileParameter(fit: Fit, problem: Problem, j: number, options: ProfileOptions): Profile {
  const found = profile(fit, problem, fit.bound.coordinate(j), options);
  return elementAt(fit.law.parameters, j).role === "coefficient" ? mapped(found, Math.exp) : found;
}

/** Profile of the loss predicted at one place. */
export function profilePrediction(fit: Fit, problem: Problem, place: Places, options: ProfileOptions): Profile {
  return mapped(profile(fit, problem, logPrediction(fit, place), options), Math.exp);
}

function logPrediction(fit: Fit, place: Places): Functional {
  const evaluator = fit.bound.at(place);
  const out = new Float64Array(evaluator.n);
  const jacobian = new Float64Array(evaluator.n * fit.bound.p);
  return {
    at(theta, gradient) {
      evaluator.evaluate(theta, out);
      if (gradient !== null) {
        evaluator.jacobian(jacobian);
        for (let j = 0; j < fit.bound.p; j++) gradient[j] = jacobian[j * evaluator.n]!;
      }
      return elementAt(out, 0);
    },
  };
}

function mapped(found: Profile, map: (value: number) => number): Profile {
  return {
    ...found,
    low: map(found.low),
    high: map(found.high),
    curve: found.curve.map(({ value, deviance }) => ({ value: map(value), deviance })),
  };
}
