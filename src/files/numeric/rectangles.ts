/** Rectangles of matrices: parts of tensors that are read, computed and written one by one. */
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
  /** Which parent's; left out, the first's. */
  readonly source?: number;
  /** Columns of the whole source tensor: the distance between two rows, in elements. */
  readonly stride: number;
}

/** Rows of `shape`, and elements of a row. */
export function matrixShape(shape: readonly number[]): readonly [rows: number, columns: number] {
  const [rows = 1, ...rest] = shape;
  return [rows, rest.reduce((a, b) => a * b, 1)];
}

/** The rectangle's values out of the whole matrix, row-major: a view where whole rows are taken, a copy otherwise. */
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
