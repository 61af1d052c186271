/**
 * Values of the expressions that treat hidden units of an FFN: zero units, noise, units drawn afresh, units in another
 * order, units picked one by one. As everywhere, a value depends on its position alone (`values.ts`).
 */
import type { Rectangle } from "../../files/numeric/rectangles.js";
import { randomStream } from "../../base/random.js";
import { printExpr, sizeOf, type MatrixAxis, type Expr } from "./expr.js";
import { remembered, type EvaluationContext, type Op, type OperandValues } from "./evaluation.js";

/** Values of a rectangle of an operand with zeros behind its last row and column. */
export async function paddedValues(
  { of }: Op<"pad">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const [rows, columns] = requiredSize(of, context);
  const { rowStart, columnStart, columnCount } = rectangle;
  const rowCount = Math.max(0, Math.min(rectangle.rowCount, rows - rowStart));
  const present = Math.max(0, Math.min(columnCount, columns - columnStart));
  const values = new Float64Array(rectangle.rowCount * columnCount);
  if (rowCount === 0 || present === 0) return values;
  const inside = await valuesOf(of, { rowStart, rowCount, columnStart, columnCount: present }, columns);
  for (let row = 0; row < rowCount; row++)
    values.set(inside.subarray(row * present, (row + 1) * present), row * columnCount);
  return values;
}

/** Values of a rectangle of an operand with normal deviates added to a share of its elements. */
export async function noisyValues(
  expr: Op<"noise">,
  rectangle: Rectangle,
  outerColumns: number,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const { of, std, relative, fraction, stream } = expr;
  const columns = sizeOf(of, context.shapes)?.[1] ?? outerColumns;
  const values = await valuesOf(of, rectangle, columns);
  const size = relative ? std * (await statistics(of, null, context, valuesOf)).std : std;
  const deviates = randomStream(context.seed, stream);
  const places = randomStream(context.seed, `${stream}.where`);
  const noise = new Float64Array(rectangle.columnCount);
  for (let row = 0; row < rectangle.rowCount; row++) {
    const index = (rectangle.rowStart + row) * columns + rectangle.columnStart;
    deviates.normals(noise, index, 0, size);
    for (let i = 0; i < noise.length; i++) {
      if (fraction === 1 || places.uniformAt(index + i) < fraction) values[row * noise.length + i]! += noise[i]!;
    }
  }
  return values;
}

/** Values of a rectangle of an operand some of whose units are drawn anew, with the mean and std that they had. */
export async function redrawnValues(
  expr: Op<"redraw">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const { of, axis, count, choice, stream } = expr;
  const size = requiredSize(of, context);
  const columns = size[1];
  const values = await valuesOf(of, rectangle, columns);
  if (count === 0) return values;
  const isDropped = await chosenUnits(choice, axis === "rows" ? size[0] : size[1], count, context);
  const { mean, std } = await statistics(of, { axis, name: `${choice} ${count}`, units: isDropped }, context, valuesOf);
  const deviates = randomStream(context.seed, stream);
  const fresh = new Float64Array(rectangle.columnCount);
  for (let row = 0; row < rectangle.rowCount; row++) {
    if (axis === "rows" && isDropped[rectangle.rowStart + row] === 0) continue;
    deviates.normals(fresh, (rectangle.rowStart + row) * columns + rectangle.columnStart, mean, std);
    for (let i = 0; i < fresh.length; i++) {
      if (axis === "rows" || isDropped[rectangle.columnStart + i] === 1) values[row * fresh.length + i] = fresh[i]!;
    }
  }
  return values;
}

/** Values of a rectangle of an operand whose units are in a random order, or brought back from it. */
export async function shuffledValues(
  { of, axis, stream, undo }: Op<"shuffle">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const [rows, columns] = requiredSize(of, context);
  const order = await orderOf(stream, axis === "rows" ? rows : columns, undo === true, context);
  return reordered(of, axis, order, rectangle, columns, valuesOf);
}

/** Values of a rectangle of the units of an operand that a list of the plan names. */
export function pickedValues(
  expr: Op<"pick">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const { of, axis, name, start, count } = expr;
  const [rows, columns] = requiredSize(of, context);
  const picked = context.data?.get(name)?.subarray(start, start + count);
  const units = axis === "rows" ? rows : columns;
  if (picked?.length !== count || picked.some((unit) => !(unit >= 0 && unit < units)))
    throw new Error(`the plan carries no list that names ${count} of ${units} units: ${printExpr(expr)}`);
  return reordered(of, axis, picked, rectangle, columns, valuesOf);
}

/** A rectangle of rows (or columns) that stand in the order that `order` names; the operand has `columns` columns. */
async function reordered(
  of: Expr,
  axis: MatrixAxis,
  order: Int32Array | Float32Array,
  { rowStart, rowCount, columnStart, columnCount }: Rectangle,
  columns: number,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const values = new Float64Array(rowCount * columnCount);
  if (axis === "rows") {
    for (const [row, from] of order.subarray(rowStart, rowStart + rowCount).entries()) {
      const area = { rowStart: from, rowCount: 1, columnStart, columnCount };
      values.set(await valuesOf(of, area, columns), row * columnCount);
    }
    return values;
  }
  const whole = await valuesOf(of, { rowStart, rowCount, columnStart: 0, columnCount: columns }, columns);
  const sources = order.subarray(columnStart, columnStart + columnCount);
  for (let row = 0; row < rowCount; row++) {
    for (let i = 0; i < columnCount; i++) values[row * columnCount + i] = whole[row * columns + sources[i]!]!;
  }
  return values;
}

/** Where each of `size` units comes from in the order that `stream` draws, or in its inverse. */
function orderOf(stream: string, size: number, inverted: boolean, context: EvaluationContext): Promise<Int32Array> {
  return remembered(context, `${inverted ? "order back" : "order"} ${stream} of ${size}`, () => {
    const order = new Int32Array(size);
    randomStream(context.seed, stream).permutation(order);
    return Promise.resolve(inverted ? inverse(order) : order);
  });
}

function inverse(order: Int32Array): Int32Array {
  const back = new Int32Array(order.length);
  order.forEach((from, to) => (back[from] = to));
  return back;
}

/** For each of `size` units 1 if it is among the `count` that the stream `choice` drops, else 0. */
function chosenUnits(choice: string, size: number, count: number, context: EvaluationContext): Promise<Uint8Array> {
  return remembered(context, `choice ${choice}: ${count} of ${size}`, () => {
    const order = new Int32Array(size);
    randomStream(context.seed, choice).permutation(order);
    const chosen = new Uint8Array(size);
    for (const unit of order.subarray(0, count)) chosen[unit] = 1;
    return Promise.resolve(chosen);
  });
}

interface Statistics {
  readonly mean: number;
  /** Standard deviation of the elements as a whole population. */
  readonly std: number;
}

/** Mean and standard deviation of an expression's elements, or of its chosen rows or columns. */
function statistics(
  of: Expr,
  part: { readonly axis: MatrixAxis; readonly name: string; readonly units: Uint8Array } | null,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Statistics> {
  const which = part === null ? "all" : `${part.axis} ${part.name}`;
  return remembered(context, `mean and std of ${printExpr(of)}: ${which}`, async () => {
    const size = requiredSize(of, context);
    const sums = { count: 0, first: 0, second: 0 };
    await eachRows(of, size, valuesOf, (values, rowStart) => {
      for (let i = 0; i < values.length; i++) {
        const unit = part?.axis === "rows" ? rowStart + Math.floor(i / size[1]) : i % size[1];
        if (part !== null && part.units[unit] === 0) continue;
        const value = values[i]!;
        sums.count++;
        sums.first += value;
        sums.second += value ** 2;
      }
    });
    const mean = sums.first / sums.count;
    return { mean, std: Math.sqrt(Math.max(0, sums.second / sums.count - mean ** 2)) };
  });
}

/** Rows and columns of an operand. Throws a plain error (a defect of the plan) for drawn values, which have none. */
export function requiredSize(of: Expr, { shapes }: EvaluationContext): readonly [rows: number, columns: number] {
  const size = sizeOf(of, shapes);
  if (size === null) throw new Error(`plan treats drawn values like stored ones: ${printExpr(of)}`);
  return size;
}

/**
 * How many values one visit of `eachRows` gets. It is fixed, so that sums are taken in the same order for every chunk
 * size and thread.
 */
const valuesPerVisit = 1 << 16;

/** Visits a whole expression in runs of rows, in order, for sums over a tensor that is never in memory as a whole. */
export async function eachRows(
  expr: Expr,
  [rows, columns]: readonly [rows: number, columns: number],
  valuesOf: OperandValues,
  visit: (values: Float64Array, rowStart: number) => void,
): Promise<void> {
  const step = Math.max(1, Math.floor(valuesPerVisit / columns));
  for (let rowStart = 0; rowStart < rows; rowStart += step) {
    const rectangle = { rowStart, rowCount: Math.min(step, rows - rowStart), columnStart: 0, columnCount: columns };
    visit(await valuesOf(expr, rectangle, columns), rowStart);
  }
}
