/**
 * The arithmetic of expressions: the values of any rectangle of an output, in float64. A value depends on its position
 * alone, never on how the output is cut into rectangles, so that chunks, threads and resumed runs give the same bytes.
 *
 * To add an op: a variant of `Expr` (`expr.ts`), and its case here; the compiler names both and the tables beside them.
 * An op asks its operands for the rectangles it needs (a permutation: row by row; an average: the same rectangle of
 * each), draws random numbers by position (`randomStream(...).normals(out, index)`), and takes what depends on a whole
 * tensor, such as a mean, from `remembered`.
 */
import { type SourceRectangle, type TypedBytes, type Rectangle, matrixShape } from "../../files/numeric/rectangles.js";
import { randomStream } from "../../base/random.js";
import { toFloat32, type FloatDtype } from "../../files/numeric/dtype.js";
import { printExpr, regionOf, type Expr, type Shapes } from "./expr.js";
import { averaged, joined } from "./combine.js";
import { noisy, padded, redrawn, shuffled } from "./units.js";

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
  readonly readRegion: (region: SourceRectangle, into?: Uint8Array) => Promise<TypedBytes>;
  /** Matrices that the plan carries, row-major, by name. */
  readonly data?: ReadonlyMap<string, Float32Array> | undefined;
  /**
   * What was computed from whole tensors, by what it depends on; kept as long as the context. Left out: nothing is
   * kept.
   */
  readonly known?: Map<string, Promise<unknown>>;
}

/** Fresh values of `area` of an expression whose whole has `columns` columns, row-major. */
export async function valuesOf(
  expr: Expr,
  area: Rectangle,
  columns: number,
  context: EvaluationContext,
): Promise<Float64Array> {
  const { rowStart, rowCount, columnStart, columnCount } = area;
  switch (expr.op) {
    case "read": {
      const { dtype, bytes } = await context.readRegion(regionIn(regionOf(expr, context.shapes)!, area));
      return new Float64Array(toFloat32(dtype, bytes));
    }
    case "data":
      return carried(expr, area, context);
    case "rows":
      return valuesOf(expr.of, { ...area, rowStart: rowStart + expr.start }, columns, context);
    case "columns":
      return valuesOf(expr.of, { ...area, columnStart: columnStart + expr.start }, columns, context);
    case "scale": {
      const values = await valuesOf(expr.of, area, columns, context);
      for (let i = 0; i < values.length; i++) values[i]! *= expr.by;
      return values;
    }
    case "offset": {
      const values = await valuesOf(expr.of, area, columns, context);
      for (let i = 0; i < values.length; i++) values[i]! += expr.by;
      return values;
    }
    case "permuteRows": {
      const { of, order } = expr;
      const values = new Float64Array(rowCount * columnCount);
      const first = rowStart - (rowStart % order.length);
      for (let run = first; run < rowStart + rowCount; run += order.length) {
        const before = await valuesOf(of, { ...area, rowStart: run, rowCount: order.length }, columns, context);
        order.forEach((from, i) => {
          const row = run + i - rowStart;
          if (row >= 0 && row < rowCount)
            values.set(before.subarray(from * columnCount, (from + 1) * columnCount), row * columnCount);
        });
      }
      return values;
    }
    case "normal": {
      const values = new Float64Array(rowCount * columnCount);
      const stream = randomStream(context.seed, expr.stream);
      for (let row = 0; row < rowCount; row++) {
        // Row r of the output is drawn row floor(r / repeat); number r * columns + c of the stream stands in column c.
        const drawn = Math.floor((rowStart + row) / expr.repeat);
        stream.normals(
          values.subarray(row * columnCount, (row + 1) * columnCount),
          drawn * columns + columnStart,
          0,
          expr.std,
        );
      }
      return values;
    }
    case "fill":
      return new Float64Array(rowCount * columnCount).fill(expr.value);
    case "pad":
      return padded(expr, area, context);
    case "noise":
      return noisy(expr, area, columns, context);
    case "redraw":
      return redrawn(expr, area, context);
    case "shuffle":
      return shuffled(expr, area, context);
    case "mean":
      return averaged(expr, area, columns, context);
    case "concat":
      return joined(expr, area, context);
  }
}

function carried(
  { name, rowCount: held, columnCount: width, repeat }: Extract<Expr, { readonly op: "data" }>,
  area: Rectangle,
  { data }: EvaluationContext,
): Float64Array {
  const matrix = data?.get(name);
  if (matrix?.length !== held * width) throw new Error(`the plan carries no ${held} x ${width} matrix ${name}`);
  const { rowStart, rowCount, columnStart, columnCount } = area;
  const values = new Float64Array(rowCount * columnCount);
  for (let row = 0; row < rowCount; row++) {
    const from = Math.floor((rowStart + row) / repeat) * width + columnStart;
    values.set(matrix.subarray(from, from + columnCount), row * columnCount);
  }
  return values;
}

/** The rectangle of the source that `area` of the rectangle `whole` is. */
export function regionIn(
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

/** `compute` once for each context; `name` says all that the result depends on. */
export function remembered<T>({ known }: EvaluationContext, name: string, compute: () => Promise<T>): Promise<T> {
  const found = known?.get(name) as Promise<T> | undefined;
  if (found !== undefined) return found;
  const computed = compute();
  known?.set(name, computed);
  return computed;
}

/** Values of one visit of `eachRows`, fixed: sums taken in this order are the same for every chunk size and thread. */
const visited = 1 << 16;

/** Visits a whole expression in runs of rows, in order, for sums over a tensor that is never in memory as a whole. */
export async function eachRows(
  expr: Expr,
  shape: readonly number[],
  context: EvaluationContext,
  visit: (values: Float64Array, rowStart: number) => void,
): Promise<void> {
  const [rows, columns] = matrixShape(shape);
  const step = Math.max(1, Math.floor(visited / columns));
  for (let rowStart = 0; rowStart < rows; rowStart += step) {
    const area = { rowStart, rowCount: Math.min(step, rows - rowStart), columnStart: 0, columnCount: columns };
    visit(await valuesOf(expr, area, columns, context), rowStart);
  }
}

/** A part of the output outside its shape is a defect of the caller. */
export function requireInside(
  expr: Expr,
  shape: readonly number[],
  { rowStart, rowCount, columnStart, columnCount }: Rectangle,
): void {
  const [rows, columns] = matrixShape(shape);
  if (
    rowStart < 0 ||
    rowCount < 0 ||
    columnStart < 0 ||
    columnCount < 0 ||
    rowStart + rowCount > rows ||
    columnStart + columnCount > columns
  ) {
    throw new Error(
      `rows ${rowStart}+${rowCount}, columns ${columnStart}+${columnCount} of [${shape.join(", ")}]: ${printExpr(expr)}`,
    );
  }
}
