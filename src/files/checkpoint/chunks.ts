/**
 * Cuts the weight files into chunks: runs of bytes that are made in one go, in memory that is bounded whatever the
 * tensors' sizes. A chunk is plain data and depends on nothing but the plan, so that it can be made on any thread, in
 * any order, and again after an interruption.
 *
 * Letters: R rows of a slot, C columns of it; a vector has one column.
 */
import { at } from "../../base/at.js";
import { matrixShape, type Rectangle } from "../numeric/rectangles.js";
import { floatBytes } from "../numeric/dtype.js";
import { rowSpans, type RowRuns, type SlotLayout, type Placement } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { PlannedFile, FileTensor, WriteDtype } from "./plan-files.js";

/** A rectangle of a slot, and where it goes in the chunk. */
export interface ChunkPart {
  readonly slot: Slot;
  readonly rectangle: Rectangle;
  /** How the slot's rows from `first` on lie in the stored tensor; null: the chunk is the rectangle, row by row. */
  readonly layout: SlotLayout | null;
  /** The first row of the slot that lies in this stored tensor. */
  readonly first: number;
  /** The element of the stored tensor that the chunk begins with, where there is a layout. */
  readonly origin: number;
}

interface ChunkPlace {
  /** Index of the file. */
  readonly file: number;
  /** Byte in the file. */
  readonly offset: number;
}

/** A run of bytes that is made in one go, and the places that it is written to. */
export interface Chunk {
  /** Hugging Face name of the first stored tensor that it lies in. */
  readonly name: string;
  readonly dtype: WriteDtype;
  readonly bytes: number;
  /** What fills the chunk, together. */
  readonly parts: readonly ChunkPart[];
  /** Every place that holds these bytes. */
  readonly places: readonly ChunkPlace[];
}

/**
 * Large enough that a system call costs little beside moving the bytes; small enough that a few chunks in flight take
 * little memory.
 */
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
  const placesOf = new Map<string, ChunkPlace[]>();
  const chunks: Chunk[] = [];
  files.forEach(({ tensors }, file) => {
    for (const tensor of tensors) {
      for (const { part, parts, begin, bytes } of cut(tensor, chunkBytes)) {
        const place = { file, offset: tensor.begin + begin };
        const key = sameAs === undefined || part === undefined ? undefined : keyOf(part, tensor.dtype, sameAs);
        const others = key === undefined ? undefined : placesOf.get(key);
        if (others !== undefined) {
          others.push(place);
          continue;
        }
        const places = [place];
        if (key !== undefined) placesOf.set(key, places);
        chunks.push({ name: tensor.name, dtype: tensor.dtype, bytes, parts, places });
      }
    }
  });
  return chunks;
}

/** Equal for parts that hold equal bytes. */
function keyOf({ slot, rectangle }: ChunkPart, dtype: WriteDtype, sameAs: (slot: Slot) => string): string {
  return `${dtype} [${slot.shape.join()}] ${rectangle.rowStart}+${rectangle.rowCount} ${sameAs(slot)}`;
}

interface ByteRun {
  /** Set if the run is a rectangle of one slot, row by row; the only one of `parts` then. */
  readonly part?: ChunkPart;
  readonly parts: readonly ChunkPart[];
  /** First byte of the run in the stored tensor. */
  readonly begin: number;
  readonly bytes: number;
}

function* cut(tensor: FileTensor, chunkBytes: number): Generator<ByteRun> {
  const { slots } = tensor;
  if (slots.every((place) => place.layout === null || hasLongRuns(place, place.layout, tensor))) {
    for (const place of slots) yield* cutRows(place, tensor.dtype, chunkBytes);
  } else {
    yield* cutWoven(slots.map(wovenPlace), tensor, chunkBytes);
  }
}

/** Whether rows lie in the stored tensor as in the slot, in runs that are worth a write of their own. */
function hasLongRuns(
  { slot, count }: Placement,
  { rows, rowStride, columnStride }: SlotLayout,
  { dtype }: FileTensor,
): boolean {
  const [, columns] = matrixShape(slot.shape);
  const runBytes = Math.min(rows.run, count) * columns * floatBytes[dtype];
  const isRowByRow = (columnStride === 1 || columns === 1) && rowStride === columns;
  return isRowByRow && (runBytes >= shortestRun || rows.run >= count);
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
      yield { part, parts: [part], begin: base + (span.at + done) * rowBytes, bytes: rowCount * rowBytes };
    }
  }
}

/** A slot that shares its stored tensor, row by row or column by column. */
type WovenPlace = Placement & { readonly layout: SlotLayout };

function wovenPlace(place: Placement): WovenPlace {
  const { layout, name, slot } = place;
  if (layout === null) throw new Error(`${slot.key} is all of ${name}, which other slots lie in`);
  return { ...place, layout };
}

/**
 * Cuts a tensor of slots whose rows alternate, or that are stored transposed: chunks are runs of the stored tensor's
 * own lines, each with what every slot gives to it.
 */
function* cutWoven(
  slots: readonly WovenPlace[],
  { begin, end, dtype }: FileTensor,
  chunkBytes: number,
): Generator<ByteRun> {
  const size = floatBytes[dtype];
  const line = lineLength(at(slots, 0).shape);
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
    yield { parts, begin: origin * size, bytes: count * line * size };
  }
}

/** Elements of a line of a stored tensor: its last dimension, or 1 for a vector. */
function lineLength([, ...others]: readonly number[]): number {
  return others.at(-1) ?? 1;
}

/** The rectangle of a slot that lies in `count` lines of the stored tensor from line `first` on; null: none of it. */
function rectangleWithin(
  { slot, first: firstRow, count: rowCount, layout }: WovenPlace,
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
  const rowAt = (storedLine: number): number =>
    Math.min(rowCount, rowsBefore(rows, Math.ceil((storedLine * line - base) / rowStride)));
  const [rowStart, rowEnd] = [rowAt(first), rowAt(first + count)];
  return rowEnd <= rowStart
    ? null
    : { rowStart: firstRow + rowStart, rowCount: rowEnd - rowStart, columnStart: 0, columnCount };
}

/** How many of a slot's rows lie before stored row `stored`. */
function rowsBefore({ start, run, period }: RowRuns, stored: number): number {
  const wholePeriods = Math.floor((stored - start) / period);
  if (wholePeriods < 0) return 0;
  return wholePeriods * run + Math.min(run, stored - start - wholePeriods * period);
}
