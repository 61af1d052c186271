/**
 * Evaluates the expressions of a plan on typed arrays. Pure: where source tensors come from is the caller's business.
 * Results may be views of the source's arrays; do not write into them.
 */
import { randomStream } from "../base/random.js";
import { factorOf, originOf, regionOf, type Expr, type Region, type Shapes } from "./expr.js";

/** A tensor as it lies in a file: row-major, little-endian. */
export interface StoredTensor<Dtype extends string = string> {
  readonly dtype: Dtype;
  readonly bytes: Uint8Array;
}

export interface EvaluationContext {
  readonly shapes: Shapes;
  readonly seed: number;
  /** A whole source tensor as float32. */
  readonly readFloat32: (key: string) => Promise<Float32Array>;
}

/** Values of `expr`, of shape `shape`, in float32; scaling rounds once (to float32, from a double-precision product). */
export async function evaluateFloat32(expr: Expr, shape: readonly number[], context: EvaluationContext): Promise<Float32Array> {
  const base = baseOf(expr);
  const factor = factorOf(expr);
  if (base.op === "fill") return new Float32Array(elementCount(shape)).fill(base.value * factor);
  if (base.op === "normal") return drawRows(base.std * factor, base.stream, base.repeat, shape, context.seed);
  const region = originOf(expr, context.shapes)!;
  const part = copyRegion(await context.readFloat32(region.key), region);
  return factor === 1 ? part : part.map((value) => value * factor);
}

/**
 * A pure copy (read, rows, columns) as the very bytes of the source, or null if `expr` computes anything.
 * `readBytes` gives a whole source tensor.
 */
export async function evaluateCopy<Dtype extends string>(
  expr: Expr,
  shapes: Shapes,
  readBytes: (key: string) => Promise<StoredTensor<Dtype>>,
): Promise<StoredTensor<Dtype> | null> {
  const region = regionOf(expr, shapes);
  if (region === null) return null;
  const { dtype, bytes } = await readBytes(region.key);
  const width = bytes.length / elementCount(shapes.get(region.key)!);
  if (!Number.isInteger(width)) throw new Error(`${region.key}: ${bytes.length} bytes do not fit its shape`);
  return { dtype, bytes: copyRegion(bytes, inBytes(region, width)) };
}

/** The read, normal or fill at the bottom of an expression. */
function baseOf(expr: Expr): Extract<Expr, { op: "read" | "normal" | "fill" }> {
  return expr.op === "rows" || expr.op === "columns" || expr.op === "scale" ? baseOf(expr.of) : expr;
}

/** Normal rows from the beginning of the stream, each `repeat` times in a row. */
function drawRows(std: number, stream: string, repeat: number, shape: readonly number[], seed: number): Float32Array {
  const total = elementCount(shape);
  const width = total / shape[0]!;
  const drawn = new Float32Array(total / repeat);
  randomStream(seed, stream).normals(drawn, 0, 0, std);
  if (repeat === 1) return drawn;
  const out = new Float32Array(total);
  for (let row = 0; row < shape[0]!; row++) {
    const from = Math.floor(row / repeat) * width;
    out.set(drawn.subarray(from, from + width), row * width);
  }
  return out;
}

/** A rectangle counted in bytes: a row of `n` elements is a row of `n * width` bytes. */
function inBytes(region: Region, width: number): Region {
  return {
    ...region,
    columnStart: region.columnStart * width,
    columnCount: region.columnCount * width,
    stride: region.stride * width,
  };
}

/** The rectangle's values, row-major: a view where whole rows are taken, a copy otherwise. */
export function copyRegion<A extends Float32Array | Uint8Array>(whole: A, region: Region): A {
  const { rowStart, rowCount, columnStart, columnCount, stride } = region;
  if (columnCount === stride) return whole.subarray(rowStart * stride, (rowStart + rowCount) * stride) as A;
  const out = (whole instanceof Float32Array ? new Float32Array(rowCount * columnCount) : new Uint8Array(rowCount * columnCount)) as A;
  for (let row = 0; row < rowCount; row++) {
    const from = (rowStart + row) * stride + columnStart;
    out.set(whole.subarray(from, from + columnCount), row * columnCount);
  }
  return out;
}

function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
