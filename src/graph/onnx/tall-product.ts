/** Gradients of weights: products over the rows that two tall matrices have in common. */
import type { Lowering } from "./context.js";

export interface Tall {
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
export function tallProduct(ctx: Lowering, a: Tall, b: Tall, rows: number, readers = 1): string {
  const e = ctx.emitter;
  if (rows < MANY_ROWS) return e.matmul(a.name, b.name, { transA: true });
  const [turnA, turnB] = [rows * a.width, (rows * b.width) / readers + a.width * b.width];
  if (turnA <= turnB) return e.matmul(transposed(ctx, a.name), b.name);
  return transposed(ctx, e.matmul(transposed(ctx, b.name), a.name));
}

/** Of two axes. */
export function transposed(ctx: Lowering, name: string): string {
  return ctx.remember(`transposed ${name}`, () => [ctx.emitter.op("Transpose", [name], { perm: [1, 0] })])[0]!;
}
