/** Inner products of vectors too long to hold together: of experts' weights, and of what experts make of inputs. */
import { at } from "../base/at.js";
import { GraphBuilder } from "../graph/ir/builder.js";
import type { OperationRuntime } from "../engine/runtime/runtime.js";
import type { WeightSource } from "../evals/weight-rows.js";

/** Numbers of all vectors that are read at once. */
const AT_ONCE = 1 << 24;

/**
 * All inner products [E, E] of E stored matrices of one shape [rows, width], seen as vectors, some rows at a time.
 * Products of a piece are float32, their sum over pieces float64.
 */
export async function weightProducts(
  weights: WeightSource,
  operations: OperationRuntime,
  keys: readonly string[],
  [rows, width]: readonly [number, number],
  checkpoint: () => void,
): Promise<number[][]> {
  const sums = keys.map(() => new Array<number>(keys.length).fill(0));
  const step = Math.max(1, Math.min(rows, Math.floor(AT_ONCE / (keys.length * width))));
  for (let start = 0; start < rows; start += step) {
    checkpoint();
    const count = Math.min(step, rows - start);
    const piece = new Float32Array(keys.length * count * width);
    for (const [i, key] of keys.entries())
      piece.set((await weights.readRows(key, start, count)).subarray(0, count * width), i * count * width);
    addTo(sums, await vectorProducts(operations, piece, keys.length));
  }
  return sums;
}

/** All inner products [E, E] of the E rows of `vectors`. */
export async function vectorProducts(
  operations: OperationRuntime,
  vectors: Float32Array,
  count: number,
): Promise<number[][]> {
  const width = vectors.length / count;
  const b = new GraphBuilder();
  const [x, y] = [b.input("x", "f32", [count, width]), b.input("y", "f32", [count, width])];
  const graph = b.finish([b.linear(x, y)]);
  const [products] = await operations.run(`products ${count} ${width}`, graph, [vectors, vectors]);
  return Array.from({ length: count }, (_, i) =>
    Array.from((products as Float32Array).subarray(i * count, (i + 1) * count)),
  );
}

/** Adds one matrix to another of its sizes. */
export function addTo(sums: number[][], terms: readonly (readonly number[])[]): void {
  terms.forEach((row, i) => row.forEach((value, j) => (at(sums, i)[j]! += value)));
}

/**
 * Cosines of inner products. Two zero vectors are alike (1); one zero vector is like nothing (0).
 */
export function cosines(products: readonly (readonly number[])[]): number[][] {
  const sizes = products.map((row, i) => Math.sqrt(Math.max(0, at(row, i))));
  return products.map((row, i) =>
    row.map((product, j) => {
      const [a, b] = [at(sizes, i), at(sizes, j)];
      if (i === j || (a === 0 && b === 0)) return 1;
      return a === 0 || b === 0 ? 0 : Math.min(1, Math.max(-1, product / (a * b)));
    }),
  );
}
