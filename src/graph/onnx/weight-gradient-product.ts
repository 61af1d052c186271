/** Gradients of weights: products over the rows that two tall matrices have in common. */
import type { Lowering } from "./context.js";

/** A matrix [rows, width], by the name of its ONNX value. */
export interface Factor {
  readonly name: string;
  readonly width: number;
}

/** Fewer rows stay in the processor's cache, where a transposed factor costs next to nothing. */
const MANY_ROWS = 1024;

/**
 * aᵀ b [P, Q] of a [rows, P] and b [rows, Q]. Over many rows such a product takes onnxruntime up to 1.5 times as long
 * as one of the same size without a transposition (`bench/parts.mjs`, "tall"), so one factor is transposed beforehand:
 * a, or b and then the result, whichever moves fewer elements. `readers`: how many such products have b as a factor;
 * they share its transposition.
 */
export function weightGradientProduct(ctx: Lowering, a: Factor, b: Factor, rows: number, readers = 1): string {
  const e = ctx.emitter;
  if (rows < MANY_ROWS) return e.matmul(a.name, b.name, { transA: true });
  const [transposeA, transposeB] = [rows * a.width, (rows * b.width) / readers + a.width * b.width];
  if (transposeA <= transposeB) return e.matmul(transpose(ctx, a.name), b.name);
  return transpose(ctx, e.matmul(transpose(ctx, b.name), a.name));
}

/** The transpose of a matrix, made once however often it is asked for. */
export function transpose(ctx: Lowering, name: string): string {
  return ctx.remember(`transposed ${name}`, () => ctx.emitter.op("Transpose", [name], { perm: [1, 0] }));
}
