/**
 * Launches around the cache of keys and values, [B, heads, C, size] for each of its parts, and around the tokens that
 * are chosen on the GPU. B rows of a batch, V vocabulary.
 */
import { at } from "../../../base/at.js";
import { THREADS, bytesPer, gridFor, int, long, reads, writes } from "./arguments.js";
import type { Buffer, BufferId, Home, KernelLaunch, LaunchList, Storage } from "./launches.js";
import { planMemory } from "./memory.js";

/** B, heads, C, size */
type CacheShape = readonly number[];

/**
 * The cache of keys and values that a program runs behind, and adds its new tokens' to. Whoever runs it binds, in this
 * order: tokens of each row that the cache holds [B], how many of the new ones join it [B], and the parts: keys and
 * values of layer 0, of layer 1, ...
 */
export interface CacheLayout {
  /** Shapes of the parts. */
  readonly shapes: readonly CacheShape[];
  /** Place of the first part among the graph's inputs; null where nothing is past. */
  readonly firstInput: number | null;
  /** Place among the graph's outputs of the first part's new keys [B*T, heads * size]; the others follow. */
  readonly firstOutput: number;
}

/** Places of what is bound beside the parts. */
export const CACHE_LENGTHS = 0;
/** How many of the new tokens of each row join the cache. */
export const CACHE_COUNTS = 1;
/** The first part. */
export const CACHE_PARTS = 2;

const wordsOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** Buffers and launches that are put together by hand. */
class List {
  private readonly buffers: Buffer[] = [];
  private readonly launches: KernelLaunch[] = [];

  buffer(home: Home, count: number, storage: Storage = "f32"): BufferId {
    return this.buffers.push({ bytes: bytesPer[storage] * Math.max(1, count), home }) - 1;
  }

  kernel(
    kernel: string,
    grid: KernelLaunch["grid"],
    args: KernelLaunch["arguments"],
    { block = 256, real = "f32" as Storage, bytes = 0 } = {},
  ): void {
    this.launches.push({
      kind: "kernel",
      module: "decode",
      ...{ kernel, real, grid, block, bytes, arguments: args },
      shared: 0,
      flops: 0,
    });
  }

  finish(): LaunchList {
    const { buffers, launches } = this;
    return { buffers, launches, ...planMemory(buffers, launches) };
  }
}

/** Copies each part of a cache into another capacity. Inputs: the parts; outputs: those of the new cache. */
export function moveList(shapes: readonly CacheShape[], capacity: number, storage: Storage): LaunchList {
  const list = new List();
  for (const [index, shape] of shapes.entries()) {
    const [batch = 1, heads = 1, from = 1, size = 1] = shape;
    const source = list.buffer({ kind: "input", index }, wordsOf(shape), storage);
    const target = list.buffer({ kind: "output", index }, batch * heads * capacity * size, storage);
    const bytes = 2 * bytesPer[storage] * batch * heads * Math.min(from, capacity) * size;
    list.kernel(
      "moveCache",
      [batch * heads, 1, 1],
      [reads(source), writes(target), ...[from, capacity, size].map(int)],
      { real: storage, bytes },
    );
  }
  return list.finish();
}

/** Parts that a row of logits is cut into, at most, and the least logits of a part. */
const MOST_PARTS = 64;
const LEAST_LOGITS = 512;
/** Threads of the one block that takes the best of all rows. */
const TAKING_THREADS = 1024;

/** Sizes of a batch of logits and of the tokens that are chosen by them. */
export interface BestSizes {
  readonly batch: number;
  readonly vocab: number;
  /** Every position lies below it. */
  readonly positions: number;
  /** Lines of chosen tokens that there is room for. */
  readonly steps: number;
}

/**
 * Takes the token of each row's largest logit as its next one. Inputs: logits [B, V], chosen tokens [steps, B], the
 * next line of them [1], ids, positions and lengths [B], which all but the first are replaced; and counts [B].
 */
export function bestList({ batch, vocab, positions, steps }: BestSizes): LaunchList {
  const list = new List();
  const counts = [batch * vocab, steps * batch, 1, batch, batch, batch, batch];
  const ids = counts.map((count, index) => list.buffer({ kind: "input", index }, count));
  const parts = Math.max(1, Math.min(MOST_PARTS, Math.ceil(vocab / LEAST_LOGITS)));
  const [tops, places] = [0, 1].map(() => list.buffer({ kind: "arena" }, batch * parts)) as [BufferId, BufferId];
  list.kernel("bestPart", [parts, batch, 1], [reads(at(ids, 0)), writes(tops), writes(places), int(vocab)], {
    bytes: 4 * batch * vocab,
  });
  const replaced = ids.slice(1, 6).map((buffer) => ({ kind: "pointer", buffer, access: "update" }) as const);
  list.kernel(
    "takeBest",
    [1, 1, 1],
    [reads(tops), reads(places), ...replaced, reads(at(ids, 6)), ...[batch, parts, positions].map(int)],
    { block: Math.min(TAKING_THREADS, 32 * batch) },
  );
  return list.finish();
}

/** Rounds a value of so many elements to bfloat16, or brings it back. Input and output: the value. */
export function castList(count: number, to: Storage): LaunchList {
  const from: Storage = to === "bf16" ? "f32" : "bf16";
  const buffers: Buffer[] = [
    { bytes: count * bytesPer[from], home: { kind: "input", index: 0 } },
    { bytes: count * bytesPer[to], home: { kind: "output", index: 0 } },
  ];
  const launch: KernelLaunch = {
    kind: "kernel",
    module: "elementwise",
    kernel: to === "bf16" ? "toBf16" : "fromBf16",
    real: "f32",
    grid: gridFor(count),
    block: THREADS,
    shared: 0,
    bytes: count * (bytesPer[from] + bytesPer[to]),
    flops: 0,
    arguments: [reads(0), writes(1), long(count)],
  };
  return { buffers, launches: [launch], places: new Map(), arena: 0 };
}
