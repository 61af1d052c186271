/**
 * Reads rectangles of slots out of stored tensors, of any layout, in memory that does not grow with the tensor.
 *
 * Letters: R rows of a slot, C columns of it; a vector has one column.
 */
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
  /** The first of the slot's rows that lie in it. */
  readonly first: number;
  /** How many of the slot's rows lie in it. */
  readonly rows: number;
  /** Null: the stored tensor is these rows. */
  readonly layout: SlotLayout | null;
  /** `count` stored elements from `start` on; they may lie in `into`, from its beginning. */
  readonly read: (start: number, count: number, into?: Uint8Array) => Promise<Uint8Array>;
}

/** The stored tensors of one slot, in the order of its rows, of one precision. */
type SlotSources = readonly [RectangleSource, ...RectangleSource[]];

/** Bytes: shorter runs are cut out of blocks, which are read as a whole and remembered for the runs that follow. */
const shortRun = 1 << 17;
const blockBytes = 1 << 20;

/**
 * Returns a function that reads a rectangle [rowCount, columnCount] of a slot, row-major. For tensors that are read in
 * short runs it remembers up to `cacheBytes`. The result lies at the beginning of `into` where it fits.
 */
export function openRectangleReader(
  cacheBytes = 24 << 20,
): (sources: SlotSources, rectangle: SourceRectangle, into?: Uint8Array) => Promise<TypedBytes> {
  const blocks = new BlockCache(Math.max(1, Math.floor(cacheBytes / blockBytes)));
  return async (sources, rectangle, into) => {
    const { rowStart, rowCount, columnCount } = rectangle;
    const parts = sources.flatMap((source): [RectangleSource, SourceRectangle][] => {
      const from = Math.max(rowStart, source.first);
      const end = Math.min(rowStart + rowCount, source.first + source.rows);
      return end <= from ? [] : [[source, { ...rectangle, rowStart: from, rowCount: end - from }]];
    });
    const [part, ...others] = parts;
    if (part !== undefined && others.length === 0) return readPart(blocks, ...part, into);
    const [{ dtype }] = sources;
    const rowBytes = columnCount * floatBytes[dtype];
    const out = roomFor(rowCount * rowBytes, into);
    for (const [source, rows] of parts)
      out.set((await readPart(blocks, source, rows)).bytes, (rows.rowStart - rowStart) * rowBytes);
    return { dtype, bytes: out };
  };
}

function roomFor(bytes: number, into: Uint8Array | undefined): Uint8Array {
  return into !== undefined && into.byteLength >= bytes ? into.subarray(0, bytes) : new Uint8Array(bytes);
}

/** Reads a rectangle whose rows all lie in `source`. */
async function readPart(
  blocks: BlockCache,
  source: RectangleSource,
  rectangle: SourceRectangle,
  into?: Uint8Array,
): Promise<TypedBytes> {
  const { rowCount, columnStart, columnCount, stride } = rectangle;
  const rowStart = rectangle.rowStart - source.first;
  const { dtype, layout } = source;
  const size = floatBytes[dtype];
  const bytes = rowCount * columnCount * size;
  const { base, rowStride, columnStride } = layout ?? { base: 0, rowStride: stride, columnStride: 1 };
  const spans =
    layout === null
      ? [{ row: rowStart, at: rowStart, count: rowCount }]
      : [...rowSpans(layout.rows, rowStart, rowCount)];
  const isTransposed = columnStride !== 1 && stride > 1;
  const isWholeRows = !isTransposed && columnCount === stride && rowStride === stride;
  const [span, ...others] = spans;
  // Whole rows that lie one after the other need no copy.
  if (isWholeRows && span !== undefined && others.length === 0 && bytes >= shortRun)
    return { dtype, bytes: await source.read(base + span.at * stride, rowCount * columnCount, into) };
  const out = roomFor(bytes, into);
  const rowBytes = columnCount * size;
  for (const { row, at, count } of spans) {
    const first = row - rowStart;
    const target = out.subarray(first * rowBytes, (first + count) * rowBytes);
    const start = base + at * rowStride + columnStart * columnStride;
    if (isTransposed) await copyTransposed(blocks, source, { start, count, columnCount, columnStride }, target);
    else if (isWholeRows) await copyRun(blocks, source, start, count * stride, target, 0);
    else {
      for (let i = 0; i < count; i++)
        await copyRun(blocks, source, base + (at + i) * rowStride + columnStart, columnCount, target, i * rowBytes);
    }
  }
  return { dtype, bytes: out };
}

/** Slot rows that are columns of the stored matrix, the first element of the first of them at `start`. */
interface StoredColumns {
  readonly start: number;
  /** Rows of the slot. */
  readonly count: number;
  readonly columnCount: number;
  readonly columnStride: number;
}

/** Reads [columnCount, count] of the stored matrix, row by row, and puts it into `out` as [count, columnCount]. */
async function copyTransposed(
  blocks: BlockCache,
  source: RectangleSource,
  { start, count, columnCount, columnStride }: StoredColumns,
  out: Uint8Array,
): Promise<void> {
  const size = floatBytes[source.dtype];
  const line = new Uint8Array(count * size);
  const [from, to] = [
    asElements(line, size),
    asElements(out.byteOffset % size === 0 ? out : new Uint8Array(count * columnCount * size), size),
  ];
  for (let column = 0; column < columnCount; column++) {
    await copyRun(blocks, source, start + column * columnStride, count, line, 0);
    for (let row = 0; row < count; row++) to[row * columnCount + column] = from[row]!;
  }
  if (to.buffer !== out.buffer) out.set(new Uint8Array(to.buffer));
}

/** Puts `count` consecutive stored elements from `start` on to byte `at` of `out`. */
async function copyRun(
  blocks: BlockCache,
  source: RectangleSource,
  start: number,
  count: number,
  out: Uint8Array,
  at: number,
): Promise<void> {
  const size = floatBytes[source.dtype];
  if (count * size >= shortRun) {
    const target = out.subarray(at, at + count * size);
    const bytes = await source.read(start, count, target);
    if (bytes.buffer !== target.buffer || bytes.byteOffset !== target.byteOffset) target.set(bytes);
    return;
  }
  const blockElements = blockBytes / size;
  for (let done = 0; done < count;) {
    const index = Math.floor((start + done) / blockElements);
    const from = start + done - index * blockElements;
    const length = Math.min(count - done, blockElements - from);
    await blocks.copy(source, index, { from, count: length }, out, at + done * size);
    done += length;
  }
}

interface Block {
  readonly memory: Uint8Array;
  /** The block's bytes, in `memory` or elsewhere. */
  readonly bytes: Promise<Uint8Array>;
  /** Readers that have not copied yet what they want. */
  users: number;
}

/** Remembers the blocks of stored tensors that were used last. */
class BlockCache {
  /** The least recently used first. */
  readonly #blocks = new Map<string, Block>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Copies elements of block `index` of a stored tensor to byte `at` of `out`. */
  async copy(
    source: RectangleSource,
    index: number,
    { from, count }: { readonly from: number; readonly count: number },
    out: Uint8Array,
    at: number,
  ): Promise<void> {
    const size = floatBytes[source.dtype];
    const block = this.#use(source, index);
    block.users++;
    try {
      out.set((await block.bytes).subarray(from * size, (from + count) * size), at);
    } finally {
      block.users--;
    }
  }

  /** The block, which is the most recently used one from now on; it is read if it is not remembered. */
  #use(source: RectangleSource, index: number): Block {
    const key = `${index} ${source.name}`;
    const block = this.#blocks.get(key) ?? this.#read(source, index, key);
    this.#blocks.delete(key);
    this.#blocks.set(key, block);
    return block;
  }

  #read(source: RectangleSource, index: number, key: string): Block {
    const blockElements = blockBytes / floatBytes[source.dtype];
    const start = index * blockElements;
    const count = Math.min(blockElements, source.count - start);
    const memory = this.#spareMemory(count * floatBytes[source.dtype]);
    const bytes = source.read(start, count, memory);
    bytes.catch(() => this.#blocks.delete(key));
    return { memory, bytes, users: 0 };
  }

  /**
   * Memory of the least recently used block that nobody is reading, which is forgotten; fresh memory while there is
   * room, where all blocks are being read, and where that block was a small one.
   */
  #spareMemory(bytes: number): Uint8Array {
    if (this.#blocks.size >= this.#capacity) {
      for (const [key, { users, memory }] of this.#blocks) {
        if (users > 0) continue;
        this.#blocks.delete(key);
        if (memory.byteLength >= bytes) return memory;
        break;
      }
    }
    return new Uint8Array(bytes);
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
