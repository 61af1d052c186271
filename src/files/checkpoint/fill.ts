/** Puts the bytes of a chunk together. */
import { type Rectangle } from "../numeric/rectangles.js";
import { floatBytes } from "../numeric/dtype.js";
import { rowSpans, type SlotLayout } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { Chunk, ChunkPart } from "./chunks.js";
import type { WriteDtype } from "./plan-files.js";

/** A rectangle of a slot in `dtype`, row-major; may lie in `into`, from its beginning. */
export type MakeRectangle = (
  slot: Slot,
  rectangle: Rectangle,
  dtype: WriteDtype,
  into: Uint8Array,
) => Promise<Uint8Array>;

/** Fills `out`, of exactly the chunk's size. */
export async function fillChunk({ dtype, parts }: Chunk, make: MakeRectangle, out: Uint8Array): Promise<void> {
  for (const part of parts) {
    const { slot, rectangle, layout } = part;
    const bytes = rectangle.rowCount * rectangle.columnCount * floatBytes[dtype];
    const made = await make(slot, rectangle, dtype, layout === null ? out : new Uint8Array(bytes));
    if (made.byteLength !== bytes)
      throw new Error(
        `${slot.key}: got ${made.byteLength} bytes for ${rectangle.rowCount} rows of ${rectangle.columnCount}, ` +
          `${dtype} takes ${bytes}`,
      );
    if (layout !== null) scatter(made, part, layout, floatBytes[dtype], out);
    else if (made.buffer !== out.buffer || made.byteOffset !== out.byteOffset) out.set(made);
  }
}

function scatter(
  made: Uint8Array,
  { rectangle, first, origin }: ChunkPart,
  { base, rows, rowStride, columnStride }: SlotLayout,
  size: number,
  out: Uint8Array,
): void {
  const { rowCount, columnStart, columnCount } = rectangle;
  const rowStart = rectangle.rowStart - first;
  if (columnStride === 1 || columnCount === 1) {
    for (const { row, at, count } of rowSpans(rows, rowStart, rowCount)) {
      for (let i = 0; i < count; i++) {
        const from = (row - rowStart + i) * columnCount * size;
        out.set(
          made.subarray(from, from + columnCount * size),
          (base + (at + i) * rowStride + columnStart * columnStride - origin) * size,
        );
      }
    }
    return;
  }
  if (out.byteOffset % size !== 0)
    throw new Error(`a chunk of ${size}-byte elements begins at byte ${out.byteOffset} of its memory`);
  const [source, target] = [elements(made, size), elements(out, size)];
  for (const { row, at, count } of rowSpans(rows, rowStart, rowCount)) {
    for (let i = 0; i < count; i++) {
      const from = (row - rowStart + i) * columnCount;
      const to = base + (at + i) * rowStride - origin;
      for (let j = 0; j < columnCount; j++) target[to + (columnStart + j) * columnStride] = source[from + j]!;
    }
  }
}

/** Bit patterns, so that no value changes on its way. */
function elements(bytes: Uint8Array, size: number): Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return size === 2
    ? new Uint16Array(buffer, byteOffset, byteLength / 2)
    : new Uint32Array(buffer, byteOffset, byteLength / 4);
}
