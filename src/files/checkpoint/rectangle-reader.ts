/** Reads rectangles of slots out of stored tensors, of any layout, in memory that does not grow with the tensor. */
import { type SourceRectangle, type TypedBytes } from "../numeric/rectangles.js";
import { floatBytes, type FloatDtype } from "../numeric/dtype.js";
import { rowSpans, type SlotLayout } from "../../model/tensors/placement.js";

/** A stored tensor that rows of a slot lie in. */
export interface RectangleSource {
  /** Equal for slots of the same stored tensor. */
  readonly name: string;
  readonly dtype: FloatDtype;
  /** Elements of the stored tensor. */
  readonly count: number;
  /** The slot's rows that lie in it. */
  readonly first: number;
  readonly rows: number;
  /** Null: the stored tensor is these rows. */
  readonly layout: SlotLayout | null;
  /** `count` stored elements from `start` on; may lie in `into`, from its beginning. */
  readonly read: (start: number, count: number, into?: Uint8Array) => Promise<Uint8Array>;
}

/** Bytes: shorter runs are cut out of blocks, which are read as a whole and remembered for the runs that follow. */
const shortRun = 1 << 17;
const blockBytes = 1 << 20;

interface Block {
  readonly memory: Uint8Array;
  /** The block's bytes, in `memory` or elsewhere. */
  readonly bytes: Promise<Uint8Array>;
  /** Readers that have not copied yet what they want. */
  users: number;
}

/**
 * Reads with a memory of `cacheBytes` for tensors that are read in short runs; `sources` are the slot's, in the order
 * of its rows, of one precision.
 */
export function openRectangleReader(
  cacheBytes = 24 << 20,
): (sources: readonly RectangleSource[], rectangle: SourceRectangle, into?: Uint8Array) => Promise<TypedBytes> {
  const blocks = new Map<string, Block>();
  const most = Math.max(1, Math.floor(cacheBytes / blockBytes));

  /**
   * Memory of the least recently used block that nobody is reading, which is forgotten; fresh memory while there is
   * room.
   */
  const spare = (): Uint8Array => {
    if (blocks.size >= most) {
      for (const [key, { users, memory }] of blocks) {
        if (users > 0) continue;
        blocks.delete(key);
        return memory;
      }
    }
    return new Uint8Array(blockBytes);
  };

  /** Copies a part of one block of a stored tensor; `from`, `count`: elements in the block; `at`: bytes in `out`. */
  const copyFromBlock = async (
    source: RectangleSource,
    index: number,
    from: number,
    count: number,
    out: Uint8Array,
    at: number,
  ): Promise<void> => {
    const size = floatBytes[source.dtype];
    const key = `${index} ${source.name}`;
    let found = blocks.get(key);
    if (found === undefined) {
      const elements = blockBytes / size;
      const memory = spare();
      const bytes = source.read(index * elements, Math.min(elements, source.count - index * elements), memory);
      found = { memory, bytes, users: 0 };
      bytes.catch(() => blocks.delete(key));
    } else {
      blocks.delete(key);
    }
    blocks.set(key, found);
    found.users++;
    try {
      out.set((await found.bytes).subarray(from * size, (from + count) * size), at);
    } finally {
      found.users--;
    }
  };

  /** Puts consecutive stored elements to `at` bytes of `out`. */
  const copy = async (
    source: RectangleSource,
    start: number,
    count: number,
    out: Uint8Array,
    at: number,
  ): Promise<void> => {
    const size = floatBytes[source.dtype];
    if (count * size >= shortRun) {
      const target = out.subarray(at, at + count * size);
      const bytes = await source.read(start, count, target);
      if (bytes.buffer !== target.buffer || bytes.byteOffset !== target.byteOffset) target.set(bytes);
      return;
    }
    const elements = blockBytes / size;
    for (let done = 0; done < count;) {
      const index = Math.floor((start + done) / elements);
      const first = start + done - index * elements;
      const some = Math.min(count - done, elements - first);
      await copyFromBlock(source, index, first, some, out, at + done * size);
      done += some;
    }
  };

  return async (sources, rectangle, into) => {
    const { rowStart, rowCount, columnCount } = rectangle;
    const parts = sources.flatMap((source): [RectangleSource, SourceRectangle][] => {
      const from = Math.max(rowStart, source.first);
      const end = Math.min(rowStart + rowCount, source.first + source.rows);
      return end <= from ? [] : [[source, { ...rectangle, rowStart: from, rowCount: end - from }]];
    });
    const [only] = parts;
    if (parts.length === 1) return readPart(...only!, into);
    const { dtype } = sources[0]!;
    const rowBytes = columnCount * floatBytes[dtype];
    const out =
      into !== undefined && into.byteLength >= rowCount * rowBytes
        ? into.subarray(0, rowCount * rowBytes)
        : new Uint8Array(rowCount * rowBytes);
    for (const [source, part] of parts)
      out.set((await readPart(source, part)).bytes, (part.rowStart - rowStart) * rowBytes);
    return { dtype, bytes: out };
  };

  /** A rectangle of rows that all lie in `source`. */
  async function readPart(source: RectangleSource, rectangle: SourceRectangle, into?: Uint8Array): Promise<TypedBytes> {
    const { rowCount, columnStart, columnCount, stride } = rectangle;
    const rowStart = rectangle.rowStart - source.first;
    const { dtype, layout } = source;
    const size = floatBytes[dtype];
    const bytes = rowCount * columnCount * size;
    // Whole rows that lie one after the other need no copy.
    const runs = layout === null ? null : [...rowSpans(layout.rows, rowStart, rowCount)];
    const oneRun = runs === null || (runs.length === 1 && layout!.columnStride === 1 && layout!.rowStride === stride);
    if (columnCount === stride && oneRun && bytes >= shortRun) {
      const first = runs === null ? rowStart * stride : layout!.base + runs[0]!.at * stride;
      return { dtype, bytes: await source.read(first, rowCount * columnCount, into) };
    }
    const out = into !== undefined && into.byteLength >= bytes ? into.subarray(0, bytes) : new Uint8Array(bytes);
    const { base, rowStride, columnStride } = layout ?? { base: 0, rowStride: stride, columnStride: 1 };
    for (const { row, at, count } of runs ?? [{ row: rowStart, at: rowStart, count: rowCount }]) {
      const first = row - rowStart;
      if (columnStride !== 1 && stride > 1) {
        await copyTransposed(
          source,
          { start: base + at * rowStride + columnStart * columnStride, count, columnCount, columnStride },
          out.subarray(first * columnCount * size, (first + count) * columnCount * size),
        );
      } else if (columnCount === stride && rowStride === stride) {
        await copy(source, base + at * rowStride, count * stride, out, first * columnCount * size);
      } else {
        for (let i = 0; i < count; i++)
          await copy(
            source,
            base + (at + i) * rowStride + columnStart,
            columnCount,
            out,
            (first + i) * columnCount * size,
          );
      }
    }
    return { dtype, bytes: out };
  }

  /** Slot rows that are columns of the stored matrix: reads the part of each stored row and transposes it. */
  async function copyTransposed(
    source: RectangleSource,
    {
      start,
      count,
      columnCount,
      columnStride,
    }: { start: number; count: number; columnCount: number; columnStride: number },
    out: Uint8Array,
  ): Promise<void> {
    const size = floatBytes[source.dtype];
    const line = new Uint8Array(count * size);
    const [from, to] = [
      asElements(line, size),
      asElements(out.byteOffset % size === 0 ? out : new Uint8Array(count * columnCount * size), size),
    ];
    for (let column = 0; column < columnCount; column++) {
      await copy(source, start + column * columnStride, count, line, 0);
      for (let row = 0; row < count; row++) to[row * columnCount + column] = from[row]!;
    }
    if (to.buffer !== out.buffer) out.set(new Uint8Array(to.buffer));
  }
}

/** Bit patterns, so that no value changes on its way. */
function asElements(
  { buffer, byteOffset, byteLength }: Uint8Array,
  size: number,
): Uint16Array | Uint32Array | Float64Array {
  const count = Math.floor(byteLength / size);
  if (size === 2) return new Uint16Array(buffer, byteOffset, count);
  return size === 4 ? new Uint32Array(buffer, byteOffset, count) : new Float64Array(buffer, byteOffset, count);
}
