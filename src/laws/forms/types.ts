/**
 * What a scaling law is to the fitter: a prediction of a loss from a few columns, smooth in a few parameters. Fitting
 * works on ln L and on INTERNAL parameters, chosen so that the problem is well scaled (logarithms of coefficients, logs
 * of columns centred on the data); people see NATURAL parameters, those of the printed formula.
 */
import { at } from "../../base/at.js";

/** A quantity that a law predicts from. */
export interface Column {
  readonly name: string;
  readonly meaning: string;
  readonly unit: string;
  /** Values that it can have, from `least` to below `below`; where left out, any number above 0. */
  readonly range?: { readonly least: number; readonly below?: number };
}

/** What is wrong with a value of a column, such as "expected more than 0"; null: nothing. */
export function outOfRange({ range }: Column, value: number): string | null {
  if (!Number.isFinite(value)) return "expected a finite number";
  if (range === undefined) return value > 0 ? null : "expected more than 0";
  if (value < range.least) return `expected at least ${range.least}`;
  return range.below !== undefined && value >= range.below ? `expected less than ${range.below}` : null;
}

/**
 * `coefficient`: positive, fitted as its logarithm. `constant`: positive, does not depend on any column (irreducible
 * loss). `exponent`: a power, any sign that its bounds allow. `shape`: anything else.
 */
type ParameterRole = "coefficient" | "constant" | "exponent" | "shape";

/** A number that a fit finds. */
export interface Parameter {
  readonly name: string;
  readonly meaning: string;
  readonly unit: string;
  readonly role: ParameterRole;
}

/** Observations as columns of equal length. Losses in nats per token, sizes as raw counts. */
export interface Points {
  readonly n: number;
  readonly columns: Readonly<Record<string, Float64Array>>;
  readonly loss: Float64Array;
  /** Which training run a point is from: points of one run are resampled together. */
  readonly cluster?: readonly string[];
  /** Which of several laws with shared parameters a point belongs to. */
  readonly group?: readonly string[];
}

/** Columns to predict for; `group` as in `Points`. */
export type Places = Pick<Points, "n" | "columns" | "group">;

/** A scaling law: its formula in words, and how it is bound to points. */
export interface Law {
  /** As on the command line: `chinchilla`. */
  readonly id: string;
  readonly title: string;
  /** In the names of `columns` and `parameters`. */
  readonly formula: string;
  /** Paper and equation, or who defined it. */
  readonly source: string;
  readonly columns: readonly Column[];
  readonly parameters: readonly Parameter[];
  /** What a user of this law should know. */
  readonly note?: string;
  /** Of a law over several groups of points: the columns each group needs. */
  readonly groups?: readonly { readonly name: string; readonly columns: readonly string[] }[];
  /** The law on these points: centred on them, with bounds and starting values that suit them. */
  bind(points: Points): BoundLaw;
}

/** ln of the predictions at fixed places. The last two methods are about the last evaluated parameters. */
export interface Evaluator {
  readonly n: number;
  /** Writes ln L of every place into `out`. */
  evaluate(theta: Float64Array, out: Float64Array): void;
  /** Writes sum_i slopes_i d ln L_i / d theta_j into `gradient`. */
  pullback(slopes: Float64Array, gradient: Float64Array): void;
  /** Writes d ln L_i / d theta_j into `out[j * n + i]`. */
  jacobian(out: Float64Array): void;
}

/** A smooth function of the internal parameters. */
export interface Functional {
  /** The value; fills `gradient` where given. */
  at(theta: Float64Array, gradient: Float64Array | null): number;
}

/** A law on the points it is fitted to. */
export interface BoundLaw extends Evaluator {
  readonly law: Law;
  /** Number of internal parameters, which is that of natural ones, in the same order. */
  readonly p: number;
  /** Box of the internal parameters: wide; a fit that ends on it has not identified the parameter. */
  readonly lower: Float64Array;
  readonly upper: Float64Array;
  /** Natural parameters [p] of internal ones. */
  natural(theta: Float64Array): Float64Array;
  /** Internal parameters [p] of natural ones. */
  internal(natural: Float64Array): Float64Array;
  /** Natural parameter number j as profiles follow it: coefficients as their logarithm, all others as they are. */
  coordinate(j: number): Functional;
  /** The same internal parameters at other places. */
  at(places: Places): Evaluator;
  /** Internal starting values found by variable projection, most promising first. */
  projectedStarts(count: number): readonly Float64Array[];
  /** Internal starting values of the full grid. */
  gridStarts(): readonly Float64Array[];
}

/** Natural parameters by name. */
export type Params = Readonly<Record<string, number>>;

/** Natural parameters [p] by their names. */
export function paramsOf(law: Law, natural: ArrayLike<number>): Params {
  return Object.fromEntries(law.parameters.map(({ name }, j) => [name, at(natural, j)]));
}

/** Natural parameters [p] in the law's order; NaN for names that are missing. */
export function naturalOf(law: Law, params: Params): Float64Array {
  return Float64Array.from(law.parameters, ({ name }) => params[name] ?? NaN);
}

/** Places from columns of equal length. */
export function placesOf(columns: Readonly<Record<string, ArrayLike<number>>>, group?: readonly string[]): Places {
  const n = Object.values(columns)[0]?.length ?? 0;
  return {
    n,
    columns: Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, Float64Array.from(values)])),
    ...(group && { group }),
  };
}

/** Losses [n] in nats per token that the law predicts with these natural parameters. */
export function predict(law: Law, params: Params, places: Places): Float64Array {
  // A law bound to the places themselves: centring changes the internal parameters, never the prediction.
  const bound = law.bind({ ...places, loss: new Float64Array(places.n).fill(1) });
  const out = new Float64Array(places.n);
  bound.evaluate(bound.internal(naturalOf(law, params)), out);
  return out.map(Math.exp);
}
