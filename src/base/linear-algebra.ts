/** Small dense linear algebra: symmetric positive systems of at most a few tens of unknowns, row-major. */

/**
 * Cholesky factor L of a symmetric matrix (a = L L^T), in the lower triangle of `out`. False where `a` is not positive
 * definite to working precision; then `out` is of no use.
 */
export function cholesky(a: Float64Array, n: number, out: Float64Array): boolean {
  for (let j = 0; j < n; j++) {
    let diagonal = a[j * n + j]!;
    for (let k = 0; k < j; k++) diagonal -= out[j * n + k]! ** 2;
    if (!(diagonal > 1e-15 * a[j * n + j]!)) return false;
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

/** Inverse of a symmetric positive definite matrix, or null where it is not. */
export function inverse(a: Float64Array, n: number): Float64Array | null {
  const factor = new Float64Array(n * n);
  if (!cholesky(a, n, factor)) return null;
  const out = new Float64Array(n * n);
  const unit = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    unit.fill(0);
    unit[j] = 1;
    choleskySolve(factor, n, unit, unit);
    for (let i = 0; i < n; i++) out[i * n + j] = unit[i]!;
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
    let pivot = j;
    for (let i = j + 1; i < n; i++) if (Math.abs(m[i * n + j]!) > Math.abs(m[pivot * n + j]!)) pivot = i;
    const head = m[pivot * n + j]!;
    if (!(Math.abs(head) > 1e-300)) return null;
    if (pivot !== j) {
      for (let k = 0; k < n; k++) [m[j * n + k], m[pivot * n + k]] = [m[pivot * n + k]!, m[j * n + k]!];
      [x[j], x[pivot]] = [x[pivot]!, x[j]!];
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

interface NonNegative {
  readonly x: Float64Array;
  /** x^T G x - 2 b^T x: the residual sum of squares less the constant y^T y. */
  readonly value: number;
}

/**
 * Nonnegative least squares from the Gram matrix G = X^T X and b = X^T y: the best over all sets of positive unknowns,
 * each solved on its own. Exact, and quick for the few columns a law has (2^k small systems).
 */
export function nonNegative(gram: Float64Array, b: Float64Array, k: number): NonNegative {
  let best: NonNegative = { x: new Float64Array(k), value: 0 };
  for (let set = 1; set < 1 << k; set++) {
    const members: number[] = [];
    for (let j = 0; j < k; j++) if (set & (1 << j)) members.push(j);
    const size = members.length;
    const sub = new Float64Array(size * size);
    const right = new Float64Array(size);
    members.forEach((row, i) => {
      members.forEach((column, j) => (sub[i * size + j] = gram[row * k + column]!));
      right[i] = b[row]!;
    });
    const factor = new Float64Array(size * size);
    if (!cholesky(sub, size, factor)) continue;
    const solution = new Float64Array(size);
    choleskySolve(factor, size, right, solution);
    if (solution.some((value) => !(value > 0))) continue;
    // At the solution G x = b, so x^T G x - 2 b^T x = -b^T x.
    let value = 0;
    for (let i = 0; i < size; i++) value -= right[i]! * solution[i]!;
    if (value < best.value) {
      const x = new Float64Array(k);
      members.forEach((column, i) => (x[column] = solution[i]!));
      best = { x, value };
    }
  }
  return best;
}
