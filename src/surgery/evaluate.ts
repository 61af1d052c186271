/**
 * Evaluates the expressions of a plan to stored bytes. Pure: where source tensors come from is the caller's business.
 * Results may be views of the source's bytes; do not write into them.
 */
import { inputError } from "../base/errors.js";
import { randomStream } from "../base/random.js";
import { convertBytes, fromFloat32, toFloat32, type FloatDtype } from "../numeric/dtype.js";
import { factorOf, originOf, printExpr, type Expr, type Region, type Shapes } from "./expr.js";

/** A tensor as it lies in a file: row-major, little-endian. */
export interface StoredTensor {
  readonly dtype: FloatDtype;
  readonly bytes: Uint8Array;
}

export interface EvaluationContext {
  /** Shapes of the source's tensors by slot key. */
  readonly shapes: Shapes;
  readonly seed: number;
  /** A whole source tensor. */
  readonly readBytes: (key: string) => Promise<StoredTensor>;
}

/** float16 rounds everything from here on to infinity. */
const float16Overflow = 65520;

/**
 * The bytes of `expr`, of shape `shape`, in `dtype`. A pure copy in the source's own dtype is the source's bytes;
 * everything else goes through float32 and is rounded to `dtype` once.
 * Throws `input` if a value does not fit into float16.
 */
export async function evaluate(
  expr: Expr, shape: readonly number[], dtype: FloatDtype, context: EvaluationContext,
): Promise<Uint8Array> {
  const region = originOf(expr, context.shapes);
  if (region === null) return encode(drawn(expr, shape, context.seed), dtype, expr);
  const whole = await context.readBytes(region.key);
  const part = takePart(whole, region, context.shapes);
  const factor = factorOf(expr);
  if (factor !== 1) return encode(scaled(whole.dtype, part, factor), dtype, expr);
  // Float32 is only gone through where an overflow is possible: the other conversions cannot fail.
  if (dtype === "F16" && whole.dtype !== "F16") return encode(toFloat32(whole.dtype, part), dtype, expr);
  return convertBytes(whole.dtype, dtype, part);
}

/** The values of `expr` in float32. */
export async function evaluateFloat32(expr: Expr, shape: readonly number[], context: EvaluationContext): Promise<Float32Array> {
  return toFloat32("F32", await evaluate(expr, shape, "F32", context));
}

function takePart({ bytes }: StoredTensor, region: Region, shapes: Shapes): Uint8Array {
  const width = bytes.length / elementCount(shapes.get(region.key)!);
  if (!Number.isInteger(width)) throw new Error(`${region.key}: ${bytes.length} bytes do not fit its shape`);
  // A row of n elements is a row of n * width bytes.
  return copyRegion(bytes, {
    ...region,
    columnStart: region.columnStart * width,
    columnCount: region.columnCount * width,
    stride: region.stride * width,
  });
}

/** Each product is taken in double precision and rounded to float32. */
function scaled(dtype: FloatDtype, bytes: Uint8Array, factor: number): Float32Array {
  return toFloat32(dtype, bytes).map((value) => value * factor);
}

/** Values that come from no source tensor. */
function drawn(expr: Expr, shape: readonly number[], seed: number): Float32Array {
  const base = expr.op === "scale" ? expr.of : expr;
  const factor = factorOf(expr);
  if (base.op === "fill") return new Float32Array(elementCount(shape)).fill(base.value * factor);
  if (base.op === "normal") return drawRows(base.std * factor, base.stream, base.repeat, shape, seed);
  throw new Error(`plan takes a part of drawn values: ${printExpr(expr)}`);
}

/** Normal rows from the beginning of the stream, each `repeat` times in a row. */
function drawRows(std: number, stream: string, repeat: number, shape: readonly number[], seed: number): Float32Array {
  const total = elementCount(shape);
  const width = total / shape[0]!;
  const values = new Float32Array(total / repeat);
  randomStream(seed, stream).normals(values, 0, 0, std);
  if (repeat === 1) return values;
  const out = new Float32Array(total);
  for (let row = 0; row < shape[0]!; row++) {
    const from = Math.floor(row / repeat) * width;
    out.set(values.subarray(from, from + width), row * width);
  }
  return out;
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

/** The rectangle's values, row-major: a view where whole rows are taken, a copy otherwise. */
export function copyRegion<A extends Float32Array | Uint8Array>(whole: A, region: Region): A {
  const { rowStart, rowCount, columnStart, columnCount, stride } = region;
  if (columnCount === stride) return whole.subarray(rowStart * stride, (rowStart + rowCount) * stride) as A;
  const count = rowCount * columnCount;
  const out = (whole instanceof Float32Array ? new Float32Array(count) : new Uint8Array(count)) as A;
  for (let row = 0; row < rowCount; row++) {
    const from = (rowStart + row) * stride + columnStart;
    out.set(whole.subarray(from, from + columnCount), row * columnCount);
  }
  return out;
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
