/**
 * Evaluates the expressions of a plan to stored bytes, some rows at a time: memory follows the rectangle asked for,
 * never the tensor. Pure: where source tensors come from is the caller's business. Results may be views of the source's
 * bytes; do not write into them.
 */
import { matrixShape, type Rectangle, type SourceRectangle, type TypedBytes } from "../../files/numeric/rectangles.js";
import { inputError } from "../../base/errors.js";
import { floatBytes, fromFloat32, toFloat32, type FloatDtype } from "../../files/numeric/dtype.js";
import { factorOf, originOf, printExpr, type Expr } from "./expr.js";
import { halvesTable, lookUp } from "./table.js";
import type { EvaluationContext } from "./evaluation.js";
import { rectangleWithin, requireRectangleInside, valuesOf } from "./values.js";

/** float16 rounds everything from here on to infinity. */
const float16Overflow = 65520;

/** Elements that are computed at a time. */
const computedAtOnce = 1 << 16;
/** Elements of a source that are read and converted at a time: with fewer, the calls would take longer than reading. */
const convertedAtOnce = 1 << 18;

/**
 * Computes a rectangle of `expr`, whose whole has shape `shape`, in `dtype`, row-major. `into` is memory that the
 * result may lie in, from its beginning. A pure copy in the source's own dtype is the source's bytes; everything else
 * goes through float32 and is rounded to `dtype` once. Throws inputError if a value does not fit into float16.
 */
export async function evaluateRectangle(
  expr: Expr,
  shape: readonly number[],
  rectangle: Rectangle,
  dtype: FloatDtype,
  context: EvaluationContext,
  into?: Uint8Array,
): Promise<Uint8Array> {
  requireRectangleInside(expr, shape, rectangle);
  const origin = originOf(expr, context.shapes);
  const factor = factorOf(expr);
  const from = origin === null ? null : context.dtypeOf(origin.key, origin.source);
  if (origin !== null && factor === 1 && from === dtype)
    return (await readSized(origin, rectangle, context, into)).bytes;
  const out = memoryFor(into, rectangle, dtype);
  const [, columns] = matrixShape(shape);
  const rowBytes = rectangle.columnCount * floatBytes[dtype];
  const step = Math.max(
    1,
    Math.floor((origin === null ? computedAtOnce : convertedAtOnce) / Math.max(1, rectangle.columnCount)),
  );
  const scratch =
    from === null ? undefined : borrow(Math.min(step, rectangle.rowCount) * rectangle.columnCount * floatBytes[from]);
  const table = from === null ? null : tableFor(from, dtype, factor, shape);
  for (let row = 0; row < rectangle.rowCount; row += step) {
    const part = {
      ...rectangle,
      rowStart: rectangle.rowStart + row,
      rowCount: Math.min(step, rectangle.rowCount - row),
    };
    const target = out.subarray(row * rowBytes, (row + part.rowCount) * rowBytes);
    if (origin === null) {
      target.set(encode(Float32Array.from(await valuesOf(expr, part, columns, context)), dtype, expr));
      continue;
    }
    const read = await readSized(origin, part, context, scratch);
    if (table !== null) lookUp(table, read.bytes, target);
    else target.set(encode(scaled(toFloat32(read.dtype, read.bytes), factor), dtype, expr));
  }
  if (scratch !== undefined) spare.push(scratch);
  return out;
}

/**
 * Memory that earlier calls have read into, for the next call: fresh memory for every chunk would keep the garbage
 * collector busy.
 */
const spare: Uint8Array[] = [];
const mostSpare = 4;

function borrow(bytes: number): Uint8Array {
  const memory = spare.pop();
  if (memory !== undefined && memory.byteLength >= bytes) return memory;
  spare.length = Math.min(spare.length, mostSpare);
  return new Uint8Array(bytes);
}

/** Computes the bytes of the whole of `expr`. */
export function evaluateExpr(
  expr: Expr,
  shape: readonly number[],
  dtype: FloatDtype,
  context: EvaluationContext,
): Promise<Uint8Array> {
  const [rowCount, columnCount] = matrixShape(shape);
  return evaluateRectangle(expr, shape, { rowStart: 0, rowCount, columnStart: 0, columnCount }, dtype, context);
}

/** Computes the values of `expr` in float32. */
export async function evaluateFloat32(
  expr: Expr,
  shape: readonly number[],
  context: EvaluationContext,
): Promise<Float32Array> {
  return toFloat32("F32", await evaluateExpr(expr, shape, "F32", context));
}

function memoryFor(into: Uint8Array | undefined, { rowCount, columnCount }: Rectangle, dtype: FloatDtype): Uint8Array {
  const bytes = rowCount * columnCount * floatBytes[dtype];
  return into !== undefined && into.byteLength >= bytes ? into.subarray(0, bytes) : new Uint8Array(bytes);
}

async function readSized(
  origin: SourceRectangle,
  rectangle: Rectangle,
  context: EvaluationContext,
  into?: Uint8Array,
): Promise<TypedBytes> {
  const read = await context.readRectangle(rectangleWithin(origin, rectangle), into);
  const expected = rectangle.rowCount * rectangle.columnCount * floatBytes[read.dtype];
  if (read.bytes.byteLength !== expected)
    throw new Error(`${origin.key}: got ${read.bytes.byteLength} bytes, expected ${expected}`);
  return read;
}

/**
 * The table that converts 16-bit values of a tensor, or null. A table pays off if it is used more often than it has
 * entries. There is none for float16 outputs, because a table would not notice overflows.
 */
function tableFor(
  from: FloatDtype,
  to: FloatDtype,
  factor: number,
  shape: readonly number[],
): ReturnType<typeof halvesTable> | null {
  const large = shape.reduce((a, b) => a * b, 1) > 1 << 16;
  return large && (from === "BF16" || from === "F16") && to !== "F16" && to !== "F64"
    ? halvesTable(from, to, factor)
    : null;
}

/** Each product is taken in double precision and rounded to float32. */
function scaled(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map((value) => value * factor);
}

function encode(values: Float32Array, dtype: FloatDtype, expr: Expr): Uint8Array {
  if (dtype === "F16") {
    const tooLarge = values.find((value) => Math.abs(value) >= float16Overflow && Math.abs(value) !== Infinity);
    if (tooLarge !== undefined) {
      throw inputError(`the value ${tooLarge.toPrecision(4)} does not fit into float16, which ends at 65504`, {
        where: printExpr(expr),
        hint: "write bfloat16 or float32",
      });
    }
  }
  return fromFloat32(dtype, values);
}
