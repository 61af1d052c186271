/**
 * The arithmetic of expressions: the values of any rectangle of an output, in float64. The single ops are in
 * `units.ts`, `combine.ts` and below. A value depends on its position alone, never on how the output is cut into
 * rectangles, so that chunks, threads and resumed runs give the same bytes.
 *
 * To add an op: a variant of `Expr` (`expr.ts`), and its case here; the compiler names both and the tables beside them.
 * An op asks its operands for the rectangles it needs (a permutation: row by row; an average: the same rectangle of
 * each), draws random numbers by position (`randomStream(...).normals(out, index)`), and takes what depends on a whole
 * tensor, such as a mean, from `remembered` (`evaluation.ts`).
 */
import { matrixShape, type Rectangle, type SourceRectangle } from "../../files/numeric/rectangles.js";
import { randomStream } from "../../base/random.js";
import { toFloat32 } from "../../files/numeric/dtype.js";
import { printExpr, wholeOf, type Expr } from "./expr.js";
import { averagedValues, joinedValues } from "./combine.js";
import type { EvaluationContext, Op, OperandValues } from "./evaluation.js";
import { noisyValues, paddedValues, pickedValues, redrawnValues, shuffledValues } from "./units.js";

/** Returns fresh values of `rectangle` of an expression whose whole has `columns` columns, row-major. */
export async function valuesOf(
  expr: Expr,
  rectangle: Rectangle,
  columns: number,
  context: EvaluationContext,
): Promise<Float64Array> {
  const { rowStart, rowCount, columnStart, columnCount } = rectangle;
  const operand: OperandValues = (of, part, width) => valuesOf(of, part, width, context);
  switch (expr.op) {
    case "read":
      return readValues(expr, rectangle, context);
    case "data":
      return carriedValues(expr, rectangle, context);
    case "rows":
      return operand(expr.of, { ...rectangle, rowStart: rowStart + expr.start }, columns);
    case "columns":
      return operand(expr.of, { ...rectangle, columnStart: columnStart + expr.start }, columns);
    case "scale": {
      const values = await operand(expr.of, rectangle, columns);
      for (let i = 0; i < values.length; i++) values[i]! *= expr.by;
      return values;
    }
    case "offset": {
      const values = await operand(expr.of, rectangle, columns);
      for (let i = 0; i < values.length; i++) values[i]! += expr.by;
      return values;
    }
    case "permuteRows":
      return permutedRows(expr, rectangle, columns, operand);
    case "normal":
      return normalValues(expr, rectangle, columns, context);
    case "fill":
      return new Float64Array(rowCount * columnCount).fill(expr.value);
    case "pad":
      return paddedValues(expr, rectangle, context, operand);
    case "pick":
      return pickedValues(expr, rectangle, context, operand);
    case "noise":
      return noisyValues(expr, rectangle, columns, context, operand);
    case "redraw":
      return redrawnValues(expr, rectangle, context, operand);
    case "shuffle":
      return shuffledValues(expr, rectangle, context, operand);
    case "mean":
      return averagedValues(expr, rectangle, columns, operand);
    case "concat":
      return joinedValues(expr, rectangle, context, operand);
  }
}

async function readValues(
  expr: Op<"read">,
  rectangle: Rectangle,
  { shapes, readRectangle }: EvaluationContext,
): Promise<Float64Array> {
  const { dtype, bytes } = await readRectangle(rectangleWithin(wholeOf(expr, shapes), rectangle));
  return new Float64Array(toFloat32(dtype, bytes));
}

async function permutedRows(
  { of, order }: Op<"permuteRows">,
  rectangle: Rectangle,
  columns: number,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const { rowStart, rowCount, columnCount } = rectangle;
  const values = new Float64Array(rowCount * columnCount);
  const first = rowStart - (rowStart % order.length);
  for (let run = first; run < rowStart + rowCount; run += order.length) {
    const before = await valuesOf(of, { ...rectangle, rowStart: run, rowCount: order.length }, columns);
    order.forEach((from, i) => {
      const row = run + i - rowStart;
      if (row >= 0 && row < rowCount)
        values.set(before.subarray(from * columnCount, (from + 1) * columnCount), row * columnCount);
    });
  }
  return values;
}

function normalValues(
  { stream, std, repeat }: Op<"normal">,
  { rowStart, rowCount, columnStart, columnCount }: Rectangle,
  columns: number,
  { seed }: EvaluationContext,
): Float64Array {
  const values = new Float64Array(rowCount * columnCount);
  const deviates = randomStream(seed, stream);
  for (let row = 0; row < rowCount; row++) {
    // Row r of the output is row d = floor(r / repeat) of the drawn ones, and its column c is number d * columns + c.
    const drawnRow = Math.floor((rowStart + row) / repeat);
    const out = values.subarray(row * columnCount, (row + 1) * columnCount);
    deviates.normals(out, drawnRow * columns + columnStart, 0, std);
  }
  return values;
}

function carriedValues(
  { name, rowCount: dataRows, columnCount: width, repeat }: Op<"data">,
  rectangle: Rectangle,
  { data }: EvaluationContext,
): Float64Array {
  const matrix = data?.get(name);
  if (matrix?.length !== dataRows * width) throw new Error(`the plan carries no ${dataRows} x ${width} matrix ${name}`);
  const { rowStart, rowCount, columnStart, columnCount } = rectangle;
  const values = new Float64Array(rowCount * columnCount);
  for (let row = 0; row < rowCount; row++) {
    const from = Math.floor((rowStart + row) / repeat) * width + columnStart;
    values.set(matrix.subarray(from, from + columnCount), row * columnCount);
  }
  return values;
}

/** The rectangle of the source tensor that lies at `rectangle` within its rectangle `whole`. */
export function rectangleWithin(
  whole: SourceRectangle,
  { rowStart, rowCount, columnStart, columnCount }: Rectangle,
): SourceRectangle {
  return {
    ...whole,
    rowStart: whole.rowStart + rowStart,
    rowCount,
    columnStart: whole.columnStart + columnStart,
    columnCount,
  };
}

/** Throws a plain error, a defect of the caller, for a rectangle that does not lie inside the output's shape. */
export function requireRectangleInside(
  expr: Expr,
  shape: readonly number[],
  { rowStart, rowCount, columnStart, columnCount }: Rectangle,
): void {
  const [rows, columns] = matrixShape(shape);
  if (
    Math.min(rowStart, rowCount, columnStart, columnCount) < 0 ||
    rowStart + rowCount > rows ||
    columnStart + columnCount > columns
  ) {
    throw new Error(
      `rows ${rowStart}+${rowCount}, columns ${columnStart}+${columnCount} of [${shape.join(", ")}]: ` +
        printExpr(expr),
    );
  }
}
