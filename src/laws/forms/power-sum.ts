/**
 * Laws that are sums of products of powers, L = sum_k c_k exp(sum_j s_j p_j prod_(x in S_j) ln x): Chinchilla (S = {N},
 * {D}), the upcycling law (S = {D1}, {D2}, {D1, D2}), fine-grained and sparse MoE laws. One implementation serves them
 * all: ln L is a log-sum-exp of forms linear in (ln c, p).
 *
 * The constant is a parameter as it stands, from 0 on: in it the law is linear, and a fit that wants it below zero
 * stops at zero instead of wandering off in its logarithm.
 *
 * All other internal parameters are those of the same formula with every ln x replaced by ln x - mean(ln x), taken over
 * the points a term applies to. An internal coefficient is then ln of the term's size in the middle of the data, and an
 * internal exponent the slope there. Without centring the upcycling law cannot be fitted even to noiseless data.
 * Expanding the products gives the way back: ln c = ln c' - sum_j s_j p_j prod m, and for the exponent of a lower
 * product s_k p_k = s_k p_k' - sum_(S_j contains S_k) s_j p_j m.
 */
import { at, entryOf, valueAt } from "../../base/at.js";
import { dot } from "../../base/vectors.js";
import { PowerSumEvaluator, type TermData } from "./power-sum-evaluator.js";
import { finishStarts, product, projectStarts } from "./starts.js";
import type { BoundLaw, Column, Functional, Law, Parameter, Places, Points } from "./types.js";

/** One exponent of a term: it contributes sign * p * the product of the ln of `logs`. There are at most two logs. */
export interface Power {
  readonly exponent: string;
  readonly sign: 1 | -1;
  readonly logs: readonly string[];
}

/** One term: a coefficient times powers. */
export interface PowerTerm {
  readonly coefficient: string;
  readonly powers: readonly Power[];
  /** Applies only to points of these groups; to all where left out. */
  readonly groups?: readonly string[];
}

/** The definition of a law that is a sum of powers. */
export interface PowerSum {
  readonly id: string;
  readonly title: string;
  readonly formula: string;
  readonly source: string;
  readonly note?: string;
  readonly groups?: Law["groups"];
  readonly columns: readonly Column[];
  readonly parameters: readonly Parameter[];
  /** A column that only some groups use may hold NaN for the others. */
  readonly terms: readonly PowerTerm[];
  /** Quantities whose logs appear in terms but are no columns, such as D1 + D2. */
  readonly derived?: Readonly<Record<string, (column: (name: string) => number) => number>>;
  /** Bounds of an internal exponent; [0, 5] where left out, so that a term can only fall. */
  readonly bounds?: Readonly<Record<string, readonly [number, number]>>;
  /** Values of an internal exponent tried by variable projection. */
  readonly scan?: Readonly<Record<string, readonly number[]>>;
  /** Grid of starts in natural parameters, coefficients as their logarithms. */
  readonly grid?: Readonly<Record<string, readonly number[]>>;
  /** Replaces variable projection over all exponents at once, where they are too many. */
  readonly projectedStarts?: (points: Points, bound: BoundLaw, count: number) => readonly Float64Array[];
}

/** Means of logs, by term: what the internal parameters are centred on. */
type Means = readonly Readonly<Record<string, number>>[];

/** Index of each parameter by its name. */
type ParameterIndex = ReadonlyMap<string, number>;

/** The law of a definition. */
export function powerSumLaw(sum: PowerSum): Law {
  const law: Law = { ...sum, bind: (points) => bindPowerSum(law, sum, points) };
  return law;
}

function indexOf(parameters: readonly Parameter[]): ParameterIndex {
  return new Map(parameters.map(({ name }, j) => [name, j]));
}

function logReader({ derived = {} }: PowerSum, places: Places): (name: string, row: number) => number {
  return (name, row) => {
    const column = (columnName: string): number => places.columns[columnName]?.[row] ?? NaN;
    const derive = derived[name];
    return Math.log(derive === undefined ? column(name) : derive(column));
  };
}

function rowsOf(term: PowerTerm, places: Places): Int32Array {
  const rows = Int32Array.from({ length: places.n }, (_, i) => i);
  const { groups } = term;
  return groups === undefined ? rows : rows.filter((i) => groups.includes(places.group?.[i] ?? ""));
}

function meansOf(sum: PowerSum, places: Places): Means {
  const log = logReader(sum, places);
  return sum.terms.map((term) => {
    const rows = rowsOf(term, places);
    const names = new Set(term.powers.flatMap(({ logs }) => logs));
    const mean = (name: string): number =>
      rows.reduce((total, row) => total + log(name, row), 0) / Math.max(1, rows.length);
    return Object.fromEntries([...names].map((name) => [name, mean(name)]));
  });
}

function layOut(sum: PowerSum, places: Places, means: Means): TermData[] {
  const log = logReader(sum, places);
  const index = indexOf(sum.parameters);
  return sum.terms.map((term, k) => {
    const rows = rowsOf(term, places);
    const coefficient = entryOf(index, term.coefficient);
    const centred = (name: string, row: number): number => log(name, row) - valueAt(at(means, k), name);
    return {
      coefficient,
      isConstant: at(sum.parameters, coefficient).role === "constant",
      rows,
      powers: term.powers.map(({ exponent, sign, logs }) => ({
        parameter: entryOf(index, exponent),
        feature: Float64Array.from(rows, (row) =>
          logs.reduce<number>((value, name) => value * centred(name, row), sign),
        ),
      })),
    };
  });
}

/**
 * The change between internal and natural parameters. Coefficients are logarithms here; in these terms both directions
 * are linear. Vectors are [p].
 */
class Centring {
  private readonly index: ParameterIndex;

  constructor(
    private readonly sum: PowerSum,
    private readonly means: Means,
  ) {
    this.index = indexOf(sum.parameters);
  }

  isLog(j: number): boolean {
    return at(this.sum.parameters, j).role === "coefficient";
  }

  isConstant(j: number): boolean {
    return at(this.sum.parameters, j).role === "constant";
  }

  fromLogs(logs: Float64Array): Float64Array {
    const theta = logs.slice();
    this.shift(theta, logs, 1);
    return theta;
  }

  toLogs(theta: Float64Array): Float64Array {
    // The exponents first: a product's own exponent is not moved, a lower one only by products.
    const shifted = theta.slice();
    this.shift(shifted, theta, -1);
    const exponents = theta.map((value, j) => (this.isLog(j) ? value : at(shifted, j)));
    const out = exponents.slice();
    this.shift(out, exponents, -1);
    return out.map((value, j) => (this.isLog(j) ? value : at(exponents, j)));
  }

  /** Adds (direction 1) or takes away what centring moves from products into lower exponents and coefficients. */
  private shift(from: Float64Array, exponents: Float64Array, direction: 1 | -1): void {
    const add = (name: string, amount: number): void => {
      const j = entryOf(this.index, name);
      from[j] = at(from, j) + amount;
    };
    for (const [k, { coefficient, powers }] of this.sum.terms.entries()) {
      const means = at(this.means, k);
      for (const { exponent, sign, logs } of powers) {
        const power = sign * at(exponents, entryOf(this.index, exponent));
        add(coefficient, direction * power * productOf(means, logs));
        if (logs.length < 2) continue;
        for (const lower of powers) {
          const [own] = lower.logs;
          if (own === undefined || lower.logs.length !== 1 || !logs.includes(own)) continue;
          const others = logs.filter((name) => name !== own);
          add(lower.exponent, (direction * power * productOf(means, others)) / lower.sign);
        }
      }
    }
  }
}

function productOf(means: Readonly<Record<string, number>>, names: readonly string[]): number {
  return names.reduce((value, name) => value * valueAt(means, name), 1);
}

function bindPowerSum(law: Law, sum: PowerSum, points: Points): BoundLaw {
  const means = meansOf(sum, points);
  const centring = new Centring(sum, means);
  const terms = layOut(sum, points, means);
  const evaluator = new PowerSumEvaluator(points.n, terms);
  const bound: BoundLaw = {
    law,
    p: sum.parameters.length,
    n: points.n,
    ...boxOf(sum, points),
    evaluate: (theta, out) => evaluator.evaluate(theta, out),
    pullback: (slopes, gradient) => evaluator.pullback(slopes, gradient),
    jacobian: (out) => evaluator.jacobian(out),
    natural: (theta) => centring.toLogs(theta).map((value, j) => (centring.isLog(j) ? Math.exp(value) : value)),
    internal: (natural) => centring.fromLogs(natural.map((value, j) => (centring.isLog(j) ? Math.log(value) : value))),
    coordinate: (j) => linearFunctional(slopesOfCoordinate(centring, sum.parameters.length, j)),
    at: (places) => new PowerSumEvaluator(places.n, layOut(sum, places, means)),
    projectedStarts: (count) =>
      finishStarts(
        sum.projectedStarts?.(points, bound, count) ?? projectedOver(sum, centring, points, terms, count),
        bound,
      ),
    gridStarts: () => gridStarts(sum, centring, points, bound),
  };
  return bound;
}

/** A term may shrink to e^-16, a ten-millionth, of the smallest loss before it counts as vanished. */
const smallestShare = 16;

/** Bounds of the internal parameters. */
function boxOf(sum: PowerSum, { loss }: Points): Pick<BoundLaw, "lower" | "upper"> {
  const logLoss = loss.map(Math.log);
  const low = logLoss.reduce((a, b) => Math.min(a, b), Infinity);
  const high = logLoss.reduce((a, b) => Math.max(a, b), -Infinity);
  const bounds = sum.parameters.map(({ name, role }): readonly [number, number] => {
    switch (role) {
      case "coefficient":
        return [low - smallestShare, high + 40];
      case "constant":
        return [0, 10 * Math.exp(high)];
      default:
        return sum.bounds?.[name] ?? [0, 5];
    }
  });
  return {
    lower: Float64Array.from(bounds, ([lower]) => lower),
    upper: Float64Array.from(bounds, ([, upper]) => upper),
  };
}

/** Slopes [p] of natural parameter number j, a coefficient as its logarithm, which is linear in the internal ones. */
function slopesOfCoordinate(centring: Centring, p: number, j: number): Float64Array {
  return Float64Array.from({ length: p }, (_, k) => {
    const unit = new Float64Array(p);
    unit[k] = 1;
    return at(centring.toLogs(unit), j);
  });
}

function linearFunctional(slopes: Float64Array): Functional {
  return {
    at(theta, gradient) {
      gradient?.set(slopes);
      return dot(slopes, theta);
    },
  };
}

/** Starts by variable projection over all exponents at once. */
function projectedOver(
  sum: PowerSum,
  centring: Centring,
  points: Points,
  terms: readonly TermData[],
  count: number,
): readonly Float64Array[] {
  const exponents = [...sum.parameters.keys()].filter((j) => !centring.isLog(j) && !centring.isConstant(j));
  return projectStarts(
    {
      p: sum.parameters.length,
      loss: points.loss,
      terms,
      exponents,
      scan: exponents.map((j) => sum.scan?.[at(sum.parameters, j).name] ?? defaultScan(exponents.length)),
    },
    count,
  );
}

function gridStarts(sum: PowerSum, centring: Centring, points: Points, bound: BoundLaw): readonly Float64Array[] {
  const { grid, parameters } = sum;
  if (grid !== undefined) {
    const natural = product(parameters.map(({ name }) => valueAt(grid, name)));
    const starts = natural.map((values) =>
      centring.fromLogs(Float64Array.from(values, (value, j) => (centring.isConstant(j) ? Math.exp(value) : value))),
    );
    return finishStarts(starts, bound);
  }
  if (sum.projectedStarts !== undefined) return bound.projectedStarts(Infinity);
  const middle = points.loss.reduce((total, loss) => total + Math.log(loss), 0) / points.n;
  const lists = parameters.map(({ name, role }) => {
    switch (role) {
      case "coefficient":
        return [middle - 2.5, middle - 0.7];
      case "constant":
        return [Math.exp(middle - 2.5), Math.exp(middle - 0.7)];
      default:
        return sum.scan?.[name]?.filter((_, i) => i % 2 === 0) ?? [0.05, 0.2, 0.6];
    }
  });
  return finishStarts(
    product(lists).map((values) => Float64Array.from(values)),
    bound,
  );
}

/** Exponents tried where the law names none: from nearly flat to steep, equally spaced in their logarithms. */
function defaultScan(exponents: number): readonly number[] {
  const steps = exponents <= 2 ? 10 : exponents === 3 ? 7 : 5;
  return Array.from({ length: steps }, (_, i) => 0.03 * (1.2 / 0.03) ** (i / (steps - 1)));
}
