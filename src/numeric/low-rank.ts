/** Low-rank changes of a matrix, W + scale B A, for any rectangle of it. */

export interface LowRank {
  readonly rank: number;
  /** On B A. */
  readonly scale: number;
  /** [rank, columns], row-major. */
  readonly a: Float32Array;
  /** [rows, rank], row-major. */
  readonly b: Float32Array;
}

/**
 * `out` = W + scale B A for some rows of W and its columns from `columnStart` on. `rows`: of each row, which row of B it takes; `values`: W's, row-major; `out` may be
 * `values`. The order of the sum is fixed: each element is the sum over the rank from first to last in double precision, where the products of float32
 * numbers are exact; scaled; added to W's; and rounded to float32 once. So an element depends on its position alone, and differs from a merge in float32,
 * which rounds after every step, by no more than that one's own roundings.
 */
export function addLowRank(values: Float32Array, rows: readonly number[], columnStart: number, { rank, scale, a, b }: LowRank, out: Float32Array): void {
  const columnCount = values.length / Math.max(1, rows.length);
  const columns = a.length / rank;
  const sums = new Float64Array(columnCount);
  rows.forEach((from, row) => {
    sums.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = b[from * rank + k]!;
      const first = k * columns + columnStart;
      for (let j = 0; j < columnCount; j++) sums[j]! += factor * a[first + j]!;
    }
    const at = row * columnCount;
    for (let j = 0; j < columnCount; j++) out[at + j] = values[at + j]! + scale * sums[j]!;
  });
}
