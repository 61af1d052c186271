/**
 * Starting values. Variable projection (Golub and Pereyra 1973): for fixed exponents the coefficients are a linear
 * problem, solved here by nonnegative least squares on relative errors (prediction / observation - 1, close to the
 * ln-residual), so only exponents need a grid.
 */
import { at } from "../../base/at.js";
import { nonNegative } from "../../base/linear-algebra.js";
import { addScaled, dot, zeros } from "../../base/vectors.js";
import type { TermData } from "./power-sum-evaluator.js";
import type { BoundLaw } from "./types.js";

/** All combinations, the last list fastest. */
export function product(lists: readonly (readonly number[])[]): number[][] {
  return lists.reduce<number[][]>((rows, list) => rows.flatMap((row) => list.map((value) => [...row, value])), [[]]);
}

/** Moves starts into the box, a hair inside: on a bound a solver would first have to find out that it may leave. */
export function finishStarts(starts: readonly Float64Array[], { lower, upper }: BoundLaw): Float64Array[] {
  return starts.map((start) =>
    start.map((value, j) => {
      const inset = Math.min(1e-3, (at(upper, j) - at(lower, j)) / 4);
      return Math.min(at(upper, j) - inset, Math.max(at(lower, j) + inset, value));
    }),
  );
}

interface Projection {
  /** Number of parameters. */
  readonly p: number;
  /** Observed losses [n]. */
  readonly loss: Float64Array;
  readonly terms: readonly TermData[];
  /** Indices of the exponents among the parameters, and the values to try for each. */
  readonly exponents: readonly number[];
  readonly scan: readonly (readonly number[])[];
}

/** The `count` best combinations of exponents with their coefficients, as internal parameters. */
export function projectStarts({ p, loss, terms, exponents, scan }: Projection, count: number): Float64Array[] {
  const inverseLoss = loss.map((value) => 1 / value);
  const { rows: columns } = zeros(terms.length, loss.length);
  const theta = new Float64Array(p);
  const best: { value: number; theta: Float64Array }[] = [];
  for (const combination of product(scan)) {
    for (const [i, j] of exponents.entries()) theta[j] = at(combination, i);
    for (const [t, term] of terms.entries()) fillColumn(at(columns, t), term, theta, inverseLoss);
    const { x, value } = bestCoefficients(columns);
    if (best.length === count && value >= at(best, count - 1).value) continue;
    best.push({ value, theta: withCoefficients(theta, terms, x) });
    best.sort((one, other) => one.value - other.value);
    best.length = Math.min(best.length, count);
  }
  return best.map((start) => start.theta);
}

/** Writes a term with coefficient 1 over the observed losses. */
function fillColumn(
  column: Float64Array,
  { rows, powers }: TermData,
  theta: Float64Array,
  inverseLoss: Float64Array,
): void {
  column.fill(0);
  const logs = new Float64Array(rows.length);
  for (const { parameter, feature } of powers) addScaled(logs, at(theta, parameter), feature);
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i]!;
    column[row] = Math.exp(logs[i]!) * inverseLoss[row]!;
  }
}

/** Coefficients of the columns that come closest to 1 everywhere: prediction over observation. */
function bestCoefficients(columns: readonly Float64Array[]): ReturnType<typeof nonNegative> {
  const k = columns.length;
  const gram = new Float64Array(k * k);
  for (const [a, column] of columns.entries())
    for (const [b, other] of columns.entries()) if (b >= a) gram[a * k + b] = gram[b * k + a] = dot(column, other);
  const sums = Float64Array.from(columns, (column) => column.reduce((sum, value) => sum + value, 0));
  return nonNegative(gram, sums, k);
}

function withCoefficients(theta: Float64Array, terms: readonly TermData[], x: Float64Array): Float64Array {
  const start = theta.slice();
  // A vanished term starts at a hundredth of the largest, from where it can still grow.
  const floor = 0.01 * Math.max(...x);
  for (const [t, { coefficient, isConstant }] of terms.entries()) {
    const size = Math.max(at(x, t), floor);
    start[coefficient] = isConstant ? size : Math.log(size);
  }
  return start;
}
