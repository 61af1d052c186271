/**
 * Small dense linear algebra: systems of at most a few tens of unknowns. `n` is the number of unknowns; matrices are
 * [n, n], row-major, and vectors are [n].
 */
import { at } from "./at.js";

/**
 * Cholesky factor L of a symmetric matrix (a = L L^T), in the lower triangle of `out`. False where `a` is not positive
 * definite to working precision; then `out` is of no use.
 */
export function cholesky(a: Float64Array, n: number, out: Float64Array): boolean {
  for (let j = 0; j < n; j++) {
    const entry = a[j * n + j]!;
    let diagonal = entry;
    for (let k = 0; k < j; k++) diagonal -= out[j * n + k]! ** 2;
    if (!(diagonal > 1e-15 * entry)) return false;
    const root = Math.sqrt(diagonal);
    out[j * n + j] = root;
    for (let i = j + 1; i < n; i++) {
      let sum = a[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= out[i * n + k]! * out[j * n + k]!;
      out[i * n + j] = sum / root;
    }
  }
  return true;
}

/** Solves L L^T x = b for a factor from `cholesky`; `x` may be `b`. */
export function choleskySolve(factor: Float64Array, n: number, b: Float64Array, x: Float64Array): void {
  for (let i = 0; i < n; i++) {
    let sum = b[i]!;
    for (let k = 0; k < i; k++) sum -= factor[i * n + k]! * x[k]!;
    x[i] = sum / factor[i * n + i]!;
  }
  for (let i = n - 1; i >= 0; i--) {
    let sum = x[i]!;
    for (let k = i + 1; k < n; k++) sum -= factor[k * n + i]! * x[k]!;
    x[i] = sum / factor[i * n + i]!;
  }
}

/** Inverse of a symmetric positive definite matrix; null where the matrix is not positive definite. */
export function inverse(a: Float64Array, n: number): Float64Array | null {
  const factor = new Float64Array(n * n);
  if (!cholesky(a, n, factor)) return null;
  const out = new Float64Array(n * n);
  const unit = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    unit.fill(0);
    unit[j] = 1;
    choleskySolve(factor, n, unit, unit);
    for (const [i, value] of unit.entries()) out[i * n + j] = value;
  }
  return out;
}

/**
 * Solves a square system by Gaussian elimination with partial pivoting; null where it is singular to working precision.
 */
export function solve(a: Float64Array, n: number, b: Float64Array): Float64Array | null {
  const m = a.slice();
  const x = b.slice();
  for (let j = 0; j < n; j++) {
    const pivot = pivotRow(m, n, j);
    const head = m[pivot * n + j]!;
    if (!(Math.abs(head) > 1e-300)) return null;
    if (pivot !== j) {
      for (let k = 0; k < n; k++) swap(m, j * n + k, pivot * n + k);
      swap(x, j, pivot);
    }
    for (let i = j + 1; i < n; i++) {
      const factor = m[i * n + j]! / head;
      if (factor === 0) continue;
      for (let k = j; k < n; k++) m[i * n + k]! -= factor * m[j * n + k]!;
      x[i]! -= factor * x[j]!;
    }
  }
  for (let i = n - 1; i >= 0; i--) {
    let sum = x[i]!;
    for (let k = i + 1; k < n; k++) sum -= m[i * n + k]! * x[k]!;
    x[i] = sum / m[i * n + i]!;
  }
  return x.every(Number.isFinite) ? x : null;
}

/** The row from `j` on whose entry of column `j` is largest in size. */
function pivotRow(m: Float64Array, n: number, j: number): number {
  let pivot = j;
  let largest = Math.abs(m[j * n + j]!);
  for (let i = j + 1; i < n; i++) {
    const size = Math.abs(m[i * n + j]!);
    if (size > largest) [pivot, largest] = [i, size];
  }
  return pivot;
}

function swap(values: Float64Array, i: number, j: number): void {
  const first = values[i]!;
  values[i] = values[j]!;
  values[j] = first;
}

interface NonNegative {
  /** The unknowns [k], none of them negative. */
  readonly x: Float64Array;
  /** x^T G x - 2 b^T x: the residual sum of squares less the constant y^T y. */
  readonly value: number;
}

/**
 * Nonnegative least squares from the Gram matrix G = X^T X [k, k] and b = X^T y [k]: the best over all sets of positive
 * unknowns, each solved on its own. Exact, and quick for the few columns a law has (2^k small systems).
 */
export function nonNegative(gram: Float64Array, b: Float64Array, k: number): NonNegative {
  let best: NonNegative = { x: new Float64Array(k), value: 0 };
  for (let bits = 1; bits < 1 << k; bits++) {
    const candidate = positiveSolution(gram, b, k, bits);
    if (candidate !== null && candidate.value < best.value) best = candidate;
  }
  return best;
}

/**
 * The solution whose unknowns of the set `bits` (bit j: unknown j) are free and all others 0; null where the system is
 * singular or one of the free unknowns is not positive.
 */
function positiveSolution(gram: Float64Array, b: Float64Array, k: number, bits: number): NonNegative | null {
  const members: number[] = [];
  for (let j = 0; j < k; j++) if (bits & (1 << j)) members.push(j);
  const size = members.length;
  const matrix = new Float64Array(size * size);
  const right = new Float64Array(size);
  for (const [i, row] of members.entries()) {
    for (const [j, column] of members.entries()) matrix[i * size + j] = at(gram, row * k + column);
    right[i] = at(b, row);
  }
  const factor = new Float64Array(size * size);
  if (!cholesky(matrix, size, factor)) return null;
  const solution = new Float64Array(size);
  choleskySolve(factor, size, right, solution);
  const x = new Float64Array(k);
  // At the solution G x = b, so x^T G x - 2 b^T x = -b^T x.
  let value = 0;
  for (const [i, column] of members.entries()) {
    const unknown = at(solution, i);
    if (!(unknown > 0)) return null;
    value -= at(right, i) * unknown;
    x[column] = unknown;
  }
  return { x, value };
}
