/**
 * What the evaluation of expressions shares: the context that it runs in, and the type of the recursive step. The files
 * that evaluate single ops (`units.ts`, `combine.ts`) get that step handed in by `values.ts`, which joins them.
 */
import { type Rectangle, type SourceRectangle, type TypedBytes } from "../../files/numeric/rectangles.js";
import { type FloatDtype } from "../../files/numeric/dtype.js";
import { type Expr, type Shapes } from "./expr.js";

/** The variant of `Expr` whose op is `Name`. */
export type Op<Name extends Expr["op"]> = Extract<Expr, { readonly op: Name }>;

export interface EvaluationContext {
  /** Shapes of the source's tensors by slot key. */
  readonly shapes: Shapes;
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
   * What was computed from whole tensors, by what it depends on; kept as long as the context. Left out: nothing is
   * kept.
   */
  readonly cache?: Map<string, Promise<unknown>>;
}

/**
 * Gives fresh values of `rectangle` of an operand whose whole has `columns` columns, row-major, in the context that the
 * operation itself runs in.
 */
export type OperandValues = (expr: Expr, rectangle: Rectangle, columns: number) => Promise<Float64Array>;

/** `compute` once for each context; `name` says all that the result depends on. */
export function remembered<T>(
  { cache: known }: EvaluationContext,
  name: string,
  compute: () => Promise<T>,
): Promise<T> {
  const found = known?.get(name) as Promise<T> | undefined;
  if (found !== undefined) return found;
  const computed = compute();
  known?.set(name, computed);
  return computed;
}
