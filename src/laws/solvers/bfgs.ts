/** BFGS over a box, for Huber's loss. */
import {
  boundAhead,
  clipped,
  defaultLimits,
  freeParameters,
  isOnBound,
  longestStep,
  pointsOut,
  restrict,
  roomAhead,
  type LocalMinimum,
  type SolverLimits,
} from "./box.js";
import { inverse } from "../../base/linear-algebra.js";
import type { Objective } from "./objective.js";
import { addScaled, dot, multiply, subtract, zeros, type Matrix } from "../../base/vectors.js";

/**
 * BFGS with the inverse Gauss-Newton matrix as first metric and a line search that asks for a fall and a flattened
 * slope (Wolfe); within rounding of the objective the slope alone decides (Hager and Zhang 2005, approximate Wolfe
 * conditions). A step ends at the first bound it meets; that parameter is then held, and let go once the others have
 * nearly settled and its gradient points inwards.
 */
export function bfgs(objective: Objective, start: Float64Array, limits: SolverLimits = defaultLimits): LocalMinimum {
  const search = new Search(objective, start);
  let iterations = 0;
  let state: SearchState = "moving";
  while (iterations < limits.iterations) {
    state = search.iterate(limits.tolerance);
    if (state !== "moving") break;
    iterations += 1;
  }
  return search.result(state === "converged", iterations);
}

/** `moving`: go on; `converged`: a stopping rule is met; `stuck`: no step helps, and none of the rules is met. */
type SearchState = "moving" | "converged" | "stuck";

/** Part of the objective that a step may still promise when held parameters are looked at again. */
const settled = 1e-2;

/** One minimisation: where it is, its metric (an inverse Hessian), and which parameters may move. */
class Search {
  private theta: Float64Array;
  private gradient: Float64Array;
  private value: number;
  /** Working memory of the line search: a point and its gradient. */
  private next: Float64Array;
  private nextGradient: Float64Array;
  private readonly rounding: number;
  private readonly metric: Matrix;
  private readonly direction: Float64Array;
  private readonly free: Uint8Array;
  /** Working memory of a step: how far it went, how the gradient changed, and the metric times that change. */
  private readonly moved: Float64Array;
  private readonly change: Float64Array;
  private readonly product: Float64Array;
  /** Why the metric was last made anew; null once a step has been taken with it. */
  private renewed: "released" | "no step" | null = null;
  private isStale = true;

  constructor(
    private readonly objective: Objective,
    start: Float64Array,
  ) {
    const { p, law, rounding } = objective;
    this.rounding = rounding;
    this.theta = start.slice();
    this.gradient = new Float64Array(p);
    this.next = new Float64Array(p);
    this.nextGradient = new Float64Array(p);
    this.metric = zeros(p, p);
    this.direction = new Float64Array(p);
    this.free = new Uint8Array(p);
    this.moved = new Float64Array(p);
    this.change = new Float64Array(p);
    this.product = new Float64Array(p);
    this.value = objective.value(this.theta, this.gradient);
    freeParameters(this.theta, this.gradient, law, this.free);
  }

  iterate(tolerance: number): SearchState {
    if (this.value <= this.rounding) return "converged";
    if (this.isStale) this.renewMetric();
    const slope = this.aim();
    // -slope / 2 is the fall that the metric promises.
    const size = Math.abs(this.value);
    if (-slope <= Math.max(settled, tolerance) * size) {
      if (this.release()) return "moving";
      if (-slope <= tolerance * size) return "converged";
    }
    return this.step(slope) ? "moving" : this.retry(slope);
  }

  /** Leaves the residuals of the result in the objective. */
  result(converged: boolean, iterations: number): LocalMinimum {
    const { theta, gradient } = this;
    return { theta, value: this.objective.value(theta, gradient), gradient, converged, iterations };
  }

  private renewMetric(): void {
    // The curvature belongs to the last evaluated point, which need not be this one.
    this.value = this.objective.value(this.theta, this.gradient);
    gaussNewtonMetric(this.objective, this.free, this.metric.rows);
    this.isStale = false;
  }

  /** Points the direction downhill, without the parameters that would leave the box; returns its slope. */
  private aim(): number {
    const { direction, free, metric, gradient } = this;
    let slope = descent(metric.rows, gradient, free, direction);
    for (;;) {
      const stuck = direction.findIndex(
        (step, j) => free[j] === 1 && pointsOut(this.objective.law, this.theta, j, step),
      );
      if (stuck < 0) return slope;
      this.hold(stuck);
      slope = descent(metric.rows, gradient, free, direction);
    }
  }

  private hold(j: number): void {
    removeParameter(this.metric.rows, j);
    this.free[j] = 0;
  }

  /**
   * Lets held parameters go whose gradient points inwards; false where there are none, or they were let go just now.
   */
  private release(): boolean {
    const { free, theta, gradient, objective } = this;
    if (this.renewed !== null) return false;
    const mayMove = new Uint8Array(free.length);
    freeParameters(theta, gradient, objective.law, mayMove);
    if (!mayMove.some((flag, j) => flag === 1 && free[j] === 0)) return false;
    free.set(mayMove);
    this.isStale = true;
    this.renewed = "released";
    return true;
  }

  /** After a line search without success: a stale metric gets one more chance; rounding does not. */
  private retry(slope: number): SearchState {
    if (this.renewed === "no step") return -slope <= 1e-9 * Math.abs(this.value) ? "converged" : "stuck";
    this.renewed = "no step";
    this.isStale = true;
    return "moving";
  }

  /** Moves along the direction, at most to the first bound; false where no step helps. */
  private step(slope: number): boolean {
    const { objective, free, direction, next, moved, change } = this;
    const { longest, meets } = this.room();
    const value = this.lineSearch(slope, longest);
    if (value === null) return false;
    this.renewed = null;
    if (meets !== null) {
      const bound = boundAhead(objective.law, meets, direction[meets]!);
      // A hair beside the bound is on it.
      if (Math.abs(next[meets]! - bound) <= 1e-12 * Math.max(1, Math.abs(bound))) next[meets] = bound;
    }
    subtract(moved, next, this.theta);
    subtract(change, this.nextGradient, this.gradient);
    // Parameters on a bound take no part until they are let go, and then start from a fresh metric.
    for (let j = 0; j < free.length; j++) if (free[j] === 0) change[j] = 0;
    [this.theta, this.next] = [this.next, this.theta];
    [this.gradient, this.nextGradient] = [this.nextGradient, this.gradient];
    this.value = value;
    const curvature = dot(moved, change);
    if (curvature > 1e-14 * Math.abs(slope)) update(this.metric.rows, moved, change, curvature, this.product);
    if (meets !== null && isOnBound(objective.law, this.theta, meets)) this.hold(meets);
    return true;
  }

  /** How long a step may be, in lengths of the direction, and which parameter would meet its bound there. */
  private room(): { readonly longest: number; readonly meets: number | null } {
    const { theta, direction, objective } = this;
    let longest = Infinity;
    let meets: number | null = null;
    for (let j = 0; j < direction.length; j++) {
      const step = direction[j]!;
      if (step === 0) continue;
      const toBound = roomAhead(objective.law, theta, j, step) / Math.abs(step);
      if (toBound < longest) [longest, meets] = [toBound, j];
      const toLimit = longestStep / Math.abs(step);
      if (toLimit < longest) [longest, meets] = [toLimit, null];
    }
    return { longest, meets };
  }

  /** Fills `next` and `nextGradient` and returns the value there; null where no step helps. */
  private lineSearch(slope: number, longest: number): number | null {
    const { objective, theta, direction, value, next, nextGradient } = this;
    const noise = 2e-15 * Math.abs(value);
    let low: Trial = { length: 0, value, slope };
    let high: Trial | null = null;
    let length = Math.min(1, longest);
    for (let trial = 0; trial < 40; trial++) {
      clipped(theta, direction, length, objective.law, next);
      const here: Trial = { length, value: objective.value(next, nextGradient), slope: dot(nextGradient, direction) };
      const falls = here.value <= value + 1e-4 * length * slope + noise;
      if (!falls || !Number.isFinite(here.slope)) high = here;
      else if (Math.abs(here.slope) <= 0.9 * Math.abs(slope) || length >= longest) return here.value;
      else if (here.slope < 0) low = here;
      else high = here;
      if (high === null) length = Math.min(longest, 3 * length);
      else {
        length = between(low, high);
        if (high.length - low.length <= 1e-14 * high.length) return null;
      }
    }
    return null;
  }
}

/** A point of a line search: how far along the direction it lies, and value and slope of the objective there. */
interface Trial {
  readonly length: number;
  readonly value: number;
  readonly slope: number;
}

/** Minimum of the cubic through both ends, kept off the ends; the middle where there is none. */
function between(low: Trial, high: Trial): number {
  const width = high.length - low.length;
  const middle = low.length + width / 2;
  if (!Number.isFinite(high.value) || !Number.isFinite(high.slope)) return low.length + 0.1 * width;
  const a = low.slope + high.slope - (3 * (high.value - low.value)) / width;
  const inside = a * a - low.slope * high.slope;
  if (!(inside >= 0)) return middle;
  const root = Math.sqrt(inside);
  const cubic = high.length - (width * (high.slope + root - a)) / (high.slope - low.slope + 2 * root);
  return cubic > low.length + 0.05 * width && cubic < high.length - 0.05 * width ? cubic : middle;
}

type Rows = readonly Float64Array[];

/** Fills `direction` with -H g over the free parameters and returns its slope. */
function descent(metric: Rows, gradient: Float64Array, free: Uint8Array, direction: Float64Array): number {
  for (const [j, row] of metric.entries()) {
    let sum = 0;
    if (free[j] === 1) for (let k = 0; k < row.length; k++) if (free[k] === 1) sum -= row[k]! * gradient[k]!;
    direction[j] = sum;
  }
  return dot(direction, gradient);
}

/** Turns the inverse of a matrix into the inverse of that matrix without row and column `j`, which become zero. */
function removeParameter(metric: Rows, j: number): void {
  const own = metric[j]!;
  const pivot = own[j]!;
  for (const [k, row] of metric.entries()) if (k !== j && pivot > 0) addScaled(row, -(row[j]! / pivot), own);
  for (const row of metric) row[j] = 0;
  own.fill(0);
}

/** H <- (I - s y^T / sy) H (I - y s^T / sy) + s s^T / sy. `Hy` is working memory. */
function update(metric: Rows, s: Float64Array, y: Float64Array, sy: number, Hy: Float64Array): void {
  multiply(Hy, metric, y);
  const outer = (1 + dot(Hy, y) / sy) / sy;
  for (const [j, row] of metric.entries()) {
    const [sj, Hyj] = [s[j]!, Hy[j]!];
    for (let k = 0; k < row.length; k++) row[k]! += outer * sj * s[k]! - (Hyj * s[k]! + sj * Hy[k]!) / sy;
  }
}

/** Fills `metric` with the inverse of the Gauss-Newton matrix over the free parameters. */
function gaussNewtonMetric(objective: Objective, free: Uint8Array, metric: Rows): void {
  const { p } = objective;
  const { values, rows } = zeros(p, p);
  objective.curvature(rows);
  const largest = rows.reduce((most, row, j) => (free[j] === 1 ? Math.max(most, row[j]!) : most), 0);
  // Far from the optimum a direction the data hardly feel must not dominate the first step.
  for (const [j, row] of rows.entries()) row[j]! += 1e-7 * row[j]! + 1e-10 * largest + 1e-300;
  restrict(values, free);
  const inverted = inverse(values, p);
  for (const [j, row] of metric.entries()) {
    row.fill(0);
    if (inverted === null) row[j] = 1 / Math.max(rows[j]![j]!, 1e-8 * largest);
    else row.set(inverted.subarray(j * p, (j + 1) * p));
  }
}
