/** What lowering rules work with: values of a graph as buffers, scratch memory, launches. */
import { at, entryOf } from "../../../base/at.js";
import { elements, typeOf, type Graph, type Node, type ValueId } from "../../../graph/ir/ir.js";
import type { Argument, Buffer, BufferId, Home, KernelLaunch, Launch, Operand } from "./launches.js";

/** Bytes of an element: float32 and int32. */
export const WORD = 4;
/** Threads of a block where a kernel does not ask for others. */
export const THREADS = 256;
/** Blocks of a kernel that walks over any number of elements. */
const MOST_BLOCKS = 1 << 14;

export const read = (buffer: BufferId): Argument => ({ kind: "pointer", buffer, access: "read" });
export const write = (buffer: BufferId): Argument => ({ kind: "pointer", buffer, access: "write" });
export const update = (buffer: BufferId): Argument => ({ kind: "pointer", buffer, access: "update" });
export const readOrNull = (buffer: BufferId | null): Argument => (buffer === null ? nothing : read(buffer));
export const nothing: Argument = { kind: "null" };
export const int = (value: number): Argument => ({ kind: "int", value });
export const long = (value: number): Argument => ({ kind: "long", value });
export const float = (value: number): Argument => ({ kind: "float", value });
export const table = (buffers: readonly BufferId[], access: "read" | "write"): Argument => ({
  kind: "table",
  buffers,
  access,
});

/** Blocks for `n` elements, one for each thread. */
export const blocksFor = (n: number, threads = THREADS): number => Math.max(1, Math.ceil(n / threads));

/** The grid of a kernel that walks over `n` elements. */
export const gridFor = (n: number): readonly [number, number, number] => [Math.min(blocksFor(n), MOST_BLOCKS), 1, 1];

/** Parts of a launch that have a usual value. */
export type KernelCall = Omit<KernelLaunch, "kind" | "block" | "shared" | "bytes" | "flops"> &
  Partial<Pick<KernelLaunch, "block" | "shared" | "bytes" | "flops">>;

/** Values that share memory: a reshaped value is its input by another name. */
function rootsOf(graph: Graph): (id: ValueId) => ValueId {
  const roots = new Map<ValueId, ValueId>();
  const rootOf = (id: ValueId): ValueId => roots.get(id) ?? id;
  for (const node of graph.nodes) if (node.prim === "reshape") roots.set(node.out[0], rootOf(node.in[0]));
  return rootOf;
}

/** A key that equal uses of a primitive share. */
export const useKey = (prim: string, inputs: readonly ValueId[], attrs: object): string =>
  `${prim}(${inputs.join()})${JSON.stringify(attrs)}`;

/** How a graph is lowered. */
export interface LowerOptions {
  /** Logits of a head with its loss that exist at once; tokens are cut into runs by it. */
  readonly mostLogits?: number;
}

export class Context {
  readonly buffers: Buffer[] = [];
  readonly launches: Launch[] = [];
  /** What forward launches have kept for backward ones, by `useKey`. */
  readonly kept = new Map<string, readonly BufferId[]>();
  private readonly rootOf: (id: ValueId) => ValueId;
  private readonly regions = new Map<ValueId, BufferId>();
  /** Values of one repeated word, which get memory only where a launch needs all of it. */
  private readonly fills = new Map<ValueId, number>();
  private readonly constants = new Map<string, BufferId>();
  private readonly lastUses = new Map<ValueId, number>();
  /** Place among the graph's outputs of each value that is computed into it. */
  private readonly direct = new Map<ValueId, number>();
  private current = -1;

  constructor(
    readonly graph: Graph,
    readonly options: LowerOptions = {},
  ) {
    this.rootOf = rootsOf(graph);
    for (const [index, node] of graph.nodes.entries())
      for (const id of node.in) this.lastUses.set(this.rootOf(id), index);
    graph.inputs.forEach((id, index) => this.regions.set(id, this.buffer(this.bytesOf(id), { kind: "input", index })));
    const made = new Set(graph.nodes.flatMap((node) => (node.prim === "constant" ? [] : node.out)));
    graph.outputs.forEach((id, index) => {
      const root = this.rootOf(id);
      this.lastUses.set(root, Infinity);
      if (made.has(root) && !this.direct.has(root)) this.direct.set(root, index);
    });
  }

  /** Called before each node's rule. */
  begin(index: number): void {
    this.current = index;
  }

  /** Keeps a value's memory until a node that will read it although the graph does not say so. */
  extend(id: ValueId, index: number): void {
    const root = this.rootOf(id);
    this.lastUses.set(root, Math.max(this.lastUses.get(root) ?? 0, index));
  }

  shapeOf(id: ValueId): readonly number[] {
    return typeOf(this.graph, id).shape;
  }

  sizeOf(id: ValueId): number {
    return elements(this.shapeOf(id));
  }

  bytesOf(id: ValueId): number {
    return this.sizeOf(id) * WORD;
  }

  /** Size of the last axis, and how many rows of it there are. */
  rowsOf(id: ValueId): readonly [rows: number, size: number] {
    const size = this.shapeOf(id).at(-1) ?? 1;
    return [this.sizeOf(id) / size, size];
  }

  /** Nodes that read a value, under any of its names. */
  readersOf(id: ValueId): readonly Node[] {
    const root = this.rootOf(id);
    return this.graph.nodes.filter((node) => node.prim !== "reshape" && node.in.some((x) => this.rootOf(x) === root));
  }

  private buffer(bytes: number, home: Home): BufferId {
    return this.buffers.push({ bytes, home }) - 1;
  }

  scratch(elements: number): BufferId {
    return this.buffer(Math.max(1, elements) * WORD, { kind: "arena" });
  }

  /** The word that all elements of a value are, or null. */
  fillOf(id: ValueId): number | null {
    return this.fills.get(this.rootOf(id)) ?? null;
  }

  defineFill(id: ValueId, word: number): void {
    this.fills.set(id, word);
  }

  /** A constant of words; equal ones are kept once. */
  constant(words: Uint32Array | number, bytes: number): BufferId {
    const key = typeof words === "number" ? `${bytes} of ${words}` : words.join();
    const known = this.constants.get(key);
    if (known !== undefined) return known;
    const made = this.buffer(bytes, { kind: "constant", words });
    this.constants.set(key, made);
    return made;
  }

  /** One element that stands for a value of a repeated word. */
  single(word: number): BufferId {
    return this.constant(word, WORD);
  }

  defineConstant(id: ValueId, words: Uint32Array): void {
    this.regions.set(id, this.constant(words, words.byteLength));
  }

  /** Where a value lies. */
  of(id: ValueId): BufferId {
    const root = this.rootOf(id);
    const fill = this.fills.get(root);
    return fill === undefined ? entryOf(this.regions, root) : this.constant(fill, this.bytesOf(root));
  }

  /** Memory for a value that a node makes. */
  define(id: ValueId): BufferId {
    const output = this.direct.get(id);
    const home: Home = output === undefined ? { kind: "arena" } : { kind: "output", index: output };
    const made = this.buffer(Math.max(WORD, this.bytesOf(id)), home);
    this.regions.set(id, made);
    return made;
  }

  /**
   * Memory for a value that is made element by element: that of one of `sources` where the current node is the last to
   * read it, else memory of its own.
   */
  defineOver(id: ValueId, sources: readonly ValueId[]): BufferId {
    if (this.direct.has(id)) return this.define(id);
    const taken = new Set(at(this.graph.nodes, this.current).out.map((other) => this.regions.get(other)));
    const free = sources.find((source) => {
      const root = this.rootOf(source);
      if (this.fills.has(root) || this.lastUses.get(root) !== this.current) return false;
      const buffer = entryOf(this.regions, root);
      const { home, bytes } = at(this.buffers, buffer);
      return home.kind === "arena" && bytes === this.bytesOf(id) && !taken.has(buffer);
    });
    if (free === undefined) return this.define(id);
    const buffer = this.of(free);
    this.regions.set(id, buffer);
    return buffer;
  }

  /** Makes a value another name for memory that exists. */
  alias(id: ValueId, buffer: BufferId): void {
    this.regions.set(id, buffer);
  }

  kernel({ block = THREADS, shared = 0, bytes, flops = 0, ...call }: KernelCall): void {
    this.launches.push({
      kind: "kernel",
      block,
      shared,
      flops,
      bytes: bytes ?? this.bytesMoved(call.arguments),
      ...call,
    });
  }

  /** Bytes of everything that a kernel's arguments name, once each way. */
  private bytesMoved(args: readonly Argument[]): number {
    const size = (buffer: BufferId): number => at(this.buffers, buffer).bytes;
    return args.reduce((sum, argument) => {
      if (argument.kind === "table") return sum + argument.buffers.reduce((total, buffer) => total + size(buffer), 0);
      if (argument.kind !== "pointer") return sum;
      return sum + size(argument.buffer) * (argument.access === "update" ? 2 : 1);
    }, 0);
  }

  /** out [m, n] = op(a) op(b) */
  product(
    sizes: { readonly m: number; readonly n: number; readonly k: number },
    flags: { readonly transA?: boolean; readonly transB?: boolean; readonly accumulate?: boolean },
    operands: { readonly a: Operand; readonly b: Operand; readonly out: Operand },
  ): void {
    const { m, n, k } = sizes;
    const { transA = false, transB = false, accumulate = false } = flags;
    this.launches.push({
      kind: "product",
      ...sizes,
      transA,
      transB,
      accumulate,
      ...operands,
      bytes: WORD * (m * k + k * n + m * n * (accumulate ? 2 : 1)),
      flops: 2 * m * n * k,
    });
  }

  /** Brings outputs into place that are inputs, constants or values that another output holds already. */
  finish(): void {
    this.graph.outputs.forEach((id, index) => {
      const root = this.rootOf(id);
      if (this.direct.get(root) === index) return;
      const size = this.sizeOf(id);
      const to = this.buffer(this.bytesOf(id), { kind: "output", index });
      this.kernel({
        module: "elementwise",
        kernel: "copyWords",
        grid: gridFor(size),
        arguments: [read(this.of(id)), write(to), long(size)],
      });
    });
  }
}

/** A whole buffer as an operand of a product, or from element `first` on. */
export const operand = (buffer: BufferId, first = 0): Operand => ({ buffer, offset: first * WORD });
