/** What the parts of the reference evaluation share: tensors, and loops over their rows (see `reference.ts`). */
import { elements, type ValueType } from "./ir.js";

/** A value with its elements in row-major order, in float64; integers too. */
export type Tensor = ValueType & { readonly data: Float64Array };

export const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** For each element of `shape`, the index of the element of `small` it broadcasts from. */
export function broadcastIndex(small: readonly number[], shape: readonly number[]): Int32Array {
  const index = new Int32Array(elements(shape));
  const pad = shape.length - small.length;
  const strides: number[] = new Array<number>(shape.length).fill(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= pad; axis--) {
    const size = small[axis - pad]!;
    strides[axis] = size === 1 ? 0 : stride;
    stride *= size;
  }
  const at = new Array<number>(shape.length).fill(0);
  for (let i = 0, offset = 0; i < index.length; i++) {
    index[i] = offset;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      at[axis]!++;
      offset += strides[axis]!;
      if (at[axis]! < shape[axis]!) break;
      offset -= strides[axis]! * shape[axis]!;
      at[axis] = 0;
    }
  }
  return index;
}

/** Calls `f` with the start of each row of length `last axis`. */
export function eachRow(tensor: ValueType, f: (start: number, length: number, row: number) => void): void {
  const length = tensor.shape.at(-1)!;
  const count = elements(tensor.shape) / length;
  for (let row = 0; row < count; row++) f(row * length, length, row);
}

export function softmaxRow(x: Float64Array, start: number, length: number, out: Float64Array): void {
  let max = -Infinity;
  for (let i = 0; i < length; i++) max = Math.max(max, x[start + i]!);
  let sum = 0;
  for (let i = 0; i < length; i++) sum += out[start + i] = Math.exp(x[start + i]! - max);
  for (let i = 0; i < length; i++) out[start + i]! /= sum;
}

export function logSumExpRow(x: Float64Array, start: number, length: number): number {
  let max = -Infinity;
  for (let i = 0; i < length; i++) max = Math.max(max, x[start + i]!);
  let sum = 0;
  for (let i = 0; i < length; i++) sum += Math.exp(x[start + i]! - max);
  return max + Math.log(sum);
}

/** out [m, n] += op(a) [m, k] times op(b) [k, n], from element offsets. */
export function matmulInto(
  out: Float64Array,
  a: Float64Array,
  b: Float64Array,
  m: number,
  k: number,
  n: number,
  transA: boolean,
  transB: boolean,
  at = { out: 0, a: 0, b: 0 },
): void {
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) {
        sum += a[at.a + (transA ? p * m + i : i * k + p)]! * b[at.b + (transB ? j * k + p : p * n + j)]!;
      }
      out[at.out + i * n + j]! += sum;
    }
  }
}
