/**
 * Rectangles of matrices: parts of tensors that are read, computed and written one by one. "Rectangle" is the one word
 * for a part of a tensor; a chunk is a run of bytes of a file.
 *
 * Letters: R rows of a tensor, its first dimension; C elements of a row, the product of all others.
 */
import type { FloatDtype } from "./dtype.js";

/** A tensor, or a rectangle of one, as it lies in a file: row-major, little-endian. */
export interface TypedBytes {
  readonly dtype: FloatDtype;
  readonly bytes: Uint8Array;
}

/** A rectangle of a matrix; a vector is a matrix of one column. Units: rows and elements. */
export interface Rectangle {
  readonly rowStart: number;
  readonly rowCount: number;
  readonly columnStart: number;
  readonly columnCount: number;
}

/** A rectangle of a tensor of a source model. */
export interface SourceRectangle extends Rectangle {
  /** Slot key of the tensor. */
  readonly key: string;
  /** Number of the parent that has the tensor; the first (0) where it is left out. */
  readonly source?: number;
  /** Columns of the whole source tensor: the distance between two rows, in elements. */
  readonly stride: number;
}

/** The rectangle of `rowCount` whole rows from row `rowStart` on, in a tensor whose rows have `width` elements. */
export function wholeRows(key: string, rowStart: number, rowCount: number, width: number): SourceRectangle {
  return { key, rowStart, rowCount, columnStart: 0, columnCount: width, stride: width };
}

/** A tensor's shape seen as a matrix [R, C]; a vector is [R, 1] and a scalar [1, 1]. */
export function matrixShape(shape: readonly number[]): readonly [rows: number, columns: number] {
  const [rows = 1, ...rest] = shape;
  return [rows, rest.reduce((a, b) => a * b, 1)];
}

/**
 * The rectangle's values [rowCount, columnCount] out of the whole matrix [R, stride], both row-major: a view where
 * whole rows are asked for, a copy otherwise. Of bytes, columns and stride count bytes.
 */
export function copyRectangle<A extends Float32Array | Uint8Array>(
  whole: A,
  { rowStart, rowCount, columnStart, columnCount, stride }: Rectangle & { readonly stride: number },
): A {
  if (columnCount === stride) return whole.subarray(rowStart * stride, (rowStart + rowCount) * stride) as A;
  const count = rowCount * columnCount;
  const out = (whole instanceof Float32Array ? new Float32Array(count) : new Uint8Array(count)) as A;
  for (let row = 0; row < rowCount; row++) {
    const from = (rowStart + row) * stride + columnStart;
    out.set(whole.subarray(from, from + columnCount), row * columnCount);
  }
  return out;
}
