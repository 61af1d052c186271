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
import { finishStarts, product, projectStarts } from "./starts.js";
import type { BoundLaw, Column, Evaluator, Functional, Law, Parameter, Places, Points } from "./types.js";

/** One exponent of a term: contributes sign * p * product of ln of `logs`. At most two logs. */
export interface Power {
  readonly exponent: string;
  readonly sign: 1 | -1;
  readonly logs: readonly string[];
}

export interface PowerTerm {
  readonly coefficient: string;
  readonly powers: readonly Power[];
  /** Applies only to points of these groups; to all where left out. */
  readonly groups?: readonly string[];
}

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

/** A term laid out for evaluation: parameter indices, and one centred product of logs per exponent. */
interface TermData {
  readonly coefficient: number;
  /** The coefficient stands for itself, not for its logarithm. */
  readonly plain: boolean;
  readonly exponents: readonly number[];
  readonly rows: Int32Array;
  /** Per exponent: sign * product of centred logs, one value per row of `rows`. */
  readonly features: readonly Float64Array[];
  readonly values: Float64Array;
}

/** Means of logs, by term: what the internal parameters are centred on. */
type Means = readonly Readonly<Record<string, number>>[];

export function powerSumLaw(sum: PowerSum): Law {
  const law: Law = { ...sum, bind: (points) => bindPowerSum(law, sum, points) };
  return law;
}

function logReader({ derived = {} }: PowerSum, places: Places): (name: string, row: number) => number {
  return (name, row) => {
    const column = (wanted: string): number => places.columns[wanted]?.[row] ?? NaN;
    const value = derived[name] === undefined ? column(name) : derived[name](column);
    return Math.log(value);
  };
}

function rowsOf(term: PowerTerm, places: Places): Int32Array {
  const rows: number[] = [];
  for (let i = 0; i < places.n; i++) {
    if (term.groups === undefined || term.groups.includes(places.group?.[i] ?? "")) rows.push(i);
  }
  return Int32Array.from(rows);
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
  const index = new Map(sum.parameters.map(({ name }, j) => [name, j]));
  return sum.terms.map((term, k) => {
    const rows = rowsOf(term, places);
    const centred = (name: string, row: number): number => log(name, row) - valueAt(at(means, k), name);
    return {
      coefficient: entryOf(index, term.coefficient),
      plain: at(sum.parameters, entryOf(index, term.coefficient)).role === "constant",
      exponents: term.powers.map(({ exponent }) => entryOf(index, exponent)),
      rows,
      features: term.powers.map(({ sign, logs }) =>
        Float64Array.from([...rows], (row) => logs.reduce<number>((value, name) => value * centred(name, row), sign)),
      ),
      // Of a constant: its slope.
      values: new Float64Array(rows.length).fill(1),
    };
  });
}

function evaluator(n: number, terms: readonly TermData[]): Evaluator {
  const total = new Float64Array(n);
  const scaled = new Float64Array(n);
  return {
    n,
    evaluate(theta, out) {
      total.fill(0);
      for (const { coefficient, plain, exponents, rows, features, values } of terms) {
        const start = at(theta, coefficient);
        if (plain) {
          for (let i = 0; i < rows.length; i++) total[rows[i]!]! += start;
          continue;
        }
        for (let j = 0; j < exponents.length; j++) {
          const power = theta[at(exponents, j)]!;
          const feature = features[j]!;
          if (j === 0) for (let i = 0; i < values.length; i++) values[i] = start + power * feature[i]!;
          else for (let i = 0; i < values.length; i++) values[i]! += power * feature[i]!;
        }
        for (let i = 0; i < values.length; i++) {
          const value = Math.exp(values[i]!);
          values[i] = value;
          total[rows[i]!]! += value;
        }
      }
      for (let i = 0; i < n; i++) out[i] = Math.log(total[i]!);
    },
    pullback(slopes, gradient) {
      gradient.fill(0);
      for (let i = 0; i < n; i++) scaled[i] = slopes[i]! / total[i]!;
      for (const { coefficient, exponents, rows, features, values } of terms) {
        let sum = 0;
        for (let i = 0; i < values.length; i++) sum += scaled[rows[i]!]! * values[i]!;
        gradient[coefficient]! += sum;
        for (let j = 0; j < exponents.length; j++) {
          const feature = features[j]!;
          sum = 0;
          for (let i = 0; i < values.length; i++) sum += scaled[rows[i]!]! * values[i]! * feature[i]!;
          gradient[at(exponents, j)]! += sum;
        }
      }
    },
    jacobian(out) {
      out.fill(0);
      for (const { coefficient, exponents, rows, features, values } of terms) {
        for (let i = 0; i < values.length; i++) {
          const row = rows[i]!;
          const share = values[i]! / total[row]!;
          out[coefficient * n + row]! += share;
          for (let j = 0; j < exponents.length; j++) out[at(exponents, j) * n + row]! += share * features[j]![i]!;
        }
      }
    },
  };
}

function bindPowerSum(law: Law, sum: PowerSum, points: Points): BoundLaw {
  const means = meansOf(sum, points);
  const index = new Map(sum.parameters.map(({ name }, j) => [name, j]));
  const terms = layOut(sum, points, means);
  const p = sum.parameters.length;
  const meanOf = (k: number, logs: readonly string[]): number =>
    logs.reduce((value, name) => value * valueAt(at(means, k), name), 1);

  /** Adds (direction 1) or takes away what centring moves from products into lower exponents and coefficients. */
  const shift = (from: Float64Array, exponents: Float64Array, direction: 1 | -1): void => {
    sum.terms.forEach((term, k) => {
      for (const { exponent, sign, logs } of term.powers) {
        const power = sign * at(exponents, entryOf(index, exponent));
        from[entryOf(index, term.coefficient)]! += direction * power * meanOf(k, logs);
        if (logs.length < 2) continue;
        for (const lower of term.powers) {
          const [kept] = lower.logs;
          if (lower.logs.length !== 1 || !logs.includes(kept!)) continue;
          from[entryOf(index, lower.exponent)]! +=
            (direction *
              power *
              meanOf(
                k,
                logs.filter((name) => name !== kept),
              )) /
            lower.sign;
        }
      }
    });
  };
  const isLog = sum.parameters.map(({ role }) => role === "coefficient");
  const isConstant = sum.parameters.map(({ role }) => role === "constant");
  const logged = (natural: Float64Array): Float64Array =>
    natural.map((value, j) => (isLog[j] ? Math.log(value) : value));
  const fromLogs = (logs: Float64Array): Float64Array => {
    const theta = logs.slice();
    shift(theta, logs, 1);
    return theta;
  };
  /** Natural parameters with coefficients still as logarithms: linear in theta. */
  const naturalLogs = (theta: Float64Array): Float64Array => {
    // The exponents first: a product's own exponent is not moved, a lower one only by products.
    const moved = theta.slice();
    shift(moved, theta, -1);
    const exponents = theta.map((value, j) => (isLog[j] ? value : at(moved, j)));
    const out = exponents.slice();
    shift(out, exponents, -1);
    return out.map((value, j) => (isLog[j] ? value : at(exponents, j)));
  };
  const natural = (theta: Float64Array): Float64Array =>
    naturalLogs(theta).map((value, j) => (isLog[j] ? Math.exp(value) : value));
  const coordinate = (j: number): Functional => {
    const slopes = Float64Array.from({ length: p }, (_, k) =>
      at(naturalLogs(Float64Array.from({ length: p }, (__, i) => (i === k ? 1 : 0))), j),
    );
    return {
      at(theta, gradient) {
        gradient?.set(slopes);
        let value = 0;
        for (let k = 0; k < p; k++) value += slopes[k]! * theta[k]!;
        return value;
      },
    };
  };

  const logLoss = points.loss.map(Math.log);
  const [low, high] = [
    logLoss.reduce((a, b) => Math.min(a, b), Infinity),
    logLoss.reduce((a, b) => Math.max(a, b), -Infinity),
  ];
  const lower = Float64Array.from(sum.parameters, ({ name }, j) =>
    isLog[j] ? low - smallestShare : isConstant[j] ? 0 : (sum.bounds?.[name]?.[0] ?? 0),
  );
  const upper = Float64Array.from(sum.parameters, ({ name }, j) =>
    isLog[j] ? high + 40 : isConstant[j] ? 10 * Math.exp(high) : (sum.bounds?.[name]?.[1] ?? 5),
  );
  const bound: BoundLaw = {
    law,
    p,
    lower,
    upper,
    natural,
    coordinate,
    ...evaluator(points.n, terms),
    internal: (values) => fromLogs(logged(values)),
    at: (places) => evaluator(places.n, layOut(sum, places, means)),
    projectedStarts: (count) => {
      if (sum.projectedStarts !== undefined) return finishStarts(sum.projectedStarts(points, bound, count), bound);
      const exponents = sum.parameters.filter((_, j) => !isLog[j] && !isConstant[j]).map(({ name }) => name);
      const scan = exponents.map((name) => sum.scan?.[name] ?? defaultScan(exponents.length));
      const found = projectStarts(
        {
          n: points.n,
          p,
          loss: points.loss,
          terms,
          nonlinear: exponents.map((name) => entryOf(index, name)),
          linear: sum.terms.map(({ coefficient }) => entryOf(index, coefficient)),
          scan,
        },
        count,
      );
      return finishStarts(found, bound);
    },
    gridStarts: () => {
      if (sum.grid !== undefined) {
        const lists = sum.parameters.map(({ name }) => valueAt(sum.grid!, name));
        return finishStarts(
          product(lists).map((values) =>
            fromLogs(Float64Array.from(values, (value, j) => (isConstant[j] ? Math.exp(value) : value))),
          ),
          bound,
        );
      }
      if (sum.projectedStarts !== undefined) return bound.projectedStarts(Infinity);
      const middle = logLoss.reduce((a, b) => a + b, 0) / points.n;
      const lists = sum.parameters.map(({ name }, j) =>
        isLog[j]
          ? [middle - 2.5, middle - 0.7]
          : isConstant[j]
            ? [Math.exp(middle - 2.5), Math.exp(middle - 0.7)]
            : (sum.scan?.[name]?.filter((_, i) => i % 2 === 0) ?? [0.05, 0.2, 0.6]),
      );
      return finishStarts(
        product(lists).map((values) => Float64Array.from(values)),
        bound,
      );
    },
  };
  return bound;
}

/** A term may shrink to e^-16, a ten-millionth, of the smallest loss before it counts as vanished. */
const smallestShare = 16;

/** Exponents tried where the law names none: from nearly flat to steep, equally spaced in their logarithms. */
function defaultScan(exponents: number): readonly number[] {
  const steps = exponents <= 2 ? 10 : exponents === 3 ? 7 : 5;
  return Array.from({ length: steps }, (_, i) => 0.03 * (1.2 / 0.03) ** (i / (steps - 1)));
}
