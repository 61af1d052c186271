/** Keys and values of past tokens, by layer: [B, kvHeads, C, size], as the graph reads them. */
import type { ExtendProgram } from "../step/programs.js";

export interface Cache {
  readonly capacity: number;
  /** k and v of layer 0, k and v of layer 1, ... */
  readonly data: readonly Float32Array[];
}

type Sizes = Pick<ExtendProgram, "layers" | "kvHeads" | "keyDim" | "valueDim">;

const sizeOf = ({ keyDim, valueDim }: Sizes, index: number): number => (index % 2 === 0 ? keyDim : valueDim);

export function emptyCache(sizes: Sizes, batch: number, capacity: number): Cache {
  return { capacity, data: Array.from({ length: 2 * sizes.layers }, (_, i) => new Float32Array(batch * sizes.kvHeads * capacity * sizeOf(sizes, i))) };
}

/** The same keys and values with another capacity; what does not fit is lost. */
export function moved(cache: Cache, sizes: Sizes, batch: number, capacity: number): Cache {
  const target = emptyCache(sizes, batch, capacity);
  const kept = Math.min(cache.capacity, capacity);
  cache.data.forEach((from, i) => {
    const size = sizeOf(sizes, i);
    for (let head = 0; head < batch * sizes.kvHeads; head++) {
      const start = head * cache.capacity * size;
      target.data[i]!.set(from.subarray(start, start + kept * size), head * capacity * size);
    }
  });
  return target;
}

/** Puts the first counts[b] of each row's new keys and values [B*T, kvHeads * size] behind its lengths[b] past ones. */
export function append(
  cache: Cache, sizes: Sizes, tokens: number, present: readonly Float32Array[], { lengths, counts }: { readonly lengths: Int32Array; readonly counts: Int32Array },
): void {
  const { kvHeads } = sizes;
  present.forEach((from, i) => {
    const size = sizeOf(sizes, i);
    const to = cache.data[i]!;
    counts.forEach((count, row) => {
      for (let token = 0; token < count; token++) {
        for (let head = 0; head < kvHeads; head++) {
          const start = ((row * tokens + token) * kvHeads + head) * size;
          to.set(from.subarray(start, start + size), ((row * kvHeads + head) * cache.capacity + lengths[row]! + token) * size);
        }
      }
    });
  });
}
