/**
 * The cache of keys and values that backends keep for generation: those of past tokens, by layer, [B, kvHeads, C, size]
 * as the graph reads them.
 *
 * Letters: B rows of a batch, T new tokens in each, C keys that a cache has room for.
 */
import { at } from "../../base/at.js";
import type { ExtendProgram } from "../../graph/programs/programs.js";
import type { ChosenExperts, ExtendFeeds } from "./runtime.js";

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
 * The cache that `program` runs behind: an unused one of the asked capacity where it has no past, else the one there
 * is, in the program's capacity. What a cache held before lies behind each row's length, where nothing sees it.
 */
export function cacheFor<A extends Floats>(
  Type: FloatsOf<A>,
  cache: Cache<A> | undefined,
  program: ExtendProgram,
  capacity: number,
): Cache<A> {
  const { batch, capacity: past } = program.shape;
  if (past === 0) {
    const fits =
      cache?.capacity === capacity &&
      cache.data.length === 2 * program.layers &&
      cache.data.every(({ length }, i) => length === batch * program.kvHeads * capacity * sizeOf(program, i));
    return fits ? cache : emptyCache(Type, program, batch, capacity);
  }
  if (cache === undefined) throw new Error("there is no past to go on from");
  return cache.capacity === past ? cache : moved(Type, cache, program, batch, past);
}

/**
 * Integer inputs of an extend program in the order of its graph: ids, positions, lengths (only with a past), starts
 * (only with branches), rows (the last token of each row where none are chosen), targets (only of `scored`).
 * Throws where a row would not fit the cache, and where feeds lack what the program asks for.
 */
export function extendInputs(
  { shape: { tokens, capacity, positions: most, branches = false }, scored }: ExtendProgram,
  { ids, lengths, counts, starts, rows: chosen, targets }: ExtendFeeds,
  room: number,
): Int32Array[] {
  if (counts.some((count, row) => at(lengths, row) + count > room))
    throw new Error(`the cache has room for ${room} keys`);
  if (branches !== (starts !== undefined)) throw new Error("starts belong to programs with branches");
  if (branches && counts.some((count) => count > 0)) throw new Error("branches never join the cache");
  if (scored !== (targets !== undefined)) throw new Error("targets belong to programs that score them");
  const positions = Int32Array.from(ids, (_, i) => {
    const past = at(lengths, Math.floor(i / tokens));
    return Math.min(past + (i % tokens) - (starts?.[i] ?? 0), most - 1);
  });
  const rows = chosen ?? Int32Array.from(counts, (count, row) => row * tokens + Math.max(0, count - 1));
  return [
    ids,
    positions,
    ...(capacity === 0 ? [] : [lengths]),
    ...(starts === undefined ? [] : [starts]),
    rows,
    ...(targets === undefined ? [] : [targets]),
  ];
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

/** Where the new keys and values begin among a program's outputs: behind its answers and its routing. */
export const presentFrom = ({ routers }: Pick<ExtendProgram, "routers">): number => 1 + 2 * routers.length;

/** What a program's routers did; `ints` and `floats` read its outputs by their numbers. */
export function routingOf(
  { routers }: Pick<ExtendProgram, "routers">,
  ints: (output: number) => Int32Array,
  floats: (output: number) => Float32Array,
): readonly ChosenExperts[] {
  return routers.map(({ layer, experts }, i) => ({
    layer,
    experts,
    chosen: ints(1 + 2 * i),
    weights: floats(2 + 2 * i),
  }));
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
      // Element by element: views of heads cost more than their few numbers.
      for (let token = 0; token < count; token++) {
        for (let head = 0; head < kvHeads; head++) {
          const start = ((row * shape.tokens + token) * kvHeads + head) * size;
          const place = ((row * kvHeads + head) * cache.capacity + past + token) * size;
          for (let i = 0; i < size; i++) to[place + i] = from[start + i]!;
        }
      }
    });
  });
}
