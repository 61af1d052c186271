/** The rectangles that a plan's outputs are made of, read from the parents' files: the same on every thread. */
import { at, entryOf } from "../../base/at.js";
import type { MakeRectangle } from "../../files/checkpoint/fill.js";
import { evaluateRectangle } from "../planning/evaluate.js";
import type { EvaluationContext } from "../planning/evaluation.js";
import type { Expr } from "../planning/expr.js";
import { sourceShapes } from "../planning/plan.js";
import type { Parents } from "./parents.js";
import { matricesOf, type PlanMatrix } from "../planning/router-rows.js";

/** What a thread must know of a plan, as plain data. */
export interface AreaPlan {
  /** Seed of everything that expressions draw. */
  readonly seed: number;
  /** How each output slot is made, by its key. */
  readonly values: readonly (readonly [key: string, value: Expr])[];
  /** Matrices that expressions name. */
  readonly data: readonly PlanMatrix[];
}

/** Makes any rectangle of any output of a plan, in the precision asked for. `parents`: the base first. */
export function areasOf(parents: Parents, { seed, values, data }: AreaPlan): MakeRectangle {
  const byKey = new Map(values);
  const context: EvaluationContext = {
    shapes: sourceShapes(parents[0].spec),
    seed,
    data: matricesOf(data),
    cache: new Map(),
    dtypeOf: (key, source = 0) => at(parents, source).dtypeOf(key),
    readRectangle: (rectangle, into) => at(parents, rectangle.source ?? 0).readRectangle(rectangle, into),
  };
  return ({ key, shape }, area, dtype, into) =>
    evaluateRectangle(entryOf(byKey, key), shape, area, dtype, context, into);
}
