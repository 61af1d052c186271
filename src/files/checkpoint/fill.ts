/**
 * Puts the bytes of a chunk together.
 *
 * Letters: R rows of a slot, C columns of it; a vector has one column.
 */
import { type Rectangle } from "../numeric/rectangles.js";
import { floatBytes } from "../numeric/dtype.js";
import { rowSpans, type SlotLayout } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { Chunk, ChunkPart } from "./chunks.js";
import type { WriteDtype } from "./plan-files.js";

/** Makes a rectangle [rowCount, columnCount] of a slot in `dtype`, row-major; it may lie at the beginning of `into`. */
export type MakeRectangle = (
  slot: Slot,
  rectangle: Rectangle,
  dtype: WriteDtype,
  into: Uint8Array,
) => Promise<Uint8Array>;

/** Fills `out`, which has exactly the chunk's size. Throws a plain Error where `make` gives another number of bytes. */
export async function fillChunk({ dtype, parts }: Chunk, make: MakeRectangle, out: Uint8Array): Promise<void> {
  for (const part of parts) {
    const { slot, rectangle, layout } = part;
    const bytes = rectangle.rowCount * rectangle.columnCount * floatBytes[dtype];
    const values = await make(slot, rectangle, dtype, layout === null ? out : new Uint8Array(bytes));
    if (values.byteLength !== bytes)
      throw new Error(
        `${slot.key}: got ${values.byteLength} bytes for ${rectangle.rowCount} rows of ${rectangle.columnCount}, ` +
          `${dtype} takes ${bytes}`,
      );
    if (layout !== null) scatter(values, part, layout, floatBytes[dtype], out);
    else if (values.buffer !== out.buffer || values.byteOffset !== out.byteOffset) out.set(values);
  }
}

/** Puts a rectangle's rows, or their single elements, where they lie in the stored tensor. */
function scatter(values: Uint8Array, part: ChunkPart, layout: SlotLayout, size: number, out: Uint8Array): void {
  if (layout.columnStride === 1 || part.rectangle.columnCount === 1) scatterRows(values, part, layout, size, out);
  else scatterElements(values, part, layout, size, out);
}

function scatterRows(
  values: Uint8Array,
  { rectangle, first, origin }: ChunkPart,
  { base, rows, rowStride, columnStride }: SlotLayout,
  size: number,
  out: Uint8Array,
): void {
  const { rowCount, columnStart, columnCount } = rectangle;
  const rowStart = rectangle.rowStart - first;
  for (const { row, at, count } of rowSpans(rows, rowStart, rowCount)) {
    for (let i = 0; i < count; i++) {
      const from = (row - rowStart + i) * columnCount * size;
      const to = (base + (at + i) * rowStride + columnStart * columnStride - origin) * size;
      out.set(values.subarray(from, from + columnCount * size), to);
    }
  }
}

function scatterElements(
  values: Uint8Array,
  { rectangle, first, origin }: ChunkPart,
  { base, rows, rowStride, columnStride }: SlotLayout,
  size: number,
  out: Uint8Array,
): void {
  const { rowCount, columnStart, columnCount } = rectangle;
  const rowStart = rectangle.rowStart - first;
  if (out.byteOffset % size !== 0)
    throw new Error(`a chunk of ${size}-byte elements begins at byte ${out.byteOffset} of its memory`);
  const [source, target] = [asElements(values, size), asElements(out, size)];
  for (const { row, at, count } of rowSpans(rows, rowStart, rowCount)) {
    for (let i = 0; i < count; i++) {
      const from = (row - rowStart + i) * columnCount;
      const to = base + (at + i) * rowStride - origin;
      for (let j = 0; j < columnCount; j++) target[to + (columnStart + j) * columnStride] = source[from + j]!;
    }
  }
}

/** Bit patterns, so that no value changes on its way. */
function asElements(bytes: Uint8Array, size: number): Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return size === 2
    ? new Uint16Array(buffer, byteOffset, byteLength / 2)
    : new Uint32Array(buffer, byteOffset, byteLength / 4);
}
