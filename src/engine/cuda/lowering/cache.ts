/** Launches on the cache of keys and values: [B, heads, C, size] for each of its parts. */
import { int, reads, writes } from "./arguments.js";
import type { Argument, Buffer, KernelLaunch, LaunchList } from "./launches.js";

/** B, heads, C, size */
type CacheShape = readonly number[];

const sizesOf = ([batch = 1, heads = 1, capacity = 1, size = 1]: CacheShape) => ({ batch, heads, capacity, size });
const wordsOf = (shape: CacheShape): number => shape.reduce((product, size) => product * size, 1);

const input = (index: number, words: number): Buffer => ({ bytes: 4 * words, home: { kind: "input", index } });
const output = (index: number, words: number): Buffer => ({ bytes: 4 * words, home: { kind: "output", index } });

function tokensKernel(
  kernel: string,
  grid: KernelLaunch["grid"],
  bytes: number,
  args: readonly Argument[],
): KernelLaunch {
  return {
    kind: "kernel",
    module: "tokens",
    kernel,
    real: "f32",
    grid,
    block: 128,
    shared: 0,
    bytes,
    flops: 0,
    arguments: args,
  };
}

/**
 * Puts new keys and values behind the past ones. Inputs: lengths [B], counts [B], then the new tokens' part of each
 * part [B*T, heads * size]; outputs: the parts of the cache, which stay but for what is added.
 */
export function appendList(shapes: readonly CacheShape[], tokens: number): LaunchList {
  const parts = shapes.map(sizesOf);
  const batch = parts[0]?.batch ?? 1;
  const first = 2;
  const buffers = [
    input(0, batch),
    input(1, batch),
    ...parts.map(({ heads, size }, i) => input(first + i, batch * tokens * heads * size)),
    ...shapes.map((shape, i) => output(i, wordsOf(shape))),
  ];
  const launches = parts.map(({ heads, capacity, size }, i) =>
    tokensKernel("appendCache", [tokens, batch, 1], 8 * batch * tokens * heads * size, [
      reads(first + i),
      { kind: "pointer", buffer: first + parts.length + i, access: "update" },
      reads(0),
      reads(1),
      ...[tokens, heads, capacity, size].map(int),
    ]),
  );
  return { buffers, launches, places: new Map(), arena: 0 };
}

/** Copies each part of a cache into another capacity. Inputs: the parts; outputs: those of the new cache. */
export function moveList(shapes: readonly CacheShape[], capacity: number): LaunchList {
  const parts = shapes.map(sizesOf);
  const buffers = [
    ...shapes.map((shape, i) => input(i, wordsOf(shape))),
    ...parts.map(({ batch, heads, size }, i) => output(i, batch * heads * capacity * size)),
  ];
  const launches = parts.map(({ batch, heads, capacity: from, size }, i) =>
    tokensKernel("moveCache", [batch * heads, 1, 1], 8 * batch * heads * Math.min(from, capacity) * size, [
      reads(i),
      writes(parts.length + i),
      ...[from, capacity, size].map(int),
    ]),
  );
  return { buffers, launches, places: new Map(), arena: 0 };
}
