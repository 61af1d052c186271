/**
 * Launches of programs that run behind a cache of keys and values (see decode.cu): new keys and values join it; one new
 * token in each row attends to it by a kernel that turns its query and key, too; and products of few tokens are made by
 * kernels that read each weight once, norm what they read and finish what they make. B rows, T new tokens in each,
 * N = B * T.
 */
import { at } from "../../../base/at.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import type { Node, NodeOf, Prim, ValueId } from "../../../graph/ir/ir.js";
import {
  EIGHT,
  ROW_WARPS,
  blocksFor,
  bufferTable,
  bytesPer,
  float,
  int,
  nothing,
  reads,
  readsOrNull,
  viewed,
  writes,
} from "./arguments.js";
import { CACHE_COUNTS, CACHE_LENGTHS, CACHE_PARTS } from "./cache.js";
import type { Context } from "./context.js";
import type { Argument, BufferId, KernelLaunch } from "./launches.js";
import { combineRows } from "./rules-experts.js";

/** Tokens that a block of a thin product takes: of the kernels for few tokens, and of that for more. */
const FEW_TOKENS = [8, 16] as const;
const BLOCK_TOKENS = 32;
/** Tokens of an expert layer that is made slot by slot. */
const MOST_SLOTS = 16;
/** Most tokens of thin products; and of more than a few, bytes of them that a product's blocks may read together. */
const MOST_TOKENS = 64;
const MOST_REREAD = 24e6;
/** Tokens whose routers' products are made one by one. */
const MOST_ROUTED = 128;
/** Rows of weights of a block; its threads, more of them for long rows where there are few blocks. */
const TILE_ROWS = 16;
const THREADS = 256;
const MANY_THREADS = 512;
const LONG_ROW = 1024;
/** Matrices of one launch. */
const MOST_MATRICES = 3;
/** Threads of a block of attention, and the keys that it could have read before it begins. */
const ATTENTION_THREADS = 128;
const LEAST_KEYS = 64;
/** Keys that a block reads in the time that parts take to be joined, as measured on an H200. */
const JOIN_KEYS = 160;
/** Multiprocessors of a GPU that is not known, and blocks that each should get. */
const MULTIPROCESSORS = 132;
const BLOCKS_EACH = 2;
/** Sizes of heads that the attention of one token takes: whole lanes of eight elements, a power of two of them. */
const headSizes: readonly number[] = [32, 64, 128, 256];
/** Query heads that share a key in one block. */
const groupSizes = [4, 2, 1] as const;
/** Blocks of each kernel that the registers of a multiprocessor hold at a time. */
const RESIDENT_BLOCKS = { 1: 4, 2: 3, 4: 2 } as const;

interface Placed<P extends Prim> {
  readonly index: number;
  readonly node: NodeOf<P>;
}

const is = <P extends Prim>(node: Node, prim: P): node is Node & NodeOf<P> => node.prim === prim;

/** A value that a thin product reads, and the norm that its launch makes of it. */
interface Source {
  readonly x: ValueId;
  readonly norm: { readonly weight: ValueId; readonly eps: number } | null;
}

/** What stands for several nodes: it is launched at the place of one of them. */
interface Fusion {
  readonly index: number;
  readonly replaced: readonly number[];
  /** Values that it reads after the last of their own readers may have come. */
  readonly inputs: readonly ValueId[];
  launch(): void;
}

/** The expert layer of a few tokens. */
interface Experts {
  readonly x: ValueId;
  readonly chosen: ValueId;
  readonly sort: Placed<"expertSort">;
  readonly down: ValueId;
  readonly weights: ValueId;
  readonly gates: readonly ValueId[];
  readonly ups: readonly ValueId[];
  readonly downs: readonly ValueId[];
  readonly combine: Placed<"combine">;
  readonly k: number;
}

/** Decoding's launches of a graph, found before it is lowered. */
export class Decoding {
  /** Whether products are made by the kernels for few tokens. */
  readonly isThin: boolean;
  private readonly tokens: number;
  private readonly fusions = new Map<number, Fusion>();
  private readonly taken = new Set<number>();
  private readonly makers = new Map<ValueId, number>();
  /** Place of each value of new keys or values among the cache's parts. */
  private readonly parts = new Map<ValueId, number>();

  constructor(
    private readonly c: Context,
    outputs: readonly ValueId[],
  ) {
    const { cache, precision } = c.options;
    const tokens = cache === undefined ? 0 : c.sizeOf(at(c.graph.inputs, 0));
    this.tokens = tokens;
    this.isThin =
      cache?.firstInput != null &&
      precision === "bf16" &&
      tokens <= MOST_TOKENS &&
      c.graph.nodes.every((node) => !this.hasWeight(node) || c.feedsOutput(node.out[0]) || this.fits(node));
    if (cache === undefined) return;
    for (const [index, { out }] of c.graph.nodes.entries()) for (const id of out) this.makers.set(id, index);
    outputs.slice(cache.firstOutput).forEach((id, part) => this.parts.set(c.rootOf(id), part));
    this.find("cachedAttention", (placed) => this.attention(placed));
    if (cache.firstInput !== null && precision === "bf16" && tokens <= MOST_ROUTED) this.findRouters();
    if (!this.isThin) return;
    this.find("combine", (placed) => this.experts(placed));
    this.find("swiglu", (placed) => this.gated(placed));
    this.findProducts();
  }

  private find<P extends Prim>(prim: P, make: (placed: Placed<P>) => Fusion | null): void {
    for (const [index, node] of this.c.graph.nodes.entries())
      if (is(node, prim) && !this.taken.has(index)) {
        const fusion = make({ index, node });
        if (fusion !== null) this.take(fusion);
      }
  }

  private take(fusion: Fusion): void {
    const { c } = this;
    for (const index of [fusion.index, ...fusion.replaced]) this.taken.add(index);
    for (const id of fusion.inputs) c.extend(id, fusion.index);
    for (const index of fusion.replaced) c.skip(index);
    this.fusions.set(fusion.index, fusion);
  }

  /** Launches what stands at this place; false where the node is left to its rule. */
  lower(index: number): boolean {
    this.fusions.get(index)?.launch();
    return this.taken.has(index);
  }

  /** Lets the new keys and values of an attention that was lowered by its rule join the cache. */
  append(node: Node): void {
    const { c } = this;
    if (c.options.cache === undefined || (node.prim !== "attention" && node.prim !== "cachedAttention")) return;
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

  private maker<P extends Prim>(id: ValueId, prim: P): Placed<P> | null {
    const index = this.makers.get(this.c.rootOf(id));
    if (index === undefined) return null;
    const node = at(this.c.graph.nodes, index);
    return is(node, prim) ? { index, node } : null;
  }

  /** Whether these nodes alone read a value. */
  private onlyReadBy(id: ValueId, ...places: readonly number[]): boolean {
    const { c } = this;
    return !c.isOutput(id) && c.readingNodes(id).every((place) => places.includes(place));
  }

  /** The rope that makes an attention's queries or keys, where the attention can do it. */
  private rope(id: ValueId, index: number): Placed<"rope"> | null {
    const rope = this.maker(id, "rope");
    if (rope === null || !this.onlyReadBy(id, index)) return null;
    const { batch, headDim, rotary, interleaved, inverse } = rope.node.attrs;
    return batch === 1 && rotary === headDim && !interleaved && !inverse ? rope : null;
  }

  private attention({ index, node }: Placed<"cachedAttention">): Fusion | null {
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

  /** Whether a node multiplies tokens by a weight. */
  private hasWeight(node: Node): node is NodeOf<"matmul"> & Node {
    if (!is(node, "matmul") || node.attrs.transA || !node.attrs.transB) return false;
    return this.c.graph.inputs.includes(this.c.rootOf(node.in[1]));
  }

  /**
   * Whether a thin product takes a node's sizes. Every tile of the weight reads all tokens: with more than a few of
   * them and a large weight that costs more than what the tile itself gains.
   */
  private fits(node: NodeOf<"matmul">): boolean {
    const { c } = this;
    const [rows, size] = matrixSizes(typeOf(c.graph, node.in[0]));
    const [width] = matrixSizes(typeOf(c.graph, node.in[1]));
    const reread = 2 * blocksFor(width, TILE_ROWS) * rows * size;
    return size % EIGHT === 0 && (this.tokens <= FEW_TOKENS[1] || reread <= MOST_REREAD);
  }

  /** Whether a node multiplies tokens by a weight that a thin product can read. */
  private isProduct(node: Node): node is NodeOf<"matmul"> & Node {
    return this.hasWeight(node) && this.fits(node);
  }

  /** What a thin launch reads in place of a value: where nothing but such launches read a norm, its own input. */
  private sourceOf(x: ValueId): Source {
    const { c } = this;
    const norm = this.maker(x, "rmsNorm");
    const alone =
      norm !== null &&
      !c.isOutput(x) &&
      c.readingNodes(x).every((place) => {
        const node = at(c.graph.nodes, place);
        return this.isProduct(node) && c.rootOf(node.in[0]) === c.rootOf(x) && !c.feedsFloats(node.out[0]);
      });
    if (!alone) return { x, norm: null };
    this.taken.add(norm.index);
    c.skip(norm.index);
    return { x: norm.node.in[0], norm: { weight: norm.node.in[1], eps: norm.node.attrs.eps } };
  }

  private inputsOf({ x, norm }: Source): ValueId[] {
    return norm === null ? [x] : [x, norm.weight];
  }

  /** x, the norm's weight, and its eps. */
  private sourceArguments({ x, norm }: Source): Argument[] {
    const { c } = this;
    return [
      reads(c.as(x, "bf16")),
      norm === null ? nothing : reads(c.of(norm.weight)),
      float(norm === null ? 0 : norm.eps),
    ];
  }

  /** The kernel of a thin product of so many tokens, and how many groups of them its blocks take. */
  private thin(name: "Product" | "Gated", tokens: number): { readonly kernel: string; readonly groups: number } {
    const few = FEW_TOKENS.find((most) => tokens <= most);
    return few === undefined
      ? { kernel: `thin${name}${BLOCK_TOKENS}`, groups: blocksFor(tokens, BLOCK_TOKENS) }
      : { kernel: `thin${name}${few}`, groups: 1 };
  }

  /** `size`: elements of the rows that a block of few tokens multiplies. */
  private kernel(call: Pick<KernelLaunch, "kernel" | "grid" | "arguments" | "bytes" | "flops">, size = 0): void {
    const [x, y] = call.grid;
    const { multiprocessors = MULTIPROCESSORS } = this.c.options.chip ?? {};
    const isLong = size > LONG_ROW && this.tokens <= FEW_TOKENS[1];
    const block = isLong && x * y <= BLOCKS_EACH * multiprocessors ? MANY_THREADS : THREADS;
    this.c.kernel({ module: "decode", real: "bf16", block, overlaps: true, ...call });
  }

  private findRouters(): void {
    for (const [index, node] of this.c.graph.nodes.entries())
      if (this.isProduct(node) && this.c.feedsFloats(node.out[0])) this.take(this.floatProduct({ index, node }));
  }

  private findProducts(): void {
    const { c } = this;
    const groups = new Map<string, Placed<"matmul">[]>();
    for (const [index, node] of c.graph.nodes.entries()) {
      if (!this.isProduct(node) || this.taken.has(index)) continue;
      const key = `${c.rootOf(node.in[0])} ${c.feedsOutput(node.out[0])}`;
      groups.set(key, [...(groups.get(key) ?? []), { index, node }]);
    }
    for (const members of groups.values())
      for (let first = 0; first < members.length; first += MOST_MATRICES)
        this.take(this.products(members.slice(first, first + MOST_MATRICES)));
  }

  /** A router's product, in float32. */
  private floatProduct({ index, node }: Placed<"matmul">): Fusion {
    const { c } = this;
    const [x, weight] = node.in;
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    const [width] = matrixSizes(typeOf(c.graph, weight));
    return {
      index,
      replaced: [],
      inputs: [],
      launch: () => {
        this.kernel({
          kernel: "floatProduct",
          grid: [blocksFor(tokens * width, ROW_WARPS), 1, 1],
          bytes: 4 * width * size,
          flops: 2 * tokens * width * size,
          arguments: [
            reads(c.as(x, "bf16")),
            reads(c.of(weight)),
            writes(c.define(node.out[0])),
            ...[tokens, width, size].map(int),
          ],
        });
      },
    };
  }

  /** Products of one value with up to three weights. */
  private products(members: readonly Placed<"matmul">[]): Fusion {
    const { c } = this;
    const [{ index, node }, ...others] = members as [Placed<"matmul">, ...Placed<"matmul">[]];
    const [x] = node.in;
    const source = this.sourceOf(x);
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    return {
      index,
      replaced: others.map((other) => other.index),
      inputs: this.inputsOf(source),
      launch: () => {
        const stored = c.feedsOutput(node.out[0]) ? "f32" : "bf16";
        const sum = others.length === 0 && stored === "bf16" ? c.sumOf(node.out[0], stored) : null;
        const addend = sum === null ? null : c.as(sum.other, stored);
        const from = this.sourceArguments(source);
        const widths = members.map((member) => matrixSizes(typeOf(c.graph, member.node.in[1]))[0]);
        const total = widths.reduce((all, width) => all + width, 0);
        const targets = members.flatMap((member, i): Argument[] => {
          const [, weight] = member.node.in;
          const to = sum === null ? c.define(member.node.out[0], stored) : c.defineSum(sum, stored);
          return [reads(c.as(weight, "bf16")), this.sumTarget(to, addend), int(at(widths, i))];
        });
        const none = members.length < MOST_MATRICES ? MOST_MATRICES - members.length : 0;
        const { kernel, groups } = this.thin("Product", tokens);
        this.kernel(
          {
            kernel,
            grid: [widths.reduce((tiles, width) => tiles + blocksFor(width, TILE_ROWS), 0), groups, 1],
            bytes: 2 * size * (tokens + total) + bytesPer[stored] * tokens * total,
            flops: 2 * tokens * total * size,
            arguments: [
              ...from,
              readsOrNull(addend),
              ...[Number(stored === "f32"), tokens, size].map(int),
              ...targets,
              ...Array.from({ length: none }, () => [nothing, nothing, int(0)]).flat(),
            ],
          },
          size,
        );
      },
    };
  }

  private sumTarget(to: BufferId, addend: BufferId | null): Argument {
    return addend === to ? { kind: "pointer", buffer: to, access: "update" } : writes(to);
  }

  /** A gated unit of two products of one value. */
  private gated({ index, node }: Placed<"swiglu">): Fusion | null {
    const { c } = this;
    const [gate, up] = node.in.map((id) => this.maker(id, "matmul")) as [
      Placed<"matmul"> | null,
      Placed<"matmul"> | null,
    ];
    if (gate === null || up === null || gate.index === up.index) return null;
    if (!this.isProduct(gate.node) || !this.isProduct(up.node)) return null;
    const [x] = gate.node.in;
    const alone = node.in.every((id) => this.onlyReadBy(id, index));
    if (!alone || c.rootOf(x) !== c.rootOf(up.node.in[0])) return null;
    const source = this.sourceOf(x);
    const [tokens, size] = matrixSizes(typeOf(c.graph, x));
    const [, width] = matrixSizes(typeOf(c.graph, node.in[0]));
    return {
      index,
      replaced: [gate.index, up.index],
      inputs: this.inputsOf(source),
      launch: () => {
        const from = this.sourceArguments(source);
        const weights = [gate, up].map((product) => reads(c.as(product.node.in[1], "bf16")));
        const { kernel, groups } = this.thin("Gated", tokens);
        this.kernel(
          {
            kernel,
            grid: [blocksFor(width, TILE_ROWS), groups, 1],
            bytes: 2 * (size * (tokens + 2 * width) + tokens * width),
            flops: 4 * tokens * width * size,
            arguments: [...from, ...weights, writes(c.define(node.out[0], "bf16")), ...[tokens, size, width].map(int)],
          },
          size,
        );
      },
    };
  }

  /** What an expert layer that ends in this node is made of, where every node of it is what it is expected to be. */
  private expertLayer(
    combine: Placed<"combine">,
  ): { readonly layer: Experts; readonly nodes: readonly number[] } | null {
    // Weights stand behind the last product or before it.
    const outer = this.maker(combine.node.in[0], "scaleRows");
    const down = this.maker(outer?.node.in[0] ?? combine.node.in[0], "groupedMatmul");
    if (down === null) return null;
    const inner = outer === null ? this.maker(down.node.in[0], "scaleRows") : null;
    const scale = outer ?? inner;
    const unit = this.maker(inner?.node.in[0] ?? down.node.in[0], "swiglu");
    if (scale === null || unit === null) return null;
    const [gate, up] = unit.node.in.map((id) => this.maker(id, "groupedMatmul"));
    if (gate == null || up == null) return null;
    const dispatch = this.maker(gate.node.in[0], "dispatch");
    if (dispatch === null || this.maker(up.node.in[0], "dispatch")?.index !== dispatch.index) return null;
    const sort = this.maker(dispatch.node.in[1], "expertSort");
    if (sort === null || sort.node.attrs.drops) return null;
    const products = [gate, up, down];
    if (products.some(({ node }) => !node.attrs.transB)) return null;
    const placed = [scale, down, unit, gate, up, dispatch, sort];
    const nodes = placed.map(({ index }) => index);
    const within = [...nodes, combine.index];
    if (!placed.every(({ node }) => node.out.every((id) => this.onlyReadBy(id, ...within)))) return null;
    const [gates, ups, downs] = products.map(({ node }) => node.in.slice(2)) as [ValueId[], ValueId[], ValueId[]];
    const [x] = dispatch.node.in;
    const [chosen] = sort.node.in;
    const [, weights] = scale.node.in;
    const { k } = combine.node.attrs;
    return { layer: { x, chosen, sort, down: down.node.out[0], weights, gates, ups, downs, combine, k }, nodes };
  }

  /**
   * An expert layer of few tokens: of the experts, only those that were chosen are read; where there are more tokens,
   * once for many of them.
   */
  private experts(combine: Placed<"combine">): Fusion | null {
    const { c } = this;
    const found = this.expertLayer(combine);
    if (found === null) return null;
    const { layer, nodes } = found;
    const [tokens, size] = matrixSizes(typeOf(c.graph, layer.x));
    const [width] = matrixSizes(typeOf(c.graph, at(layer.gates, 0)));
    const areWeights = [layer.gates, layer.ups, layer.downs].every((ids) =>
      ids.every((id) => c.graph.inputs.includes(c.rootOf(id))),
    );
    if (!areWeights || size % EIGHT !== 0 || width % EIGHT !== 0) return null;
    if (tokens * layer.k > MOST_SLOTS) {
      const [order, inverse, counts] = layer.sort.node.out;
      c.extend(layer.down, combine.index);
      return {
        index: combine.index,
        replaced: nodes.filter((place) => place !== layer.sort.index),
        inputs: [layer.x, layer.weights, order, inverse, counts],
        launch: () => this.launchSorted(layer, tokens, size, width),
      };
    }
    return {
      index: combine.index,
      replaced: nodes,
      inputs: [layer.x, layer.chosen, layer.weights],
      launch: () => this.launchExperts(layer, tokens, size, width),
    };
  }

  /** Where the matrices of all experts lie, as a kernel reads them. */
  private matrices(ids: readonly ValueId[]): Argument {
    return bufferTable(this.c.asMany(ids, "bf16"), "read");
  }

  private launchExperts(
    { x, chosen, weights, gates, ups, downs, combine, k }: Experts,
    tokens: number,
    size: number,
    width: number,
  ): void {
    const { c } = this;
    const slots = tokens * k;
    const units = c.scratch(slots * width, "bf16");
    const chosenOnes = reads(c.of(chosen));
    const half = reads(c.as(x, "bf16"));
    this.kernel(
      {
        kernel: "chosenGated",
        grid: [slots, blocksFor(width, TILE_ROWS), 1],
        bytes: 4 * Math.min(slots, gates.length) * width * size,
        flops: 4 * slots * width * size,
        arguments: [
          half,
          chosenOnes,
          this.matrices(gates),
          this.matrices(ups),
          writes(units),
          ...[size, width, k].map(int),
        ],
      },
      size,
    );
    const [out] = combine.node.out;
    const sum = c.sumOf(out, "bf16");
    const addend = sum === null ? null : c.as(sum.other, "bf16");
    const shares = reads(c.of(weights));
    const to = sum === null ? c.define(out, "bf16") : c.defineSum(sum, "bf16");
    this.kernel(
      {
        kernel: "chosenSum",
        grid: [tokens, blocksFor(size, TILE_ROWS), 1],
        bytes: 2 * Math.min(slots, downs.length) * width * size,
        flops: 2 * slots * width * size,
        arguments: [
          reads(units),
          chosenOnes,
          shares,
          this.matrices(downs),
          readsOrNull(addend),
          this.sumTarget(to, addend),
          ...[width, size, k].map(int),
        ],
      },
      width,
    );
  }

  /** The same for tokens whose slots are sorted by expert. */
  private launchSorted(
    { x, sort, down, weights, gates, ups, downs, combine, k }: Experts,
    tokens: number,
    size: number,
    width: number,
  ): void {
    const { c } = this;
    const slots = tokens * k;
    const experts = gates.length;
    // A token has an expert once, so none has more slots than there are tokens.
    const groups = blocksFor(tokens, BLOCK_TOKENS);
    const [order, , counts] = sort.node.out;
    const units = c.scratch(slots * width, "bf16");
    const sorted = [order, counts].map((id) => reads(c.of(id))) as [Argument, Argument];
    const half = reads(c.as(x, "bf16"));
    this.kernel({
      kernel: "sortedGated",
      grid: [blocksFor(width, TILE_ROWS), experts, groups],
      bytes: 4 * Math.min(slots, experts) * width * size,
      flops: 4 * slots * width * size,
      arguments: [
        half,
        ...sorted,
        this.matrices(gates),
        this.matrices(ups),
        writes(units),
        ...[size, width, k].map(int),
      ],
    });
    this.kernel({
      kernel: "sortedProduct",
      grid: [blocksFor(size, TILE_ROWS), experts, groups],
      bytes: 2 * Math.min(slots, experts) * width * size,
      flops: 2 * slots * width * size,
      arguments: [reads(units), sorted[1], this.matrices(downs), writes(c.define(down, "bf16")), int(width), int(size)],
    });
    combineRows(c, { node: combine.node, y: down, weights });
  }
}
