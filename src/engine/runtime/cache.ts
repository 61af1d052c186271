/**
 * The cache of keys and values that backends keep for generation: those of past tokens, by layer, [B, kvHeads, C, size]
 * as the graph reads them.
 *
 * Letters: B rows of a batch, T new tokens in each, C keys that a cache has room for.
 */
import { at } from "../../base/at.js";
import type { ExtendProgram } from "../../graph/programs/programs.js";
import type { ExtendFeeds } from "./runtime.js";

type Floats = Float32Array | Float64Array;
/** The precision that a backend keeps its cache in. */
type FloatsOf<A extends Floats> = new (length: number) => A;

/** Keys and values of a batch's past tokens. */
export interface Cache<A extends Floats> {
  readonly capacity: number;
  /** k and v of layer 0, k and v of layer 1, ... */
  readonly data: readonly A[];
}

type Sizes = Pick<ExtendProgram, "layers" | "kvHeads" | "keyDim" | "valueDim">;

const sizeOf = ({ keyDim, valueDim }: Sizes, index: number): number => (index % 2 === 0 ? keyDim : valueDim);

function emptyCache<A extends Floats>(Type: FloatsOf<A>, sizes: Sizes, batch: number, capacity: number): Cache<A> {
  return {
    capacity,
    data: Array.from(
      { length: 2 * sizes.layers },
      (_, i) => new Type(batch * sizes.kvHeads * capacity * sizeOf(sizes, i)),
    ),
  };
}

/** The same keys and values with another capacity; what does not fit is lost. */
function moved<A extends Floats>(
  Type: FloatsOf<A>,
  cache: Cache<A>,
  sizes: Sizes,
  batch: number,
  capacity: number,
): Cache<A> {
  const target = emptyCache(Type, sizes, batch, capacity);
  const keys = Math.min(cache.capacity, capacity);
  cache.data.forEach((from, i) => {
    const size = sizeOf(sizes, i);
    for (let head = 0; head < batch * sizes.kvHeads; head++) {
      const start = head * cache.capacity * size;
      at(target.data, i).set(from.subarray(start, start + keys * size), head * capacity * size);
    }
  });
  return target;
}

/**
 * The cache that `program` runs behind: a new one of the asked capacity where it has no past, else the one there is, in
 * the program's capacity.
 */
export function cacheFor<A extends Floats>(
  Type: FloatsOf<A>,
  cache: Cache<A> | undefined,
  program: ExtendProgram,
  capacity: number,
): Cache<A> {
  const { batch, capacity: past } = program.shape;
  if (past === 0) return emptyCache(Type, program, batch, capacity);
  if (cache === undefined) throw new Error("there is no past to go on from");
  return cache.capacity === past ? cache : moved(Type, cache, program, batch, past);
}

/**
 * Integer inputs of an extend program in the order of its graph: ids, positions, lengths (only with a past), rows (the
 * last token of each row where none are chosen).
 * Throws where a row would not fit the cache.
 */
export function extendInputs(
  { shape: { tokens, capacity, positions: most } }: ExtendProgram,
  { ids, lengths, counts, rows: chosen }: ExtendFeeds,
  room: number,
): Int32Array[] {
  if (counts.some((count, row) => at(lengths, row) + count > room))
    throw new Error(`the cache has room for ${room} keys`);
  const positions = new Int32Array(ids.length);
  for (const [row, past] of lengths.entries())
    for (let token = 0; token < tokens; token++) positions[row * tokens + token] = Math.min(past + token, most - 1);
  const rows = chosen ?? Int32Array.from(counts, (count, row) => row * tokens + Math.max(0, count - 1));
  return [ids, positions, ...(capacity === 0 ? [] : [lengths]), rows];
}

/** The same keys and values in each of so many rows, out of a cache of one row. */
export function repeated<A extends Floats>(Type: FloatsOf<A>, cache: Cache<A>, rows: number): Cache<A> {
  const data = cache.data.map((one) => {
    const all = new Type(one.length * rows);
    for (let row = 0; row < rows; row++) all.set(one, row * one.length);
    return all;
  });
  return { capacity: cache.capacity, data };
}

/** Shape of part `index` of a cache. */
export function cacheShape(program: ExtendProgram, index: number, room: number): readonly number[] {
  return [program.shape.batch, program.kvHeads, room, sizeOf(program, index)];
}

/** Puts the first counts[b] of each row's new keys and values [B*T, kvHeads * size] behind its lengths[b] past ones. */
export function append<A extends Floats>(
  cache: Cache<A>,
  program: ExtendProgram,
  present: readonly A[],
  { lengths, counts }: Pick<ExtendFeeds, "lengths" | "counts">,
): void {
  const { kvHeads, shape } = program;
  present.forEach((from, i) => {
    const size = sizeOf(program, i);
    const to = at(cache.data, i);
    counts.forEach((count, row) => {
      const past = at(lengths, row);
      for (let token = 0; token < count; token++) {
        for (let head = 0; head < kvHeads; head++) {
          const start = ((row * shape.tokens + token) * kvHeads + head) * size;
          const place = (row * kvHeads + head) * cache.capacity + past + token;
          to.set(from.subarray(start, start + size), place * size);
        }
      }
    });
  });
}
