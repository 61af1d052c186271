/** What lowering rules work with: values of a graph as buffers, scratch memory, launches, which share one state. */
import { at, entryOf } from "../../../base/at.js";
import type { Graph, ValueId } from "../../../graph/ir/ir.js";
import {
  THREADS,
  WARP,
  WORD,
  blocksFor,
  bufferTable,
  bytesPer,
  gridFor,
  int,
  long,
  reads,
  viewed,
  writes,
  type View,
} from "./arguments.js";
import { CACHE_PARTS } from "./cache.js";
import { append, GraphUses } from "./graph-uses.js";
import type {
  Argument,
  Buffer,
  BufferId,
  Home,
  KernelLaunch,
  Launch,
  Operand,
  ProductLaunch,
  Storage,
} from "./launches.js";
import type { CudaLowerOptions } from "./options.js";

/** Parts of a launch that have a usual value. */
export type KernelCall = Omit<KernelLaunch, "kind" | "real" | "block" | "shared" | "bytes" | "flops"> &
  Partial<Pick<KernelLaunch, "real" | "block" | "shared" | "bytes" | "flops">>;

/** A key that equal uses of a primitive share. */
export const useKey = (prim: string, inputs: readonly ValueId[], attrs: object): string =>
  `${prim}(${inputs.join()})${JSON.stringify(attrs)}`;

/** Parts of a gradient that are summed at the end. */
interface LateSum {
  /** [size, inner] */
  readonly parts: BufferId;
  /** [inner] */
  readonly to: BufferId;
  readonly size: number;
  readonly inner: number;
}

/** A sum whose second term goes into the launch that makes its first one. */
interface FusedSum {
  /** The value of the sum, and the term that is there already. */
  readonly out: ValueId;
  readonly other: ValueId;
  /** Place of the sum among the nodes. */
  readonly index: number;
}

/** Kernels that wait for the launch before them by themselves (`takeTurn` of common.cuh), as those of decode.cu do. */
const takesTurns: ReadonlySet<string> = new Set(["rmsNormRows", "swigluRows", "combine", "routeTopK", "digitTile"]);

/** What a lowering rule reads values from and writes launches to. */
export class Context extends GraphUses {
  readonly buffers: Buffer[] = [];
  readonly launches: Launch[] = [];
  /** What forward launches have kept for backward ones, by `useKey`. */
  readonly kept = new Map<string, readonly BufferId[]>();
  private readonly regions = new Map<ValueId, BufferId>();
  /** Values of one repeated word, which get memory only where a launch needs all of it. */
  private readonly fills = new Map<ValueId, number>();
  private readonly constants = new Map<string, BufferId>();
  private readonly lastUses = new Map<ValueId, number>();
  /** Place among the graph's outputs of each value that is computed into it. */
  private readonly direct = new Map<ValueId, number>();
  /** What values that nodes have made are stored as; graph inputs are stored as float32 and count as either. */
  private readonly storages = new Map<ValueId, Storage>();
  /** Values in the other storage, by value and storage. */
  private readonly casts = new Map<string, BufferId>();
  /** Values whose rows lie apart, in the storage that `storages` says. */
  private readonly views = new Map<ValueId, View>();
  /** Values that rules are asked to make as rows that lie apart. */
  private readonly targets = new Map<ValueId, View>();
  /** Nodes whose work other launches do. */
  private readonly done = new Set<number>();
  private readonly extended = new Set<ValueId>();
  private readonly lateSums = new Map<string, LateSum[]>();
  private current = -1;

  constructor(
    graph: Graph,
    readonly options: CudaLowerOptions = {},
  ) {
    super(graph);
    for (const [index, node] of graph.nodes.entries())
      for (const id of node.in) this.lastUses.set(this.rootOf(id), index);
    graph.inputs.forEach((id, index) => this.regions.set(id, this.inputBuffer(id, index)));
    const made = new Set(graph.nodes.flatMap((node) => (node.prim === "constant" ? [] : node.out)));
    graph.outputs.forEach((id, index) => {
      const root = this.rootOf(id);
      this.lastUses.set(root, Infinity);
      if (made.has(root) && !this.direct.has(root)) this.direct.set(root, index);
    });
  }

  private inputBuffer(id: ValueId, index: number): BufferId {
    const { firstInput = null, shapes = [] } = this.options.cache ?? {};
    const part = firstInput === null ? -1 : index - firstInput;
    if (part < 0 || part >= shapes.length) return this.buffer(this.bytesOf(id), { kind: "input", index });
    this.storages.set(id, this.cacheStorage);
    return this.cacheBuffer(CACHE_PARTS + part, this.sizeOf(id), this.cacheStorage);
  }

  /** What keys and values of past tokens are stored as. */
  get cacheStorage(): Storage {
    return this.options.precision === "bf16" ? "bf16" : "f32";
  }

  /** One of the buffers that `CacheLayout` names, of so many elements. */
  cacheBuffer(index: number, count: number, storage: Storage = "f32"): BufferId {
    const key = `cache ${index}`;
    const made = this.casts.get(key) ?? this.buffer(count * bytesPer[storage], { kind: "cache", index });
    this.casts.set(key, made);
    return made;
  }

  /** Whether other launches do a node's work. */
  isSkipped(index: number): boolean {
    return this.done.has(index);
  }

  /** Called before each node's rule; false where nothing is left to do for it. */
  begin(index: number): boolean {
    this.current = index;
    return !this.done.has(index);
  }

  /** Says that a node's work is done by other launches. */
  skip(index: number): void {
    this.done.add(index);
  }

  /** Keeps a value's memory until a node that will read it although the graph does not say so. */
  extend(id: ValueId, index: number): void {
    const root = this.rootOf(id);
    this.extended.add(root);
    this.lastUses.set(root, Math.max(this.lastUses.get(root) ?? 0, index));
  }

  /**
   * The sum that is all that is made of the value of the current node, where its other term is there already and both
   * are stored as `storage`: then one launch can do both.
   */
  sumOf(id: ValueId, storage: Storage): FusedSum | null {
    const [index, ...others] = this.readingNodes(id);
    if (index === undefined || others.length > 0 || this.isOutput(id)) return null;
    const node = at(this.graph.nodes, index);
    if (node.prim !== "add") return null;
    const [a, b] = node.in;
    const [own, other] = this.rootOf(a) === this.rootOf(id) ? [a, b] : [b, a];
    const [out] = node.out;
    const shape = this.shapeOf(out).join();
    if (this.shapeOf(own).join() !== shape || this.shapeOf(other).join() !== shape) return null;
    if (!this.isMade(other) || this.rootOf(other) === this.rootOf(id)) return null;
    if ((this.storageOf(other) ?? "f32") !== storage || this.targets.has(out)) return null;
    return { out, other, index };
  }

  /** Whether a value lies in memory already, in rows one after the other. */
  private isMade(id: ValueId): boolean {
    const root = this.rootOf(id);
    return this.regions.has(root) && !this.fills.has(root);
  }

  /** Memory for a sum that is made now: that of its other term where nothing else will read it. */
  defineSum({ out, other, index }: FusedSum, storage: Storage): BufferId {
    this.done.add(index);
    const root = this.rootOf(other);
    const later = this.readingNodes(other).some((reader) => reader >= this.current && reader !== index);
    const buffer = entryOf(this.regions, root);
    const { home, bytes } = at(this.buffers, buffer);
    const ends = this.lastUses.get(root) === index && !later && !this.extended.has(root);
    const fits = home.kind === "arena" && bytes === this.sizeOf(out) * bytesPer[storage];
    if (this.direct.has(out) || !ends || !fits) return this.define(out, storage);
    this.regions.set(out, buffer);
    this.storages.set(out, storage);
    return buffer;
  }

  /**
   * As `defineSum` for a sum that a product makes. One that is stored as bfloat16 gets memory beside its other term:
   * cuBLASLt rounds a product to bfloat16 before it adds what lies where the result goes, and rounds once where the
   * result goes elsewhere.
   */
  defineProductSum(sum: FusedSum, storage: Storage): BufferId {
    if (storage !== "bf16") return this.defineSum(sum, storage);
    this.done.add(sum.index);
    return this.define(sum.out, storage);
  }

  /** Makes a value rows of a buffer that lie apart. */
  defineView(id: ValueId, view: View, storage: Storage): void {
    this.views.set(this.rootOf(id), view);
    this.storages.set(this.rootOf(id), storage);
  }

  /** Asks for a value to be made as rows that lie apart. */
  aimAt(id: ValueId, view: View): void {
    this.targets.set(id, view);
  }

  /** Rows of a value in a storage, as they lie. */
  viewOf(id: ValueId, storage: Storage): View {
    const root = this.rootOf(id);
    const view = this.views.get(root);
    if (view !== undefined && this.storages.get(root) === storage) return view;
    return { buffer: this.as(id, storage), first: 0, stride: this.rowsOf(id)[1] };
  }

  /** As `defineOver` for a rule that writes rows which may lie apart. */
  defineRows(id: ValueId, sources: readonly ValueId[], storage: Storage): View {
    const target = this.targets.get(id);
    if (target === undefined)
      return { buffer: this.defineOver(id, sources, storage), first: 0, stride: this.rowsOf(id)[1] };
    this.defineView(id, target, storage);
    return target;
  }

  /** Copies what a rule has made in rows of its own to where it was asked for. */
  settle(index: number): void {
    for (const id of at(this.graph.nodes, index).out) {
      const target = this.targets.get(id);
      const own = this.regions.get(id);
      if (target === undefined || own === undefined) continue;
      const storage = this.storages.get(id) ?? "f32";
      const [rows, size] = this.rowsOf(id);
      this.copyRows({ buffer: own, first: 0, stride: size }, target, [rows, size], storage);
      this.regions.delete(id);
      this.defineView(id, target, storage);
    }
  }

  private copyRows(from: View, to: View, [rows, size]: readonly [number, number], real: Storage): void {
    this.kernel({
      module: "elementwise",
      kernel: "copyRows",
      real,
      grid: gridFor(rows * size),
      bytes: 2 * rows * size * bytesPer[real],
      arguments: [
        viewed(from, "read", real),
        viewed(to, "write", real),
        ...[rows, size, from.stride, to.stride].map(int),
      ],
    });
  }

  private buffer(bytes: number, home: Home): BufferId {
    return this.buffers.push({ bytes, home }) - 1;
  }

  scratch(count: number, storage: Storage = "f32"): BufferId {
    return this.buffer(Math.max(1, count) * bytesPer[storage], { kind: "arena" });
  }

  /** What activations are stored as that are made of these values: as those of them that nodes have made. */
  realOf(...ids: readonly ValueId[]): Storage {
    if (this.options.precision !== "bf16") return "f32";
    const stored = ids.flatMap((id) => this.storages.get(this.rootOf(id)) ?? []);
    return stored.length === 0 || stored.includes("bf16") ? "bf16" : "f32";
  }

  /** What a value that a node has made is stored as; null for inputs and constants, which count as either. */
  storageOf(id: ValueId): Storage | null {
    return this.storages.get(this.rootOf(id)) ?? null;
  }

  /** Whether the result of a product of bfloat16 stays bfloat16. */
  keepsHalf(id: ValueId): boolean {
    return this.options.precision === "bf16" && !this.feedsFloats(id) && !this.feedsOutput(id);
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
  single(word: number, storage: Storage = "f32"): BufferId {
    return this.constant(storage === "f32" ? word : halfWord(word), WORD);
  }

  defineConstant(id: ValueId, words: Uint32Array): void {
    this.regions.set(id, this.constant(words, words.byteLength));
  }

  /** Where a value lies, as float32 or integers. */
  of(id: ValueId): BufferId {
    return this.as(id, "f32");
  }

  /** Where a value lies in a storage; one that lies in the other is converted, once. */
  as(id: ValueId, storage: Storage): BufferId {
    const root = this.rootOf(id);
    const fill = this.fills.get(root);
    if (fill !== undefined) return this.filled(root, fill, storage);
    const key = `${root} ${storage}`;
    const known = this.casts.get(key) ?? this.half(root, storage);
    if (known !== undefined) return known;
    const stored = this.storages.get(root) ?? "f32";
    const own = this.regions.get(root) ?? this.gathered(id, stored);
    if (stored === storage) return own;
    const size = this.sizeOf(root);
    const made = this.scratch(size, storage);
    this.cast(own, made, size, storage);
    this.casts.set(key, made);
    return made;
  }

  /** The bfloat16 that is kept of an input. */
  private half(root: ValueId, storage: Storage): BufferId | undefined {
    const index = storage === "bf16" ? this.inputPlace(root) : -1;
    return this.options.layout?.halves.has(index) === true ? this.halves([root]) : undefined;
  }

  /** Whether an input's bfloat16 is what the program has of it: one that trains keeps float32, and reads that. */
  isKeptHalf(id: ValueId): boolean {
    const { layout } = this.options;
    return layout?.outputs.size === 0 && layout.halves.has(this.inputPlace(this.rootOf(id)));
  }

  /** The bfloat16 that is kept of inputs which lie one behind the other, as one buffer. */
  halves(ids: readonly ValueId[]): BufferId {
    const key = `${ids.map((id) => this.rootOf(id)).join()} bf16`;
    const index = this.inputPlace(this.rootOf(at(ids, 0)));
    const bytes = ids.reduce((sum, id) => sum + this.sizeOf(id) * bytesPer.bf16, 0);
    const made = this.casts.get(key) ?? this.buffer(bytes, { kind: "half", index });
    this.casts.set(key, made);
    return made;
  }

  /** Memory of outputs that lie one behind the other, as one buffer, into which a launch writes them all. */
  outputs(ids: readonly ValueId[]): BufferId {
    const index = entryOf(this.direct, at(ids, 0));
    const made = this.buffer(
      ids.reduce((sum, id) => sum + this.bytesOf(id), 0),
      { kind: "output", index },
    );
    for (const id of ids) {
      this.regions.set(id, made);
      this.storages.set(id, "f32");
    }
    return made;
  }

  /** Memory for a value whose rows lie apart, into which a launch brings them together. */
  gatherHere(id: ValueId, storage: Storage): BufferId {
    const made = this.scratch(this.sizeOf(id), storage);
    this.casts.set(`${this.rootOf(id)} ${storage}`, made);
    return made;
  }

  /** Rows that lie apart, brought together once. */
  private gathered(id: ValueId, storage: Storage): BufferId {
    const root = this.rootOf(id);
    const view = entryOf(this.views, root);
    const [rows, size] = this.rowsOf(root);
    const made = this.scratch(rows * size, storage);
    this.copyRows(view, { buffer: made, first: 0, stride: size }, [rows, size], storage);
    this.casts.set(`${root} ${storage}`, made);
    return made;
  }

  /** `as` for values of one shape, such as the weights of experts: converted together where none of them has been. */
  asMany(ids: readonly ValueId[], storage: Storage): BufferId[] {
    const roots = ids.map((id) => this.rootOf(id));
    const alone = (root: ValueId): boolean =>
      this.fills.has(root) ||
      (this.storages.get(root) ?? "f32") === storage ||
      this.casts.has(`${root} ${storage}`) ||
      this.half(root, storage) !== undefined;
    if (storage === "f32" || new Set(roots).size < roots.length || roots.some(alone))
      return ids.map((id) => this.as(id, storage));
    const size = Math.max(...roots.map((root) => this.sizeOf(root)));
    const [from, to] = [roots.map((root) => entryOf(this.regions, root)), roots.map(() => this.scratch(size, storage))];
    const [x] = gridFor(size);
    this.kernel({
      module: "elementwise",
      kernel: "toBf16Many",
      grid: [x, roots.length, 1],
      arguments: [bufferTable(from, "read"), bufferTable(to, "write"), long(size)],
    });
    for (const [i, root] of roots.entries()) this.casts.set(`${root} ${storage}`, at(to, i));
    return to;
  }

  private filled(root: ValueId, fill: number, storage: Storage): BufferId {
    if (storage === "f32") return this.constant(fill, this.bytesOf(root));
    return this.constant(halfWord(fill), Math.ceil((this.sizeOf(root) * bytesPer[storage]) / WORD) * WORD);
  }

  private cast(from: BufferId, to: BufferId, size: number, storage: Storage): void {
    this.kernel({
      module: "elementwise",
      kernel: storage === "bf16" ? "toBf16" : "fromBf16",
      grid: gridFor(size),
      arguments: [reads(from), writes(to), long(size)],
    });
  }

  /** Memory for a value that a node makes. */
  define(id: ValueId, storage: Storage = "f32"): BufferId {
    this.storages.set(id, storage);
    if (storage === "bf16") {
      // Outputs are float32: `finish` converts it.
      this.direct.delete(id);
      const own = this.scratch(this.sizeOf(id), storage);
      this.regions.set(id, own);
      return own;
    }
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
  defineOver(id: ValueId, sources: readonly ValueId[], storage: Storage = "f32"): BufferId {
    if (this.direct.has(id)) return this.define(id, storage);
    const taken = new Set(at(this.graph.nodes, this.current).out.map((other) => this.regions.get(other)));
    const free = sources.find((source) => {
      const root = this.rootOf(source);
      if (this.fills.has(root) || this.views.has(root) || this.lastUses.get(root) !== this.current) return false;
      const buffer = entryOf(this.regions, root);
      const { home, bytes } = at(this.buffers, buffer);
      const fits = bytes === this.sizeOf(id) * bytesPer[storage] && (this.storages.get(root) ?? "f32") === storage;
      return home.kind === "arena" && fits && !taken.has(buffer);
    });
    if (free === undefined) return this.define(id, storage);
    const buffer = entryOf(this.regions, this.rootOf(free));
    this.regions.set(id, buffer);
    this.storages.set(id, storage);
    return buffer;
  }

  /** Makes a value another name for memory that exists. */
  alias(id: ValueId, buffer: BufferId): void {
    this.regions.set(id, buffer);
  }

  kernel({ real = "f32", block = THREADS, shared = 0, bytes, flops = 0, ...call }: KernelCall): void {
    this.launches.push({
      kind: "kernel",
      real,
      block,
      shared,
      flops,
      bytes: bytes ?? this.bytesMoved(call.arguments),
      ...(this.isStep && takesTurns.has(call.kernel) ? { overlaps: true } : {}),
      ...call,
    });
  }

  /** Whether this is a program of new tokens behind a cache. */
  private get isStep(): boolean {
    return this.options.cache?.firstInput != null;
  }

  /** Bytes of everything that a kernel's arguments name, once each way. */
  private bytesMoved(args: readonly Argument[]): number {
    const size = (buffer: BufferId): number => at(this.buffers, buffer).bytes;
    return args.reduce((sum, argument) => {
      if (argument.kind === "table" || argument.kind === "maps")
        return sum + argument.buffers.reduce((total, buffer) => total + size(buffer), 0);
      if (argument.kind !== "pointer") return sum;
      return sum + size(argument.buffer) * (argument.access === "update" ? 2 : 1);
    }, 0);
  }

  /** out [m, n] = op(a) op(b) */
  product(
    sizes: { readonly m: number; readonly n: number; readonly k: number },
    flags: {
      readonly transA?: boolean;
      readonly transB?: boolean;
      /** What operands lie in and are multiplied as; float32 may become tf32. */
      readonly real?: Storage;
      readonly stored?: Storage;
    },
    operands: { readonly a: Operand; readonly b: Operand; readonly addend?: Operand | null; readonly out: Operand },
  ): void {
    const { m, n, k } = sizes;
    const { transA = false, transB = false, real = "f32", stored = "f32" } = flags;
    const { addend = null } = operands;
    const compute: ProductLaunch["compute"] = real === "f32" && this.options.precision === "tf32" ? "tf32" : real;
    this.launches.push({
      kind: "product",
      ...sizes,
      transA,
      transB,
      compute,
      stored,
      ...operands,
      addend,
      bytes: bytesPer[real] * (m * k + k * n) + bytesPer[stored] * m * n * (addend === null ? 1 : 2),
      flops: 2 * m * n * k,
    });
  }

  /** Notes parts [size, inner] whose sum over `size` nothing waits for; `finish` sums those of one size together. */
  sumLater(sum: LateSum): void {
    const key = `${sum.size} x ${sum.inner}`;
    append(this.lateSums, key, sum);
  }

  private sumNow(): void {
    for (const sums of this.lateSums.values()) {
      const { size, inner } = at(sums, 0);
      this.kernel({
        module: "reduce",
        kernel: "sumRowsMany",
        grid: [blocksFor(inner, WARP), sums.length, 1],
        flops: sums.length * size * inner,
        arguments: [
          bufferTable(
            sums.map(({ parts }) => parts),
            "read",
          ),
          bufferTable(
            sums.map(({ to }) => to),
            "write",
          ),
          int(size),
          int(inner),
        ],
      });
    }
  }

  /** Brings outputs into place that are inputs, constants or values that another output holds already. */
  finish(): void {
    this.sumNow();
    this.graph.outputs.forEach((id, index) => {
      const root = this.rootOf(id);
      if (this.direct.get(root) === index) return;
      const size = this.sizeOf(id);
      const to = this.buffer(this.bytesOf(id), { kind: "output", index });
      if (this.storages.get(root) === "bf16") {
        this.cast(entryOf(this.regions, root), to, size, "f32");
        return;
      }
      this.kernel({
        module: "elementwise",
        kernel: "copyWords",
        grid: gridFor(size),
        arguments: [reads(this.of(id)), writes(to), long(size)],
      });
    });
  }
}

const halves = new DataView(new ArrayBuffer(WORD));

/** Two bfloat16 of the number that a word of float32 is, as one word. */
function halfWord(word: number): number {
  halves.setUint32(0, word);
  if (Number.isNaN(halves.getFloat32(0))) return 0x7fc07fc0;
  const half = ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
  return ((half << 16) | half) >>> 0;
}
