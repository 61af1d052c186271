/**
 * A program as a list of launches: what a GPU is asked to do, in order, as plain data. Every launch names the memory it
 * reads and writes, so that lifetimes, and from them a static plan of memory, follow from the list alone.
 */

/** How numbers lie in memory: float32, and integers of 32 bits; or bfloat16. */
export type Storage = "f32" | "bf16";

/** Index of a buffer in `LaunchList.buffers`. */
export type BufferId = number;

/** Where a buffer's memory comes from. */
export type Home =
  /** The program's own arena, at a place that the memory plan gives. */
  | { readonly kind: "arena" }
  /** Bound by whoever runs the program: input or output number `index` of the graph. */
  | { readonly kind: "input"; readonly index: number }
  | { readonly kind: "output"; readonly index: number }
  /** Likewise: input number `index` as bfloat16, which whoever runs the program keeps beside the float32 one. */
  | { readonly kind: "half"; readonly index: number }
  /** Likewise: the cache of keys and values, see `CacheLayout`. */
  | { readonly kind: "cache"; readonly index: number }
  /** Written once, before the first run: given words, or one word repeated. */
  | { readonly kind: "constant"; readonly words: Uint32Array | number };

/** A piece of device memory. */
export interface Buffer {
  readonly bytes: number;
  readonly home: Home;
}

/** Whether a launch reads a region, writes all of it, or both. */
export type Access = "read" | "write" | "update";

/** What a kernel is called with. */
export type Argument =
  | {
      readonly kind: "pointer";
      readonly buffer: BufferId;
      readonly access: Access;
      /** In bytes. */ readonly offset?: number;
    }
  /** The address of an array of addresses, one for each buffer. */
  | { readonly kind: "table"; readonly buffers: readonly BufferId[]; readonly access: Access }
  /**
   * The address of tensor maps, one for each buffer: how copies by TMA find boxes of 64 columns and `boxRows` rows in a
   * matrix of bfloat16, exchanging pieces of 16 bytes within 128 as wgmma wants it. Maps count as read.
   */
  | {
      readonly kind: "maps";
      readonly buffers: readonly BufferId[];
      readonly rows: number;
      readonly columns: number;
      readonly boxRows: number;
      /** Where a matrix begins in its buffer and what lies between its rows, in elements; left out: rows in a row. */
      readonly apart?: { readonly first: number; readonly stride: number };
    }
  | { readonly kind: "null" }
  | { readonly kind: "int"; readonly value: number }
  | { readonly kind: "long"; readonly value: number }
  | { readonly kind: "float"; readonly value: number };

/** Names of the kernel sources, files `NAME.cu` in engine/cuda/kernels, and behind them which part of one. */
export type KernelModule =
  | "attention"
  | `attention-${"tiled" | "gradients"}-${64 | 128 | 256}`
  | "decode"
  | "elementwise"
  | "experts"
  | "flash-64"
  | "flash-64-capped"
  | "flash-128"
  | "flash-128-capped"
  | "flash-hopper-64"
  | "flash-hopper-128"
  | "grouped"
  | "head"
  | "norm"
  | "optimizer"
  | "ragged"
  | "reduce"
  | "route"
  | "sort"
  | "tokens";

/** One call of a kernel. */
export interface KernelLaunch {
  readonly kind: "kernel";
  readonly module: KernelModule;
  readonly kernel: string;
  /** The element type of activations that the kernel is compiled for. */
  readonly real: Storage;
  /** Blocks by axis, and threads of a block. */
  readonly grid: readonly [number, number, number];
  readonly block: number;
  /** Bytes of dynamic shared memory. */
  readonly shared: number;
  readonly arguments: readonly Argument[];
  /**
   * The kernel may begin while the launch before it is at work: it waits by itself before it touches anything that
   * other launches touch.
   */
  readonly overlaps?: boolean;
  /** Bytes that have to pass through memory at least, and floating-point operations. */
  readonly bytes: number;
  readonly flops: number;
}

/**
 * A matrix product in rows: out [m, n] = op(a) op(b) + addend; see `matmul` in graph/ir/ir.ts. The addend is stored as
 * the result is, and may be what the result replaces.
 */
export interface ProductLaunch {
  readonly kind: "product";
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly transA: boolean;
  readonly transB: boolean;
  readonly addend: Operand | null;
  /** What operands are multiplied as: float32 with or without its last 13 bits, or bfloat16; sums are float32. */
  readonly compute: "f32" | "tf32" | "bf16";
  /** What the result is stored as. */
  readonly stored: Storage;
  readonly a: Operand;
  readonly b: Operand;
  readonly out: Operand;
  readonly bytes: number;
  readonly flops: number;
}

/** A matrix within a buffer. */
export interface Operand {
  readonly buffer: BufferId;
  /** Where it begins, in bytes. */
  readonly offset: number;
}

/** One kernel or matrix product with the buffers that it reads and writes. */
export type Launch = KernelLaunch | ProductLaunch;

/** A lowered program: its launches in order, and the buffers that they work on. */
export interface LaunchList {
  readonly buffers: readonly Buffer[];
  readonly launches: readonly Launch[];
  /** Place in the arena of each buffer that lies there, in bytes. */
  readonly places: ReadonlyMap<BufferId, number>;
  /** Bytes of the arena. */
  readonly arena: number;
}

/** Buffers that a launch touches, and how. */
export function touched(launch: Launch): readonly (readonly [BufferId, Access])[] {
  if (launch.kind === "product") {
    const { a, b, addend, out } = launch;
    return [
      [a.buffer, "read"],
      [b.buffer, "read"],
      ...(addend === null || addend.buffer === out.buffer ? [] : [[addend.buffer, "read"] as const]),
      [out.buffer, addend?.buffer === out.buffer ? "update" : "write"],
    ];
  }
  return launch.arguments.flatMap((argument): (readonly [BufferId, Access])[] => {
    if (argument.kind === "pointer") return [[argument.buffer, argument.access]];
    if (argument.kind === "table") return argument.buffers.map((buffer) => [buffer, argument.access] as const);
    if (argument.kind === "maps") return argument.buffers.map((buffer) => [buffer, "read"] as const);
    return [];
  });
}
