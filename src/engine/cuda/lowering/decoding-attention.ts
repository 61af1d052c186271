/** Attention of decoding: new keys and values join the cache, and one new token in each row attends to it. */
import { at } from "../../../base/at.js";
import type { Node, ValueId } from "../../../graph/ir/ir.js";
import { EIGHT, bytesPer, float, int, nothing, reads, readsOrNull, viewed, writes } from "./arguments.js";
import { CACHE_COUNTS, CACHE_LENGTHS, CACHE_PARTS } from "./cache.js";
import type { Context } from "./context.js";
import { MULTIPROCESSORS, type DecodingNodes, type Fusion, type Placed } from "./decoding-nodes.js";
import type { Argument } from "./launches.js";

/** Threads of a block of attention, and the keys that it could have read before it begins. */
const ATTENTION_THREADS = 128;
const LEAST_KEYS = 64;
/** Keys that a block reads in the time that parts take to be joined, as measured on an H200. */
const JOIN_KEYS = 160;
/** Sizes of heads that the attention of one token takes: whole lanes of eight elements, a power of two of them. */
const headSizes: readonly number[] = [32, 64, 128, 256];
/** Query heads that share a key in one block. */
const groupSizes = [4, 2, 1] as const;
/** Blocks of each kernel that the registers of a multiprocessor hold at a time. */
const RESIDENT_BLOCKS = { 1: 4, 2: 3, 4: 2 } as const;

/** Launches that read and write the cache of a graph's keys and values. */
export class CachedAttention {
  /** Place of each value of new keys or values among the cache's parts. */
  private readonly parts: ReadonlyMap<ValueId, number>;
  private readonly c: Context;

  /** `kept`: outputs that are new keys and values, in the order of the cache's parts. */
  constructor(
    private readonly nodes: DecodingNodes,
    kept: readonly ValueId[],
  ) {
    this.c = nodes.c;
    this.parts = new Map(kept.map((id, part) => [this.c.rootOf(id), part]));
  }

  /** Lets the new keys and values of an attention that was lowered by its rule join the cache. */
  append(node: Node): void {
    const { c } = this;
    if (node.prim !== "attention" && node.prim !== "cachedAttention") return;
    const { batch, sequence, kvHeads, headDim, valueDim } = node.attrs;
    const [, k, v] = node.in;
    const part = this.parts.get(c.rootOf(k));
    if (part === undefined) throw new Error("an attention's keys are no part of the cache");
    const real = c.cacheStorage;
    const views = [k, v].map((id) => c.viewOf(id, real));
    const sizes = [headDim, valueDim, ...views.flatMap(({ first, stride }) => [first, stride])];
    c.kernel({
      module: "decode",
      kernel: "appendCache",
      real,
      grid: [sequence, batch, 1],
      block: ATTENTION_THREADS,
      bytes: 2 * bytesPer[real] * batch * sequence * kvHeads * (headDim + valueDim),
      arguments: [
        ...views.map((view) => viewed(view, "read", real)),
        ...this.cached(part),
        ...this.lengths(batch),
        ...[sequence, kvHeads, this.capacity(), headDim, valueDim, ...views.map(({ stride }) => stride)].map(int),
        int(Number(sizes.every((size) => size % EIGHT === 0))),
      ],
    });
  }

  /** Keys that a row of the cache has room for. */
  private capacity(): number {
    return this.c.options.cache?.shapes[0]?.[2] ?? 0;
  }

  /**
   * Parts that the keys of each row are cut into: those with which the GPU, on which each multiprocessor holds
   * `resident` blocks, is through with all of them first. A block costs as much as LEAST_KEYS keys before it begins,
   * and joining parts as much as JOIN_KEYS.
   */
  private splitsOf(blocks: number, resident: number): number {
    const together = resident * (this.c.options.chip?.multiprocessors ?? MULTIPROCESSORS);
    const most = Math.ceil(this.capacity() / LEAST_KEYS);
    const timeOf = (splits: number): number =>
      Math.ceil((blocks * splits) / together) * (this.capacity() / splits + LEAST_KEYS + (splits > 1 ? JOIN_KEYS : 0));
    let best = 1;
    for (let splits = 2; splits <= most; splits++) if (timeOf(splits) < timeOf(best)) best = splits;
    return best;
  }

  /** A layer's keys and values in the cache. */
  private cached(part: number): Argument[] {
    const { c } = this;
    return [part, part + 1].map((index): Argument => {
      const count = at(c.options.cache?.shapes ?? [], index).reduce((product, size) => product * size, 1);
      const buffer = c.cacheBuffer(CACHE_PARTS + index, count, c.cacheStorage);
      return { kind: "pointer", buffer, access: "update" };
    });
  }

  /** Past tokens of each row, and how many of the new ones join them. */
  private lengths(batch: number): Argument[] {
    return [CACHE_LENGTHS, CACHE_COUNTS].map((index) => reads(this.c.cacheBuffer(index, batch)));
  }

  /** The rope that makes an attention's queries or keys, where the attention can do it. */
  private rope(id: ValueId, index: number): Placed<"rope"> | null {
    const rope = this.nodes.maker(id, "rope");
    if (rope === null || !this.nodes.onlyReadBy(id, index)) return null;
    const { batch, headDim, rotary, interleaved, inverse } = rope.node.attrs;
    return batch === 1 && rotary === headDim && !interleaved && !inverse ? rope : null;
  }

  /** The launch of one token in each row; null where the rule has to make it. */
  fusion({ index, node }: Placed<"cachedAttention">): Fusion | null {
    const { c } = this;
    const { attrs } = node;
    const { batch, sequence, heads, kvHeads, headDim, valueDim, scale, window, softcap } = attrs;
    const [q, k, v] = node.in;
    const part = this.parts.get(c.rootOf(k));
    if (attrs.branches === true) return null;
    if (part === undefined || sequence !== 1 || headDim !== valueDim || !headSizes.includes(headDim)) return null;
    const ropes = [this.rope(q, index), this.rope(k, index)] as const;
    const [turnQ, turnK] = ropes;
    const turns = turnQ !== null && turnK !== null && turnQ.node.in.slice(1).join() === turnK.node.in.slice(1).join();
    const sources = turns ? [turnQ.node.in[0], turnK.node.in[0], v] : [q, k, v];
    const tables = turns ? turnQ.node.in.slice(1) : [];
    const groups = heads / kvHeads;
    const group = groupSizes.find((size) => groups % size === 0) ?? 1;
    const blocks = (batch * heads) / group;
    const splits = this.splitsOf(blocks, RESIDENT_BLOCKS[group]);
    const sinks = node.in[6] ?? null;
    return {
      index,
      replaced: turns ? ropes.flatMap((rope) => (rope === null ? [] : [rope.index])) : [],
      inputs: [...sources, ...tables],
      launch: () => {
        const real = c.cacheStorage;
        // A joint product's results are read where they lie, in rows that begin at whole eights.
        const views = sources.map((id) => c.viewOf(id, real));
        const joins = splits > 1;
        c.kernel({
          module: "decode",
          kernel: `decodeAttention${group}`,
          real,
          grid: [splits, heads / group, batch],
          block: ATTENTION_THREADS,
          overlaps: true,
          bytes: 2 * bytesPer[real] * batch * kvHeads * this.capacity() * headDim,
          flops: 4 * batch * heads * this.capacity() * headDim,
          arguments: [
            ...views.map((view) => viewed(view, "read", real)),
            ...this.cached(part),
            ...this.lengths(batch),
            ...(turns ? tables.map((id) => reads(c.of(id))) : [nothing, nothing]),
            readsOrNull(sinks === null ? null : c.of(sinks)),
            writes(c.define(node.out[0], real)),
            joins ? writes(c.scratch(batch * heads * splits * (headDim + 2))) : nothing,
            // Zeros whenever the kernel is not at work: it counts on them, and leaves them so.
            joins ? { kind: "pointer", buffer: c.constant(0, 4 * blocks), access: "update" } : nothing,
            ...[heads, kvHeads, headDim, this.capacity()].map(int),
            float(scale),
            int(window ?? 0),
            float(softcap ?? 0),
            ...views.map(({ stride }) => int(stride)),
          ],
        });
      },
    };
  }
}
