/** A tensor whose boxes lie in different places, such as the shards of a distributed checkpoint, read as one. */
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import { itemSizes, tensorBytes, type Dtype } from "../formats/safetensors.js";
import { isFloatDtype } from "../numeric/dtype.js";
import type { ReadableTensor } from "./stored.js";

/** A box of the tensor, and where its elements are read, in row-major order. */
export interface Piece {
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
  /** `count` elements of the box from `start` on; they may lie in `into`, from its beginning. */
  read(start: number, count: number, into?: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
}

/** Elements that follow each other in the tensor as in a piece. */
interface Run {
  readonly tensor: number;
  readonly piece: number;
  readonly count: number;
}

interface Placed extends Piece {
  /** Of its first element and behind its last one, in the tensor. */
  readonly begin: number;
  readonly end: number;
}

interface PiecedTensor {
  /** What stands for the tensor's file where one name is wanted. */
  readonly file: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly pieces: readonly Piece[];
  /** Names the tensor in errors. */
  readonly where: string;
}

/**
 * The tensor as one. Throws inputError where pieces lie over each other, of which only one could be right; reading does
 * where they leave a gap.
 */
export function joinPieces({ file, dtype, shape, pieces, where }: PiecedTensor): ReadableTensor {
  const strides = shape.map((_, axis) => elements(shape.slice(axis + 1)));
  const at = (index: readonly number[]): number => index.reduce((sum, i, axis) => sum + i * strides[axis]!, 0);
  const placed = pieces
    .filter(({ sizes }) => elements(sizes) > 0)
    .map((piece): Placed => {
      const last = piece.offsets.map((offset, axis) => offset + piece.sizes[axis]! - 1);
      return { ...piece, begin: at(piece.offsets), end: at(last) + 1, read: (...asked) => piece.read(...asked) };
    })
    .sort((a, b) => a.begin - b.begin);
  requireApart(placed, shape.length, where);
  // The furthest end among the pieces up to each: boxes beside each other overlap in row-major order.
  const furthest: number[] = [];
  for (const { end } of placed) furthest.push(Math.max(end, furthest.at(-1) ?? 0));
  const size = itemSizes[dtype];
  return {
    file,
    dtype,
    shape,
    bytes: tensorBytes(dtype, shape),
    presented: isFloatDtype(dtype) ? dtype : null,
    async read(start, count, into) {
      const fits = into !== undefined && into.byteLength >= count * size;
      const out = (fits ? into.subarray(0, count * size) : new Uint8Array(count * size)) as Uint8Array<ArrayBuffer>;
      let filled = 0;
      for (let i = firstAbove(furthest, start); i < placed.length && placed[i]!.begin < start + count; i++)
        filled += await copyPiece(placed[i]!, { shape, strides, start, count, size }, out);
      if (filled !== count)
        throw inputError(`${count - filled} of ${count} elements from ${start} on lie in no shard`, { where });
      return out;
    },
  };
}

/** More cells than this are no grid that ranks make. */
const mostCells = 4e6;

/** Marks the cells of the grid that the pieces' edges span; where one is taken twice, two pieces overlap. */
function requireApart(pieces: readonly Piece[], rank: number, where: string): void {
  if (pieces.length < 2) return;
  const axes = Array.from({ length: rank }, (_, axis) => {
    const edges = new Set(pieces.flatMap(({ offsets, sizes }) => [offsets[axis]!, offsets[axis]! + sizes[axis]!]));
    return new Map([...edges].sort((a, b) => a - b).map((edge, i) => [edge, i]));
  });
  const cells = axes.reduce((product, { size }) => product * Math.max(1, size - 1), 1);
  if (cells > mostCells) throw inputError(`${pieces.length} pieces lie in no grid`, { where });
  const strides = axes.map((_, axis) => axes.slice(axis + 1).reduce((product, { size }) => product * (size - 1), 1));
  const taken = new Uint8Array(cells);
  for (const { offsets, sizes } of pieces) {
    let inside = [0];
    axes.forEach((edges, axis) => {
      const [from, to] = [edges.get(offsets[axis]!)!, edges.get(offsets[axis]! + sizes[axis]!)!];
      inside = inside.flatMap((cell) =>
        Array.from({ length: to - from }, (_, i) => cell + (from + i) * strides[axis]!),
      );
    });
    for (const cell of inside)
      if (taken[cell]!++ > 0) throw inputError(`the piece at [${offsets.join(", ")}] lies over another one`, { where });
  }
}

/** Index of the first number above `limit` among numbers that do not fall. */
function firstAbove(numbers: readonly number[], limit: number): number {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle]! > limit) high = middle;
    else low = middle + 1;
  }
  return low;
}

interface Wanted {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly start: number;
  readonly count: number;
  /** Bytes of an element. */
  readonly size: number;
}

/** Copies what of a piece is wanted; returns the number of elements. */
async function copyPiece(piece: Placed, wanted: Wanted, out: Uint8Array): Promise<number> {
  const runs = [...runsWithin(piece, wanted)];
  const [first, last] = [runs[0], runs.at(-1)];
  if (first === undefined || last === undefined) return 0;
  const { start, size } = wanted;
  if (runs.length === 1) {
    const target = out.subarray((first.tensor - start) * size, (first.tensor - start + first.count) * size);
    const bytes = await piece.read(first.piece, first.count, target);
    if (bytes.buffer !== target.buffer || bytes.byteOffset !== target.byteOffset) target.set(bytes);
    return first.count;
  }
  // Runs of one piece follow each other in it.
  const bytes = await piece.read(first.piece, last.piece + last.count - first.piece);
  for (const { tensor, piece: from, count } of runs) {
    const begin = (from - first.piece) * size;
    out.set(bytes.subarray(begin, begin + count * size), (tensor - start) * size);
  }
  return last.piece + last.count - first.piece;
}

/** Runs of a piece's elements among the wanted ones, in order. */
function* runsWithin({ sizes, begin }: Placed, { shape, strides, start, count }: Wanted): Generator<Run> {
  // The axis from which on the piece is as wide as the tensor: what it has of that axis follows each other.
  let axis = shape.length - 1;
  while (axis > 0 && sizes[axis] === shape[axis]) axis--;
  const length = axis < 0 ? 1 : sizes[axis]! * strides[axis]!;
  const outer = sizes.slice(0, Math.max(0, axis));
  const lines = elements(outer);
  const lineAt = (line: number): number => {
    let [rest, at] = [line, begin];
    for (let i = outer.length - 1; i >= 0; i--) {
      at += (rest % outer[i]!) * strides[i]!;
      rest = Math.floor(rest / outer[i]!);
    }
    return at;
  };
  // Lines lie in rising order.
  let [low, high] = [0, lines];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (lineAt(middle) + length > start) high = middle;
    else low = middle + 1;
  }
  for (let line = low; line < lines; line++) {
    const at = lineAt(line);
    if (at >= start + count) return;
    const from = Math.max(at, start);
    const to = Math.min(at + length, start + count);
    if (to > from) yield { tensor: from, piece: line * length + from - at, count: to - from };
  }
}
