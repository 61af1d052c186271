/** Values of the expressions that put several operands together: averages, and operands joined by rows or columns. */
import { type Rectangle } from "../../files/numeric/rectangles.js";
import { sizeOf } from "./expr.js";
import { type EvaluationContext, type Op, type OperandValues } from "./evaluation.js";

/**
 * Summed in double precision and divided once, so that the average of equal float32 values with equal weights is that
 * value: sums of fewer than 2^29 of them are exact.
 */
export async function averagedValues(
  { parts, weights }: Op<"mean">,
  rectangle: Rectangle,
  columns: number,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const total = weights.reduce((a, b) => a + b, 0);
  let sum: Float64Array | undefined;
  for (const [i, part] of parts.entries()) {
    const weight = weights[i]!;
    if (weight === 0) continue;
    const values = await valuesOf(part, rectangle, columns);
    // The first operand is no addend to zero: 0 + -0 is 0.
    const before: Float64Array | undefined = sum;
    if (before === undefined) {
      if (weight !== 1) for (let at = 0; at < values.length; at++) values[at]! *= weight;
      sum = values;
    } else {
      for (let at = 0; at < values.length; at++) before[at]! += weight * values[at]!;
    }
  }
  if (sum === undefined) throw new Error("plan averages with weights that are all zero");
  for (let at = 0; at < sum.length; at++) sum[at]! /= total;
  return sum;
}

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
    const [rows, columns] = sizeOf(part, context.shapes)!;
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
