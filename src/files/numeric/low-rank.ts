/**
 * Low-rank changes of a matrix, W + scale B A, for any rectangle of it.
 *
 * Letters: r rank; O rows and I columns of W [O, I], of A [r, I] and B [O, r].
 */
import { kernelMemory } from "./kernels.js";

/** The change scale B A of a matrix, in float32. */
export interface LowRank {
  readonly rank: number;
  /** The factor on B A. */
  readonly scale: number;
  /** [r, I], row-major. */
  readonly a: Float32Array;
  /** [O, r], row-major. */
  readonly b: Float32Array;
}

/**
 * What the kernel works on at a time: so many columns of A, which stay in the processor's cache, for so many rows of W.
 * Both numbers are even, and columns come in fours.
 */
const tile = { rows: 64, columns: 1024 };

/**
 * Computes `out` = W + scale B A for some rows of W and its columns from `columnStart` on. `values` are W's, row-major;
 * `rows` says which row of B each of their rows takes; `out` may be `values`. The order of the sum is fixed: each
 * element is the sum over the rank from first to last in double precision, where the products of float32 numbers are
 * exact; scaled; added to W's; and rounded to float32 once. So an element depends on its position alone, and differs
 * from a merge in float32, which rounds after every step, by no more than that one's own roundings.
 */
export function addLowRank(
  values: Float32Array,
  rows: readonly number[],
  columnStart: number,
  change: LowRank,
  out: Float32Array,
): void {
  const { rank, scale, b } = change;
  const width = values.length / Math.max(1, rows.length);
  const { kernels, w, a, factors } = workspace(rank);
  for (let first = 0; first < width; first += tile.columns) {
    const columns = Math.min(tile.columns, width - first);
    const groups = Math.ceil(columns / 4);
    pack(change, columnStart + first, columns, a);
    for (let row = 0; row < rows.length; row += tile.rows) {
      const tileRows = rows.slice(row, row + tile.rows);
      tileRows.forEach((from, i) => {
        const start = (row + i) * width + first;
        w.set(values.subarray(start, start + columns), i * 4 * groups);
        factors.set(b.subarray(from * rank, (from + 1) * rank), i * rank);
      });
      // Where the last pair of rows or the last four columns are not full, the kernel computes with whatever lay there;
      // nothing of that is copied out.
      kernels.addLowRank(
        w.byteOffset,
        a.byteOffset,
        factors.byteOffset,
        tileRows.length + (tileRows.length % 2),
        groups,
        rank,
        scale,
      );
      tileRows.forEach((_, i) => {
        out.set(w.subarray(i * 4 * groups, i * 4 * groups + columns), (row + i) * width + first);
      });
    }
  }
}

/** Packs columns of A, four by four, as [groups, r, 4]. */
function pack({ rank, a }: LowRank, columnStart: number, columns: number, into: Float32Array): void {
  const width = a.length / rank;
  for (let k = 0; k < rank; k++) {
    const from = k * width + columnStart;
    for (let j = 0; j < columns; j++) into[((j >> 2) * rank + k) * 4 + (j & 3)] = a[from + j]!;
  }
}

/** Memory for one tile, in which the kernels work. */
interface Workspace extends Pick<ReturnType<typeof kernelMemory>, "kernels"> {
  readonly w: Float32Array;
  readonly a: Float32Array;
  /** Rows of B, as float64. */
  readonly factors: Float64Array;
}

let memory: ReturnType<typeof kernelMemory> | undefined;

/** Memory for one tile, which the next call uses again if it is large enough. */
function workspace(rank: number): Workspace {
  const [w, a, factors] = [tile.rows * tile.columns, tile.columns * rank, tile.rows * rank];
  const bytes = 4 * (w + a) + 8 * factors;
  if (memory === undefined || memory.buffer.byteLength < bytes) memory = kernelMemory(bytes);
  const { buffer, kernels } = memory;
  return {
    kernels,
    w: new Float32Array(buffer, 0, w),
    a: new Float32Array(buffer, 4 * w, a),
    factors: new Float64Array(buffer, 4 * (w + a), factors),
  };
}
