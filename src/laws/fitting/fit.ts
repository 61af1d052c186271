/** Fits a law to points: many starts, the best optimum, and how far it can be trusted to be one. */
import { inputError } from "../../base/errors.js";
import { subtract } from "../../base/vectors.js";
import { defaultLimits, isOnBound, type SolverLimits } from "../solvers/box.js";
import { fitFrom, median, type LocalFit, type Problem } from "../solvers/local-fit.js";
import { devianceOf } from "./deviance.js";
import { fisherTail } from "./distributions.js";
import { defaultDelta, isSquared, lossOf, type Loss } from "../solvers/loss.js";
import { meanOf } from "../../base/mean.js";
import { paramsOf, type BoundLaw, type Law, type Params, type Points } from "../forms/types.js";

/**
 * `converged`: a stopping rule was met inside the bounds. `at-bound`: it was met with a parameter on a bound, which the
 * data therefore do not identify. `iteration-limit`: neither; the numbers are the best seen, not an optimum.
 * `no-better-than-constant`: the law describes the losses no better than one number for all of them would.
 */
export type FitStatus = "converged" | "at-bound" | "iteration-limit" | "no-better-than-constant";

/** Where local fits start: `projection`, variable projection; `grid`, every combination of the law's grid. */
export type StartMethod = "projection" | "grid";

/** How a law is fitted. */
export interface FitOptions {
  readonly loss?: Loss;
  /** Variable projection (default), or the law's full grid. */
  readonly starts?: StartMethod;
  /** Further internal starts, for example a known optimum. */
  readonly extraStarts?: readonly Float64Array[];
  readonly limits?: SolverLimits;
}

/** A law fitted to points. */
export interface Fit {
  readonly law: Law;
  readonly loss: Loss;
  readonly bound: BoundLaw;
  /** Internal parameters of the optimum. */
  readonly theta: Float64Array;
  readonly params: Params;
  /** Sum over points of the loss of ln-residuals: Huber's, |r|, or r^2. */
  readonly objective: number;
  readonly status: FitStatus;
  /** Names of parameters on a bound. */
  readonly atBound: readonly string[];
  /** Largest component of the scaled objective's gradient. */
  readonly gradientNorm: number;
  readonly starts: { readonly tried: number; readonly atOptimum: number; readonly share: number };
  readonly evaluations: number;
  /** ln prediction - ln observation, by point. */
  readonly residuals: Float64Array;
}

const defaultLoss: Loss = { name: "huber", delta: defaultDelta };

/** Local fits tried from variable projection. */
export const projectedStarts = 8;

/** What the solvers are given: every point counts once unless weights say otherwise. */
export function problemOf(bound: BoundLaw, points: Points, loss: Loss, weights?: Float64Array): Problem {
  return { bound, logLoss: points.loss.map(Math.log), weights: weights ?? new Float64Array(points.n).fill(1), loss };
}

/** Internal starting values by the method of the options, then the further ones. */
export function startsOf(bound: BoundLaw, options: FitOptions): readonly Float64Array[] {
  const own = options.starts === "grid" ? bound.gridStarts() : bound.projectedStarts(projectedStarts);
  return [...own, ...(options.extraStarts ?? [])];
}

/** The best local fit is continued as far as rounding allows. */
const finalLimits: SolverLimits = { ...defaultLimits, tolerance: 1e-16 };

/** Two optima are one where their objectives agree to this part. */
const sameOptimum = 1e-8;

/**
 * Fits a law on this thread. The points must have passed `checkPoints`. Throws inputError where no start leads to a
 * finite fit.
 */
export function fitLaw(law: Law, points: Points, options: FitOptions = {}): Fit {
  const bound = law.bind(points);
  const problem = problemOf(bound, points, options.loss ?? defaultLoss);
  const localFits = startsOf(bound, options).map((start) => fitFrom(problem, start, null, options.limits));
  return bestOf(problem, points, localFits, options.limits);
}

/**
 * The best of local fits, tried once more from its own end, as a fit. Also used where the starts were run on several
 * threads.
 */
export function bestOf(
  problem: Problem,
  points: Points,
  localFits: readonly LocalFit[],
  limits: SolverLimits = finalLimits,
): Fit {
  const { bound, loss, logLoss } = problem;
  const usable = localFits.filter(({ objective }) => Number.isFinite(objective));
  if (usable.length === 0) {
    const message = `the law ${bound.law.id} is finite at all points from none of ${localFits.length} starts`;
    throw inputError(message, { hint: "look for absurd values and wrong units among the points" });
  }
  const first = usable.reduce((best, next) => (next.objective < best.objective ? next : best));
  const again = fitFrom(problem, first.theta, null, limits);
  const best = again.objective <= first.objective ? { ...again, converged: again.converged || first.converged } : first;
  const close = best.objective * (1 + sameOptimum) + points.n * (loss.name === "lad" ? 1e-14 : 1e-28);
  const atOptimum = localFits.filter(({ objective }) => objective <= close).length;
  const atBound = bound.law.parameters.filter((_, j) => isOnBound(bound, best.theta, j)).map(({ name }) => name);
  const residuals = new Float64Array(points.n);
  bound.evaluate(best.theta, residuals);
  subtract(residuals, residuals, logLoss);
  return {
    law: bound.law,
    loss,
    bound,
    theta: best.theta,
    params: paramsOf(bound.law, bound.natural(best.theta)),
    objective: best.objective,
    status: explainsNothing(problem, best.objective, residuals)
      ? "no-better-than-constant"
      : !best.converged
        ? "iteration-limit"
        : atBound.length > 0
          ? "at-bound"
          : "converged",
    atBound,
    gradientNorm: best.gradientNorm,
    starts: { tried: localFits.length, atOptimum, share: atOptimum / Math.max(1, localFits.length) },
    evaluations: localFits.reduce((sum, { evaluations }) => sum + evaluations, again.evaluations),
    residuals,
  };
}

/** A law is worth something where chance alone would do as well in fewer than one table of so many. */
const chance = 0.05;

/** Whether one number for all losses describes them as well, for its single parameter. */
function explainsNothing({ bound, loss, logLoss }: Problem, objective: number, residuals: Float64Array): boolean {
  const n = residuals.length;
  const p = bound.p;
  if (n <= p || !Number.isFinite(objective)) return false;
  const values = loss.name === "mse-raw" ? logLoss.map(Math.exp) : logLoss;
  const constant = isSquared(loss.name) ? meanOf(values) : median(values);
  const flat = values.reduce((sum, value) => sum + lossOf(loss, Math.abs(value - constant)), 0);
  const more = Math.max(1, p - 1);
  const ratio = isSquared(loss.name)
    ? ((flat - objective) / Math.max(objective, 1e-300)) * ((n - p) / more)
    : devianceOf(loss, objective, residuals, { p, level: 0.9 }).of(flat) / more;
  return fisherTail(ratio, more, n - p) > chance;
}
