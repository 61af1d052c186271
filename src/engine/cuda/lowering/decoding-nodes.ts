/** What the launches of decoding have in common: nodes of the graph, which of them are taken, and thin kernels. */
import { at } from "../../../base/at.js";
import type { Node, NodeOf, Prim, ValueId } from "../../../graph/ir/ir.js";
import { writes } from "./arguments.js";
import type { Context } from "./context.js";
import type { Argument, BufferId, KernelLaunch } from "./launches.js";

/** Tokens that a block of a thin product takes: of the kernels for few tokens, and of that for more. */
export const FEW_TOKENS = [8, 16] as const;
export const BLOCK_TOKENS = 32;
/** Rows of weights of a block; its threads, more of them for long rows where there are few blocks. */
export const TILE_ROWS = 16;
const THREADS = 256;
const MANY_THREADS = 512;
const LONG_ROW = 1024;
/** Multiprocessors of a GPU that is not known, and blocks that each should get. */
export const MULTIPROCESSORS = 132;
const BLOCKS_EACH = 2;

/** A node and its place in the graph. */
export interface Placed<P extends Prim> {
  readonly index: number;
  readonly node: NodeOf<P>;
}

/** Whether a node is of this primitive. */
export const is = <P extends Prim>(node: Node, prim: P): node is Node & NodeOf<P> => node.prim === prim;

/** What stands for several nodes: it is launched at the place of one of them. */
export interface Fusion {
  readonly index: number;
  readonly replaced: readonly number[];
  /** Values that it reads after the last of their own readers may have come. */
  readonly inputs: readonly ValueId[];
  launch(): void;
}

/** The nodes of a graph of so many new tokens, as decoding's launches ask for them. */
export class DecodingNodes {
  /** Places of nodes that a launch of decoding stands for. */
  readonly taken = new Set<number>();
  private readonly makers = new Map<ValueId, number>();

  constructor(
    readonly c: Context,
    readonly tokens: number,
  ) {
    for (const [index, { out }] of c.graph.nodes.entries()) for (const id of out) this.makers.set(id, index);
  }

  /** What makes a value, where it is a node of this primitive. */
  maker<P extends Prim>(id: ValueId, prim: P): Placed<P> | null {
    const index = this.makers.get(this.c.rootOf(id));
    if (index === undefined) return null;
    const node = at(this.c.graph.nodes, index);
    return is(node, prim) ? { index, node } : null;
  }

  /** Whether these nodes alone read a value. */
  onlyReadBy(id: ValueId, ...places: readonly number[]): boolean {
    const { c } = this;
    return !c.isOutput(id) && c.readingNodes(id).every((place) => places.includes(place));
  }

  /** A thin launch. `size`: elements of the rows that a block of few tokens multiplies. */
  kernel(call: Pick<KernelLaunch, "kernel" | "grid" | "arguments" | "bytes" | "flops">, size = 0): void {
    const [x, y] = call.grid;
    const { multiprocessors = MULTIPROCESSORS } = this.c.options.chip ?? {};
    const isLong = size > LONG_ROW && this.tokens <= FEW_TOKENS[1];
    const block = isLong && x * y <= BLOCKS_EACH * multiprocessors ? MANY_THREADS : THREADS;
    this.c.kernel({ module: "decode", real: "bf16", block, overlaps: true, ...call });
  }

  /** What a sum is written to, over the addend where that is at the same place. */
  sumTarget(to: BufferId, addend: BufferId | null): Argument {
    return addend === to ? { kind: "pointer", buffer: to, access: "update" } : writes(to);
  }
}
