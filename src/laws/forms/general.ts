/** Laws that are no plain sums of powers: they bring their own evaluation; this adds what all share. */
import { at, valueAt } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { multiply, zeros } from "../../base/vectors.js";
import { finishStarts } from "./starts.js";
import type { BoundLaw, Evaluator, Functional, Law, Places, Points } from "./types.js";

/** A law by its own evaluation at one place. Vectors over parameters are [p]. */
interface GeneralLaw extends Omit<Law, "bind"> {
  /** What the internal parameters are centred on. */
  center(points: Points): readonly number[];
  /** ln L at one place and its derivatives with respect to the internal parameters, written into `slopes`. */
  place(center: readonly number[], places: Places, row: number): (theta: Float64Array, slopes: Float64Array) => number;
  natural(theta: Float64Array, center: readonly number[]): Float64Array;
  internal(natural: Float64Array, center: readonly number[]): Float64Array;
  readonly lower: readonly number[];
  readonly upper: readonly number[];
  /** Internal starting values, most promising first; the best by the squared objective are kept. */
  candidates(points: Points, center: readonly number[]): readonly Float64Array[];
}

/** The law of a definition. */
export function generalLaw(definition: GeneralLaw): Law {
  const { id, title, formula, source, columns, parameters, note } = definition;
  const law: Law = {
    id,
    title,
    formula,
    source,
    columns,
    parameters,
    ...(note !== undefined && { note }),
    bind: (points) => bindGeneral(law, definition, points),
  };
  return law;
}

function evaluator(definition: GeneralLaw, center: readonly number[], places: Places, p: number): Evaluator {
  const predictors = Array.from({ length: places.n }, (_, row) => definition.place(center, places, row));
  const n = predictors.length;
  const slopes = new Float64Array(p);
  /** Derivatives by all parameters at the last evaluated ones: a row per parameter, a column per place. */
  const jacobian = zeros(p, n);
  return {
    n,
    evaluate(theta, out) {
      for (const [i, predict] of predictors.entries()) {
        slopes.fill(0);
        out[i] = predict(theta, slopes);
        for (let j = 0; j < p; j++) jacobian.values[j * n + i] = slopes[j]!;
      }
    },
    pullback: (weights, gradient) => multiply(gradient, jacobian.rows, weights),
    jacobian: (out) => out.set(jacobian.values),
  };
}

function bindGeneral(law: Law, definition: GeneralLaw, points: Points): BoundLaw {
  const p = law.parameters.length;
  const center = definition.center(points);
  const own = evaluator(definition, center, points, p);
  const logLoss = points.loss.map(Math.log);
  const squares = (theta: Float64Array): number => {
    const out = new Float64Array(points.n);
    own.evaluate(theta, out);
    const sum = out.reduce((total, value, i) => total + (value - at(logLoss, i)) ** 2, 0);
    return Number.isFinite(sum) ? sum : Infinity;
  };
  const bound: BoundLaw = {
    law,
    p,
    lower: Float64Array.from(definition.lower),
    upper: Float64Array.from(definition.upper),
    ...own,
    natural: (theta) => definition.natural(theta, center),
    coordinate: (j) =>
      numericFunctional((theta) => {
        const value = at(definition.natural(theta, center), j);
        return at(law.parameters, j).role === "coefficient" ? Math.log(value) : value;
      }),
    internal: (natural) => definition.internal(natural, center),
    at: (places) => evaluator(definition, center, places, p),
    projectedStarts: (count) => {
      const ranked = finishStarts(definition.candidates(points, center), bound).map((theta) => ({
        theta,
        value: squares(theta),
      }));
      return ranked
        .sort((one, other) => one.value - other.value)
        .slice(0, count)
        .map(({ theta }) => theta);
    },
    gridStarts: () => finishStarts(definition.candidates(points, center), bound),
  };
  return bound;
}

/** Gradient by central differences: internal parameters are of order one, so one step size suits all. */
function numericFunctional(value: (theta: Float64Array) => number): Functional {
  const step = 1e-5;
  return {
    at(theta, gradient) {
      if (gradient !== null) {
        const near = theta.slice();
        for (const [k, own] of theta.entries()) {
          near[k] = own + step;
          const above = value(near);
          near[k] = own - step;
          gradient[k] = (above - value(near)) / (2 * step);
          near[k] = own;
        }
      }
      return value(theta);
    },
  };
}

/** Mean of a column's ln. */
export function meanLog(points: Points, column: string): number {
  return meanOf(valueAt(points.columns, column).map(Math.log));
}
