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
import { likelihoodRatioQuantile, type NearBound } from "./near-bound.js";
import { isSquared } from "../solvers/loss.js";
import type { RunNoise } from "./run-noise.js";
import type { Fit } from "./fit.js";
import { inverse } from "../../base/linear-algebra.js";
import { fitFrom, type LocalFit, type Problem } from "../solvers/local-fit.js";
import { Objective } from "../solvers/objective.js";
import { zeros } from "../../base/vectors.js";
import type { Functional, Places } from "../forms/types.js";

interface ProfilePoint {
  readonly value: number;
  readonly deviance: number;
}

/** Interval and curve of one quantity, in the quantity's own units. */
export interface Profile {
  readonly level: number;
  /** Ends of the interval; an open end holds the last value that could be reached. */
  readonly low: number;
  readonly high: number;
  /** No value on this side is rejected: the data do not bound the quantity there. */
  readonly lowOpen: boolean;
  readonly highOpen: boolean;
  /**
   * Values that were tried, ascending; the optimum is one of them. Deviances are scaled so that the interval ends where
   * they pass the threshold.
   */
  readonly curve: readonly ProfilePoint[];
  readonly threshold: number;
}

/** How a quantity is profiled. */
export interface ProfileOptions {
  readonly level: number;
  /** Of points that come from runs; else points are taken as independent. */
  readonly noise?: RunNoise | null | undefined;
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
  /** The threshold at a constrained optimum, as a multiple of that of an optimum far from all bounds. */
  readonly calibration: (theta: Float64Array) => number;
}

/** Profile of a quantity in its own coordinate. */
export function profile(
  fit: Fit,
  problem: Problem,
  quantity: Functional,
  { level, noise, limit = 24 }: ProfileOptions,
): Profile {
  const setup = setUp(fit, problem, quantity, { level, noise });
  const below = side(setup, -1, limit);
  const above = side(setup, 1, limit);
  const curve = [...below.points, { value: setup.center, deviance: 0 }, ...above.points].sort(
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

function setUp(fit: Fit, problem: Problem, quantity: Functional, options: ProfileOptions): ProfileSetup {
  const gradient = new Float64Array(problem.bound.p);
  const center = quantity.at(fit.theta, gradient);
  const valley = valleyOf(fit, problem, options);
  const along = valley.along(gradient);
  return { fit, problem, quantity, center, ...along, calibration: calibrationOf(fit, valley, gradient, options.level) };
}

/** The objective about the optimum as a parabola. */
interface Valley {
  /** The parabola's inverse matrix [p * p]: covariances up to a factor. */
  readonly covariance: Float64Array;
  /** The parabola along a quantity with this gradient. */
  readonly along: (gradient: Float64Array) => Pick<ProfileSetup, "curvature" | "reach" | "threshold" | "deviance">;
}

function valleyOf(fit: Fit, problem: Problem, { level, noise }: ProfileOptions): Valley {
  const { bound, logLoss, weights, loss } = problem;
  const { p } = bound;
  const objective = new Objective(bound, logLoss, weights, loss.name, ladSmoothing(fit, loss.delta));
  const matrix = unscaledCurvature(problem, fit.theta, objective);
  const covariance = inverse(matrix, p) ?? inverseDiagonal(matrix, p);
  return {
    covariance,
    along(gradient) {
      const inflation = noise?.along(gradient);
      const { threshold, of: deviance } = devianceOf(loss, fit.objective, fit.residuals, { p, level, inflation });
      const curvature = 1 / Math.max(covarianceOf(covariance, gradient, gradient), 1e-300);
      // Rise of the deviance per unit of unscaled objective.
      const small = 1e-4 * fit.objective + 1e-300;
      const rate = deviance(fit.objective + small) / small;
      // For mse the objective sums r^2, while its curvature is that of r^2 / 2.
      const curvatureFactor = isSquared(loss.name) ? 1 : 0.5;
      const reach = Math.sqrt(threshold / Math.max(rate * curvatureFactor * curvature, 1e-300));
      return { threshold, deviance, curvature, reach: Number.isFinite(reach) && reach > 0 ? reach : 1e-3 };
    },
  };
}

/** A parameter that is known to less than this part of its range has no bound that the points could feel. */
const leastKnown = 1 / 8;

/**
 * How thresholds change near the bound that is closest to a hypothetical truth, in standard errors. Bounds of
 * coefficients are left out: a term that has vanished has no slopes to compare.
 */
function calibrationOf(
  { bound, law }: Fit,
  { covariance, along }: Valley,
  gradient: Float64Array,
  level: number,
): ProfileSetup["calibration"] {
  const { p } = bound;
  const far = likelihoodRatioQuantile(level, { distance: Infinity, correlation: 0 });
  const size = Math.sqrt(covarianceOf(covariance, gradient, gradient));
  const bounded = law.parameters.flatMap(({ role }, j) => {
    const [lower, upper] = [elementAt(bound.lower, j), elementAt(bound.upper, j)];
    const unit = Float64Array.from({ length: p }, (_, k) => (k === j ? 1 : 0));
    const standardError = along(unit).reach / Math.sqrt(far);
    if (role === "coefficient" || !(standardError < leastKnown * (upper - lower))) return [];
    const ownSize = Math.sqrt(covarianceOf(covariance, unit, unit));
    const correlation = Math.min(1, Math.abs(covarianceOf(covariance, unit, gradient)) / (size * ownSize));
    const distance = (theta: Float64Array): number =>
      Math.min(elementAt(theta, j) - lower, upper - elementAt(theta, j)) / standardError;
    return [{ distance, correlation }];
  });
  return (theta) => {
    const nearest = bounded.reduce<NearBound>(
      (best, { distance, correlation }) => {
        const own = distance(theta);
        return own < best.distance ? { distance: own, correlation } : best;
      },
      { distance: Infinity, correlation: 0 },
    );
    return likelihoodRatioQuantile(level, nearest) / far;
  };
}

/** g^T V h for a matrix V [p * p]. */
function covarianceOf(matrix: Float64Array, gradient: Float64Array, other: Float64Array): number {
  const p = gradient.length;
  let sum = 0;
  for (const [j, slope] of gradient.entries())
    for (const [k, otherSlope] of other.entries()) sum += slope * elementAt(matrix, j * p + k) * otherSlope;
  return sum;
}

/** A diagonal matrix of the reciprocals of another's diagonal; 1 for zeros. */
function inverseDiagonal(matrix: Float64Array, p: number): Float64Array {
  return matrix.map((value, i) => (i % (p + 1) === 0 ? 1 / (value || 1) : 0));
}

/** LAD has no curvature of its own; that of Huber's loss at the typical residual stands in for step sizes. */
function ladSmoothing(fit: Fit, delta: number): number {
  if (fit.loss.name !== "lad") return delta;
  return fit.residuals.reduce((sum, r) => sum + Math.abs(r), 0) / fit.residuals.length + 1e-12;
}

/** Gauss-Newton matrix of the unscaled objective (of half the squares for squared losses), a hair of damping added. */
export function unscaledCurvature(problem: Problem, theta: Float64Array, objective: Objective): Float64Array {
  const { p } = problem.bound;
  const { values, rows } = zeros(p, p);
  objective.value(theta, new Float64Array(p));
  objective.curvature(rows);
  const largest = rows.reduce((most, row, j) => Math.max(most, elementAt(row, j)), 0);
  return values.map((value, i) => (value + (i % (p + 1) === 0 ? 1e-13 * largest : 0)) / objective.scale);
}

/** One end of an interval. */
interface Side {
  readonly end: number;
  readonly open: boolean;
  readonly points: readonly ProfilePoint[];
}

/** A place on the way to an end: its distance from the optimum, and sqrt(deviance / threshold) there. */
interface Reached {
  readonly distance: number;
  readonly root: number;
}

/**
 * Walks from the optimum until the deviance passes the threshold, then closes in; sqrt(deviance) is nearly linear in
 * the quantity.
 */
function side(
  { fit, problem, quantity, threshold, center, curvature, reach, deviance, calibration }: ProfileSetup,
  sign: 1 | -1,
  limit: number,
): Side {
  const points: ProfilePoint[] = [];
  let inside = { distance: 0, root: 0, theta: fit.theta };
  let outside: Reached | null = null;
  let weight = 10 * curvature;
  let target = reach;
  let aim = 0;
  for (let fits = 0; fits < limit; fits++) {
    const constrained: LocalFit = fitFrom(problem, inside.theta, {
      of: quantity,
      target: center + sign * target,
      weight,
    });
    const value = quantity.at(constrained.theta, null);
    const distance = sign * (value - center);
    const root = Math.sqrt(deviance(constrained.objective) / (threshold * calibration(constrained.theta)));
    if (!Number.isFinite(distance) || !Number.isFinite(root)) break;
    points.push({ value, deviance: root * root * threshold });
    if (Math.abs(root - 1) < 2e-3) return { end: value, open: false, points };
    if (root > 1) outside = { distance, root };
    else if (distance > inside.distance) inside = { distance, root, theta: constrained.theta };
    if (outside === null) {
      // Not moved although pulled: pull harder, and give up where nothing helps.
      const stuck = distance < 0.6 * target;
      if (stuck && weight > 1e7 * curvature) return { end: center + sign * inside.distance, open: true, points };
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
  if (outside === null) return { end: center + sign * inside.distance, open: true, points };
  const part = (1 - inside.root) / (outside.root - inside.root);
  return { end: center + sign * (inside.distance + part * (outside.distance - inside.distance)), open: false, points };
}

/** An interval without its profile. */
export interface Interval {
  readonly level: number;
  readonly low: number;
  readonly high: number;
  readonly lowOpen: boolean;
  readonly highOpen: boolean;
}

/** Interval of the loss predicted at one place, from the curvature at the optimum alone: no further fits. */
export function linearPrediction(fit: Fit, problem: Problem, place: Places, options: ProfileOptions): Interval {
  const { center, reach } = setUp(fit, problem, logPrediction(fit, place), options);
  return {
    level: options.level,
    low: Math.exp(center - reach),
    high: Math.exp(center + reach),
    lowOpen: false,
    highOpen: false,
  };
}

/** Profile of natural parameter number j, in natural units. */
export function profileParameter(fit: Fit, problem: Problem, j: number, options: ProfileOptions): Profile {
  const ownProfile = profile(fit, problem, fit.bound.coordinate(j), options);
  return elementAt(fit.law.parameters, j).role === "coefficient" ? mapped(ownProfile, Math.exp) : ownProfile;
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
        for (let j = 0; j < fit.bound.p; j++) gradient[j] = elementAt(jacobian, j * evaluator.n);
      }
      return elementAt(out, 0);
    },
  };
}

/** The profile with another scale of its quantity. */
function mapped(original: Profile, map: (value: number) => number): Profile {
  return {
    ...original,
    low: map(original.low),
    high: map(original.high),
    curve: original.curve.map(({ value, deviance }) => ({ value: map(value), deviance })),
  };
}
