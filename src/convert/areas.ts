/** The rectangles that a plan's outputs are made of, read from the source's files: the same on every thread. */
import type { Checkpoint } from "../checkpoint/open.js";
import type { MakeArea } from "../checkpoint/fill.js";
import { evaluateArea, type EvaluationContext } from "../surgery/evaluate.js";
import type { Expr } from "../surgery/expr.js";
import { sourceShapes } from "../surgery/plan.js";

/** What a thread must know of a plan: plain data. */
export interface AreaPlan {
  readonly seed: number;
  /** How each output slot is made, by its key. */
  readonly values: readonly (readonly [key: string, value: Expr])[];
}

export function areasOf(source: Checkpoint, { seed, values }: AreaPlan): MakeArea {
  const byKey = new Map(values);
  const context: EvaluationContext = {
    shapes: sourceShapes(source.spec), seed, known: new Map(), dtypeOf: source.dtypeOf, readRegion: source.readRegion,
  };
  return (slot, area, dtype, into) => evaluateArea(byKey.get(slot.key)!, slot.shape, area, dtype, context, into);
}
