/**
 * Starting values. Variable projection (Golub and Pereyra 1973): for fixed exponents the coefficients are a linear
 * problem, solved here by nonnegative least squares on relative errors (prediction / observation - 1, close to the
 * ln-residual), so only exponents need a grid.
 */
import { at } from "../../base/at.js";
import { nonNegative } from "../../base/linear-algebra.js";
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
  readonly n: number;
  readonly p: number;
  readonly loss: Float64Array;
  readonly terms: readonly {
    readonly exponents: readonly number[];
    readonly plain: boolean;
    readonly rows: Int32Array;
    readonly features: readonly Float64Array[];
  }[];
  /** Parameter indices of the exponents, and the values to try for each. */
  readonly nonlinear: readonly number[];
  readonly scan: readonly (readonly number[])[];
  /** Parameter index of each term's coefficient. */
  readonly linear: readonly number[];
}

/** The `count` best combinations of exponents with their coefficients, as internal parameters. */
export function projectStarts(
  { n, p, loss, terms, nonlinear, scan, linear }: Projection,
  count: number,
): Float64Array[] {
  const k = terms.length;
  const inverseLoss = loss.map((value) => 1 / value);
  const columns = terms.map(() => new Float64Array(n));
  const gram = new Float64Array(k * k);
  const right = new Float64Array(k);
  const theta = new Float64Array(p);
  const best: { value: number; theta: Float64Array }[] = [];
  for (const combination of product(scan)) {
    combination.forEach((value, j) => (theta[at(nonlinear, j)] = value));
    terms.forEach(({ exponents, rows, features }, t) => {
      const column = at(columns, t).fill(0);
      for (let i = 0; i < rows.length; i++) {
        let z = 0;
        for (let j = 0; j < exponents.length; j++) z += theta[at(exponents, j)]! * features[j]![i]!;
        column[rows[i]!] = Math.exp(z) * inverseLoss[rows[i]!]!;
      }
    });
    for (let a = 0; a < k; a++) {
      for (let b = a; b < k; b++) {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += columns[a]![i]! * columns[b]![i]!;
        gram[a * k + b] = gram[b * k + a] = sum;
      }
      // The aim is 1 everywhere: prediction over observation.
      right[a] = columns[a]!.reduce((sum, value) => sum + value, 0);
    }
    const { x, value } = nonNegative(gram, right, k);
    if (best.length === count && value >= at(best, count - 1).value) continue;
    const start = theta.slice();
    // A vanished term starts at a hundredth of the largest, from where it can still grow.
    const floor = 0.01 * Math.max(...x);
    linear.forEach(
      (j, t) => (start[j] = at(terms, t).plain ? Math.max(at(x, t), floor) : Math.log(Math.max(at(x, t), floor))),
    );
    best.push({ value, theta: start });
    best.sort((one, other) => one.value - other.value);
    best.length = Math.min(best.length, count);
  }
  return best.map((found) => found.theta);
}
