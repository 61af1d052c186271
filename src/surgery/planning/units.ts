/**
 * Values of the expressions that treat hidden units of an FFN: zero units, noise, units drawn afresh, units in another
 * order. As everywhere, a value depends on its position alone (`values.ts`).
 */
import { type Rectangle } from "../../files/numeric/rectangles.js";
import { randomStream } from "../../base/random.js";
import { printExpr, sizeOf, type MatrixAxis, type Expr } from "./expr.js";
import { remembered, type EvaluationContext, type Op, type OperandValues } from "./evaluation.js";

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
  const chosen = randomStream(context.seed, `${stream}.where`);
  const drawn = new Float64Array(rectangle.columnCount);
  for (let row = 0; row < rectangle.rowCount; row++) {
    const index = (rectangle.rowStart + row) * columns + rectangle.columnStart;
    deviates.normals(drawn, index, 0, size);
    for (let i = 0; i < drawn.length; i++) {
      if (fraction === 1 || chosen.uniformAt(index + i) < fraction) values[row * drawn.length + i]! += drawn[i]!;
    }
  }
  return values;
}

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
  const dropped = await chosenUnits(choice, axis === "rows" ? size[0] : size[1], count, context);
  const { mean, std } = await statistics(of, { axis, name: `${choice} ${count}`, units: dropped }, context, valuesOf);
  const deviates = randomStream(context.seed, stream);
  const drawn = new Float64Array(rectangle.columnCount);
  for (let row = 0; row < rectangle.rowCount; row++) {
    if (axis === "rows" && dropped[rectangle.rowStart + row] === 0) continue;
    deviates.normals(drawn, (rectangle.rowStart + row) * columns + rectangle.columnStart, mean, std);
    for (let i = 0; i < drawn.length; i++) {
      if (axis === "rows" || dropped[rectangle.columnStart + i] === 1) values[row * drawn.length + i] = drawn[i]!;
    }
  }
  return values;
}

export async function shuffledValues(
  { of, axis, stream, undo }: Op<"shuffle">,
  rectangle: Rectangle,
  context: EvaluationContext,
  valuesOf: OperandValues,
): Promise<Float64Array> {
  const [rows, columns] = requiredSize(of, context);
  const { rowStart, rowCount, columnStart, columnCount } = rectangle;
  const order = await remembered(
    context,
    `${undo ? "order back" : "order"} ${stream} of ${axis === "rows" ? rows : columns}`,
    () => {
      const made = new Int32Array(axis === "rows" ? rows : columns);
      randomStream(context.seed, stream).permutation(made);
      return Promise.resolve(undo ? inverse(made) : made);
    },
  );
  const values = new Float64Array(rowCount * columnCount);
  if (axis === "rows") {
    for (let row = 0; row < rowCount; row++) {
      const from = { rowStart: order[rowStart + row]!, rowCount: 1, columnStart, columnCount };
      values.set(await valuesOf(of, from, columns), row * columnCount);
    }
    return values;
  }
  const whole = await valuesOf(of, { rowStart, rowCount, columnStart: 0, columnCount: columns }, columns);
  for (let row = 0; row < rowCount; row++) {
    for (let i = 0; i < columnCount; i++)
      values[row * columnCount + i] = whole[row * columns + order[columnStart + i]!]!;
  }
  return values;
}

function inverse(order: Int32Array): Int32Array {
  const back = new Int32Array(order.length);
  order.forEach((from, to) => (back[from] = to));
  return back;
}

/** Which of `size` units are among the `count` that `choice` drops: 1 for each of them. */
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
  /** Of the elements as a whole population. */
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
        sums.count++;
        sums.first += values[i]!;
        sums.second += values[i]! ** 2;
      }
    });
    const mean = sums.first / sums.count;
    return { mean, std: Math.sqrt(Math.max(0, sums.second / sums.count - mean ** 2)) };
  });
}

function requiredSize(of: Expr, { shapes }: EvaluationContext): readonly [rows: number, columns: number] {
  const size = sizeOf(of, shapes);
  if (size === null) throw new Error(`plan treats drawn values like stored ones: ${printExpr(of)}`);
  return size;
}

/** Values of one visit of `eachRows`, fixed: sums taken in this order are the same for every chunk size and thread. */
const visited = 1 << 16;

/** Visits a whole expression in runs of rows, in order, for sums over a tensor that is never in memory as a whole. */
export async function eachRows(
  expr: Expr,
  [rows, columns]: readonly [rows: number, columns: number],
  valuesOf: OperandValues,
  visit: (values: Float64Array, rowStart: number) => void,
): Promise<void> {
  const step = Math.max(1, Math.floor(visited / columns));
  for (let rowStart = 0; rowStart < rows; rowStart += step) {
    const rectangle = { rowStart, rowCount: Math.min(step, rows - rowStart), columnStart: 0, columnCount: columns };
    visit(await valuesOf(expr, rectangle, columns), rowStart);
  }
}
