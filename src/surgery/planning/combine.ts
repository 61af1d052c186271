/** Values of the expressions that put several operands together: averages, and operands joined by rows or columns. */
import type { Rectangle } from "../../files/numeric/rectangles.js";
import { at } from "../../base/at.js";
import { sizeOf } from "./expr.js";
import type { EvaluationContext, Op, OperandValues } from "./evaluation.js";
import { requiredSize } from "./units.js";

/**
 * Values of a rectangle of a weighted average. They are summed in double precision and divided once, so that the
 * average of equal float32 values with equal weights is that value: sums of fewer than 2^29 of them are exact.
 */
export async function averagedValues(
  { parts, weights }: Op<"mean">,
  rectangle: Rectangle,
  columns: number,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const total = weights.reduce((a, b) => a + b, 0);
  const operands = parts.map((part, i) => ({ part, weight: at(weights, i) })).filter(({ weight }) => weight !== 0);
  const [first, ...others] = operands;
  if (first === undefined) throw new Error("plan averages with weights that are all zero");
  // The sum begins with the first operand, not with zeros: 0 + -0 is 0.
  const sum = await valuesOf(first.part, rectangle, columns);
  if (first.weight !== 1) for (let i = 0; i < sum.length; i++) sum[i]! *= first.weight;
  for (const { part, weight } of others) {
    const values = await valuesOf(part, rectangle, columns);
    for (let i = 0; i < sum.length; i++) sum[i]! += weight * values[i]!;
  }
  for (let i = 0; i < sum.length; i++) sum[i]! /= total;
  return sum;
}

/** Values of a rectangle of operands that lie one below the other or side by side. */
export async function joinedValues(
  expr: Op<"concat">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const { parts, axis } = expr;
  // Also refuses operands that do not fit together.
  sizeOf(expr, context.shapes);
  const { rowStart, rowCount, columnStart, columnCount } = rectangle;
  const [start, count] = axis === "rows" ? [rowStart, rowCount] : [columnStart, columnCount];
  const values = new Float64Array(rowCount * columnCount);
  let before = 0;
  for (const part of parts) {
    const [rows, columns] = requiredSize(part, context);
    const size = axis === "rows" ? rows : columns;
    const [from, to] = [Math.max(start, before), Math.min(start + count, before + size)];
    if (from < to) {
      const inside =
        axis === "rows"
          ? { ...rectangle, rowStart: from - before, rowCount: to - from }
          : { ...rectangle, columnStart: from - before, columnCount: to - from };
      const own = await valuesOf(part, inside, columns);
      if (axis === "rows") values.set(own, (from - start) * columnCount);
      else
        for (let row = 0; row < rowCount; row++)
          values.set(own.subarray(row * (to - from), (row + 1) * (to - from)), row * columnCount + from - start);
    }
    before += size;
  }
  return values;
}
