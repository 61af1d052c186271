/**
 * What the evaluation of expressions shares: the context that it runs in, and the type of the recursive step. The files
 * that evaluate single ops (`units.ts`, `combine.ts`) get that step handed in by `values.ts`, which joins them.
 */
import type { Rectangle, SourceRectangle, TypedBytes } from "../../files/numeric/rectangles.js";
import type { FloatDtype } from "../../files/numeric/dtype.js";
import type { Expr, Shapes } from "./expr.js";

/** The variant of `Expr` whose op is `Name`. */
export type Op<Name extends Expr["op"]> = Extract<Expr, { readonly op: Name }>;

/** Where expressions get their values from: source tensors, the plan's own data, and random numbers by seed. */
export interface EvaluationContext {
  /** Shapes of the source's tensors by slot key. */
  readonly shapes: Shapes;
  /** Seed of all random streams. */
  readonly seed: number;
  /** The precision that a source tensor is read in. */
  readonly dtypeOf: (key: string, source?: number) => FloatDtype;
  /**
   * A rectangle of a source tensor, its rows one after the other. `into` is memory that the result may lie in, from its
   * beginning; whether it does is the reader's choice.
   */
  readonly readRectangle: (rectangle: SourceRectangle, into?: Uint8Array) => Promise<TypedBytes>;
  /** Matrices that the plan carries, row-major, by name. */
  readonly data?: ReadonlyMap<string, Float32Array> | undefined;
  /**
   * Results that were computed from whole tensors (`remembered`), under names that say all that they depend on. Left
   * out: such results are computed again each time.
   */
  readonly cache?: Map<string, Promise<unknown>>;
}

/**
 * Gives fresh values of `rectangle` of an operand whose whole has `columns` columns, row-major, in the context that the
 * operation itself runs in.
 */
export type OperandValues = (expr: Expr, rectangle: Rectangle, columns: number) => Promise<Float64Array>;

/** The result of `compute`, which runs once for each context; `name` says all that the result depends on. */
export function remembered<T>({ cache }: EvaluationContext, name: string, compute: () => Promise<T>): Promise<T> {
  const existing = cache?.get(name) as Promise<T> | undefined;
  if (existing !== undefined) return existing;
  const result = compute();
  cache?.set(name, result);
  return result;
}
