/**
 * What the parts of the reference evaluation share: tensors, their rows, and arithmetic on vectors (see
 * `reference.ts`).
 *
 * Letters: M, K and N sizes of a product of matrices.
 */
import { dot } from "../../base/vectors.js";
import { at } from "../../base/at.js";
import { elements, lastSize, type ValueType } from "./ir.js";

/** A value with its elements in row-major order, in float64; integers too. */
export type Tensor = ValueType & { readonly data: Float64Array };

/** The logistic function 1 / (1 + exp(-x)). */
export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** For each element of `shape`, the index of the element of `small` it broadcasts from. */
export function broadcastIndex(small: readonly number[], shape: readonly number[]): Int32Array {
  const pad = shape.length - small.length;
  let index = Int32Array.of(0);
  let stride = elements(small);
  // Each axis puts `size` indices in the place of every one so far.
  for (const [axis, size] of shape.entries()) {
    const own = axis < pad ? 1 : at(small, axis - pad);
    stride /= own;
    const step = own === 1 ? 0 : stride;
    const outer = index;
    index = new Int32Array(outer.length * size).map((_, i) => outer[Math.floor(i / size)]! + (i % size) * step);
  }
  return index;
}

/** Elements of `x` broadcast to `shape`. */
export function broadcastTo(x: Tensor, shape: readonly number[]): Float64Array {
  const index = broadcastIndex(x.shape, shape);
  return new Float64Array(index.length).map((_, i) => x.data[index[i]!]!);
}

/** Row `index` of a matrix whose rows have `width` elements, as a view. */
export function rowOf(matrix: Float64Array, index: number, width: number): Float64Array {
  return matrix.subarray(index * width, (index + 1) * width);
}

/** Runs of `width` elements, as views. */
export function cutRows(data: Float64Array, width: number): Float64Array[] {
  return Array.from({ length: data.length / width }, (_, index) => rowOf(data, index, width));
}

/** Rows along the last axis, as views. */
export function rowViews({ shape, data }: Tensor): Float64Array[] {
  return cutRows(data, lastSize({ shape }));
}

/** The rows that `change` makes of the rows of `x` along its last axis, flat. */
export function mapRows(x: Tensor, change: (row: Float64Array, index: number) => Float64Array): Float64Array {
  const out = new Float64Array(x.data.length);
  const width = lastSize(x);
  for (const [index, row] of rowViews(x).entries()) out.set(change(row, index), index * width);
  return out;
}

/** `f` of each pair of elements of two vectors of one length. */
export function zip(a: Float64Array, b: Float64Array, f: (x: number, y: number) => number): Float64Array {
  return a.map((x, i) => f(x, b[i]!));
}

const largest = (x: Float64Array): number => x.reduce((max, value) => Math.max(max, value), -Infinity);
const total = (x: Float64Array): number => x.reduce((sum, value) => sum + value, 0);

/** Softmax of a vector. */
export function softmax(x: Float64Array): Float64Array {
  const max = largest(x);
  const weights = x.map((value) => Math.exp(value - max));
  const sum = total(weights);
  return weights.map((weight) => weight / sum);
}

/** Gradient of x where y = softmax(x): y (dy - y·dy). */
export function softmaxGrad(y: Float64Array, dy: Float64Array): Float64Array {
  const mean = dot(y, dy);
  return zip(y, dy, (p, d) => p * (d - mean));
}

/** log of the sum of exp(x) over a vector. */
export function logSumExp(x: Float64Array): number {
  const max = largest(x);
  return max + Math.log(total(x.map((value) => Math.exp(value - max))));
}

/** Sizes of a product of matrices, and which of its factors are stored transposed. */
export interface ProductShape {
  readonly m: number;
  readonly k: number;
  readonly n: number;
  readonly transA?: boolean;
  readonly transB?: boolean;
}

/** out [M, N] += op(a) [M, K] times op(b) [K, N] */
export function addProduct(
  out: Float64Array,
  a: Float64Array,
  b: Float64Array,
  { m, k, n, transA = false, transB = false }: ProductShape,
): void {
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a[transA ? p * m + i : i * k + p]! * b[transB ? j * k + p : p * n + j]!;
      out[i * n + j]! += sum;
    }
  }
}
