/**
 * Cuts the weight files into chunks: runs of bytes that are made in one go, in memory that is bounded whatever the
 * tensors' sizes. A chunk is plain data and depends on nothing but the plan, so that it can be made on any thread, in
 * any order, and again after an interruption.
 */
import { matrixShape, type Rectangle } from "../numeric/rectangles.js";
import { floatBytes } from "../numeric/dtype.js";
import { rowSpans, type SlotLayout, type Placement } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { PlannedFile, FileTensor, WriteDtype } from "./plan-files.js";

/** A rectangle of a slot, and where it goes in the chunk. */
export interface ChunkPart {
  readonly slot: Slot;
  readonly rectangle: Rectangle;
  /**
   * The chunk is the rectangle, row by row; else the slot's elements from row `first` on lie in the stored tensor like
   * this ...
   */
  readonly layout: SlotLayout | null;
  readonly first: number;
  /** ... whose element `origin` the chunk begins with. */
  readonly origin: number;
}

interface ChunkPlace {
  /** Index of the file. */
  readonly file: number;
  /** In the file. */
  readonly offset: number;
}

/** A run of bytes that is made in one go, and the places that it is written to. */
export interface Chunk {
  /** Hugging Face name of the first stored tensor that it lies in. */
  readonly name: string;
  readonly dtype: WriteDtype;
  readonly bytes: number;
  /** They fill the chunk. */
  readonly parts: readonly ChunkPart[];
  /** Every place that holds these bytes. */
  readonly places: readonly ChunkPlace[];
}

/** Large enough that asking, not moving, is the smaller cost; small enough that a few in flight are little memory. */
const defaultChunkBytes = 8 << 20;

/** Runs shorter than this are put together in memory before they are written. */
const shortestRun = 64 << 10;

/**
 * All chunks in the order of their first places. `sameAs` gives equal texts for slots with equal values: their chunks
 * are made once and written to several places. Without it every chunk has one place.
 */
export function planChunks(
  files: readonly PlannedFile[],
  chunkBytes = defaultChunkBytes,
  sameAs?: (slot: Slot) => string,
): Chunk[] {
  const known = new Map<string, ChunkPlace[]>();
  const chunks: Chunk[] = [];
  files.forEach(({ tensors }, file) => {
    for (const tensor of tensors) {
      for (const { part, parts, at, bytes } of cut(tensor, chunkBytes)) {
        const place = { file, offset: tensor.begin + at };
        const key = sameAs === undefined || part === undefined ? undefined : keyOf(part, tensor.dtype, sameAs);
        const others = key === undefined ? undefined : known.get(key);
        if (others !== undefined) {
          others.push(place);
          continue;
        }
        const places = [place];
        if (key !== undefined) known.set(key, places);
        chunks.push({ name: tensor.name, dtype: tensor.dtype, bytes, parts, places });
      }
    }
  });
  return chunks;
}

function keyOf({ slot, rectangle }: ChunkPart, dtype: WriteDtype, sameAs: (slot: Slot) => string): string {
  return `${dtype} [${slot.shape.join()}] ${rectangle.rowStart}+${rectangle.rowCount} ${sameAs(slot)}`;
}

interface ByteRun {
  /** Set if the run is a rectangle of one slot, row by row. */
  readonly part?: ChunkPart;
  readonly parts: readonly ChunkPart[];
  /** Byte in the stored tensor. */
  readonly at: number;
  readonly bytes: number;
}

function* cut(tensor: FileTensor, chunkBytes: number): Generator<ByteRun> {
  const { slots } = tensor;
  if (slots.every((place) => place.layout === null || hasLongRuns(place, place.layout, tensor))) {
    for (const place of slots) yield* cutRows(place, tensor.dtype, chunkBytes);
  } else {
    yield* weave(slots as readonly Woven[], tensor, chunkBytes);
  }
}

function hasLongRuns(
  { slot, count }: Placement,
  { rows, rowStride, columnStride }: SlotLayout,
  { dtype }: FileTensor,
): boolean {
  const [, columns] = matrixShape(slot.shape);
  const run = Math.min(rows.run, count) * columns * floatBytes[dtype];
  return (columnStride === 1 || columns === 1) && rowStride === columns && (run >= shortestRun || rows.run >= count);
}

/** Runs of whole rows of one slot that lie one after the other. */
function* cutRows(
  { slot, first, count, layout }: Placement,
  dtype: WriteDtype,
  chunkBytes: number,
): Generator<ByteRun> {
  const [, columnCount] = matrixShape(slot.shape);
  const rowBytes = columnCount * floatBytes[dtype];
  const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
  const base = (layout?.base ?? 0) * floatBytes[dtype];
  for (const span of layout === null ? [{ row: 0, at: 0, count }] : rowSpans(layout.rows, 0, count)) {
    for (let done = 0; done < span.count; done += step) {
      const rowCount = Math.min(step, span.count - done);
      const rectangle = { rowStart: first + span.row + done, rowCount, columnStart: 0, columnCount };
      const part = { slot, rectangle, layout: null, first, origin: 0 };
      yield { part, parts: [part], at: base + (span.at + done) * rowBytes, bytes: rowCount * rowBytes };
    }
  }
}

type Woven = Placement & { readonly layout: SlotLayout };

/**
 * Slots whose rows alternate, or that are stored transposed: chunks are runs of the stored tensor's own lines, each
 * with what every slot gives to it.
 */
function* weave(
  slots: readonly Woven[],
  { begin, end, dtype, slots: places }: FileTensor,
  chunkBytes: number,
): Generator<ByteRun> {
  const size = floatBytes[dtype];
  const shape = places[0]!.shape;
  const line = shape.length > 1 ? shape.at(-1)! : 1;
  const lines = (end - begin) / size / line;
  const step = Math.max(1, Math.floor(chunkBytes / (line * size)));
  for (let first = 0; first < lines; first += step) {
    const count = Math.min(step, lines - first);
    const origin = first * line;
    const parts = slots.flatMap((place): ChunkPart[] => {
      const rectangle = rectangleWithin(place, line, first, count);
      return rectangle === null
        ? []
        : [{ slot: place.slot, rectangle, layout: place.layout, first: place.first, origin }];
    });
    yield { parts, at: origin * size, bytes: count * line * size };
  }
}

/** The rectangle of a slot that lies in so many lines of the stored tensor. */
function rectangleWithin(
  { slot, first: firstRow, count: rowCount, layout }: Woven,
  line: number,
  first: number,
  count: number,
): Rectangle | null {
  const { base, rows, rowStride, columnStride } = layout;
  const [, columnCount] = matrixShape(slot.shape);
  if (columnStride !== 1 && columnCount > 1) {
    const from = first - Math.floor(base / line);
    const columnStart = Math.max(0, from);
    const columnEnd = Math.min(columnCount, from + count);
    return columnEnd <= columnStart
      ? null
      : { rowStart: firstRow, rowCount, columnStart, columnCount: columnEnd - columnStart };
  }
  // Rows lie in rising order, so those between two lines follow each other in the slot.
  const rowsBefore = (stored: number): number => {
    const whole = Math.floor((stored - rows.start) / rows.period);
    return Math.max(
      0,
      Math.min(
        rowCount,
        whole < 0 ? 0 : whole * rows.run + Math.min(rows.run, stored - rows.start - whole * rows.period),
      ),
    );
  };
  const rowStart = rowsBefore(Math.ceil((first * line - base) / rowStride));
  const rowEnd = rowsBefore(Math.ceil(((first + count) * line - base) / rowStride));
  return rowEnd <= rowStart
    ? null
    : { rowStart: firstRow + rowStart, rowCount: rowEnd - rowStart, columnStart: 0, columnCount };
}
