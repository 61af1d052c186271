/** Embeddings, rotary positions, joined heads, documents within sequences. N tokens, H hidden, V vocabulary. */
import type { NodeOf, ValueId } from "../../../graph/ir/ir.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import { EIGHT, blocksFor, bytesPer, gridFor, int, reads, readsOrNull, viewed, writes } from "./arguments.js";
import type { Context } from "./context.js";
import type { BufferId } from "./launches.js";
import { sortByDigit } from "./rules-experts.js";

/** Bits that one pass of a sort by token id takes. */
const DIGIT_BITS = 8;

/** Whether a value is cosines or sines of ropes alone, which stay in float32. */
const isOfAngles = (c: Context, id: ValueId): boolean =>
  !c.isOutput(id) &&
  c.readingNodes(id).length > 0 &&
  c.readersOf(id).every(({ prim, in: [x] }) => prim === "rope" && x !== undefined && c.rootOf(x) !== c.rootOf(id));

/** Appends the launches of `embedding`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerEmbedding(c: Context, node: NodeOf<"embedding">): void {
  const [table, ids] = node.in;
  const [rows, size] = matrixSizes(typeOf(c.graph, node.out[0]));
  const real = isOfAngles(c, node.out[0]) ? "f32" : c.realOf(table);
  // A parameter is read in float32, unless bfloat16 is all there is of it; rows of what a node has made are copied.
  const made = c.storageOf(table) !== null || (real === "bf16" && c.isKeptHalf(table));
  c.kernel({
    module: "tokens",
    kernel: made ? "gatherRows" : "embedding",
    real,
    grid: [rows, 1, 1],
    bytes: 8 * rows * size,
    arguments: [
      reads(made ? c.as(table, real) : c.of(table)),
      reads(c.of(ids)),
      writes(c.define(node.out[0], real)),
      int(size),
    ],
  });
}

/** Tokens sorted by id, then a sum for each row of the table: equal ids add up in the order of their tokens. */
export function lowerEmbeddingGrad(c: Context, node: NodeOf<"embeddingGrad">): void {
  const [ids, dy] = node.in;
  const { vocab } = node.attrs;
  const [tokens, size] = matrixSizes(typeOf(c.graph, dy));
  let sorted: { readonly keys: BufferId; readonly order: BufferId | null } = { keys: c.of(ids), order: null };
  for (let shift = 0; shift === 0 || vocab > 2 ** shift; shift += DIGIT_BITS)
    sorted = sortByDigit(c, { ...sorted, n: tokens, shift, digits: 2 ** DIGIT_BITS });
  const real = c.realOf(dy);
  c.kernel({
    module: "tokens",
    kernel: "embeddingGrad",
    real,
    grid: [vocab, 1, 1],
    flops: tokens * size,
    arguments: [
      reads(sorted.keys),
      readsOrNull(sorted.order),
      reads(c.as(dy, real)),
      writes(c.define(node.out[0])),
      int(tokens),
      int(size),
    ],
  });
}

/** Appends the launches of `segmentIds`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerSegmentIds(c: Context, node: NodeOf<"segmentIds">): void {
  const { batch, sequence, end } = node.attrs;
  c.kernel({
    module: "tokens",
    kernel: "segmentIds",
    grid: [blocksFor(batch, 32), 1, 1],
    block: 32,
    arguments: [reads(c.of(node.in[0])), writes(c.define(node.out[0])), int(batch), int(sequence), int(end)],
  });
}

/** Appends the launches of `segmentPositions`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerSegmentPositions(c: Context, node: NodeOf<"segmentPositions">): void {
  const { batch, sequence } = node.attrs;
  c.kernel({
    module: "tokens",
    kernel: "segmentPositions",
    grid: [blocksFor(batch, 32), 1, 1],
    block: 32,
    arguments: [reads(c.of(node.in[0])), writes(c.define(node.out[0])), int(batch), int(sequence)],
  });
}

/** Appends the launches of `rope`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerRope(c: Context, node: NodeOf<"rope">): void {
  const { batch, sequence, heads, headDim, offset, rotary, interleaved, inverse } = node.attrs;
  const [x, cos, sin] = node.in;
  const real = c.realOf(x);
  const tokens = batch * sequence;
  const tables = [reads(c.of(cos)), reads(c.of(sin))];
  const common = { module: "tokens", real, flops: 3 * tokens * heads * rotary } as const;
  if (!interleaved && rotary === headDim && headDim % (2 * EIGHT) === 0) {
    const from = c.viewOf(x, real);
    const to = c.defineRows(node.out[0], [x], real);
    c.kernel({
      ...common,
      kernel: "ropeHalves",
      grid: gridFor((tokens * heads * headDim) / 2),
      bytes: 2 * tokens * heads * headDim * bytesPer[real],
      arguments: [
        viewed(from, "read", real),
        ...tables,
        viewed(to, "write", real),
        ...[tokens, sequence, heads, headDim, Number(inverse), from.stride, to.stride].map(int),
      ],
    });
    return;
  }
  c.kernel({
    ...common,
    kernel: "rope",
    grid: [tokens, 1, 1],
    arguments: [
      reads(c.as(x, real)),
      ...tables,
      writes(c.define(node.out[0], real)),
      ...[sequence, heads, headDim, offset, rotary, Number(interleaved), Number(inverse)].map(int),
    ],
  });
}

/** Sizes of a head's own elements and of the shared ones. */
function joinedSizes(c: Context, { in: [own, shared], attrs: { heads } }: NodeOf<"joinHeads" | "joinHeadsGrad">) {
  const [rows, size] = matrixSizes(typeOf(c.graph, own));
  return { rows, sizes: [heads, size / heads, matrixSizes(typeOf(c.graph, shared))[1]].map(int) };
}

/** Appends the launches of `joinHeads`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerJoinHeads(c: Context, node: NodeOf<"joinHeads">): void {
  const { rows, sizes } = joinedSizes(c, node);
  const real = c.realOf(...node.in);
  const sources = node.in.map((id) => reads(c.as(id, real)));
  c.kernel({
    module: "tokens",
    kernel: "joinHeads",
    real,
    grid: [rows, 1, 1],
    arguments: [...sources, writes(c.define(node.out[0], real)), ...sizes],
  });
}

/** Appends the launches of `joinHeadsGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerJoinHeadsGrad(c: Context, node: NodeOf<"joinHeadsGrad">): void {
  const { rows, sizes } = joinedSizes(c, node);
  const [down, dshared] = node.out;
  const real = c.realOf(node.in[2]);
  c.kernel({
    module: "tokens",
    kernel: "joinHeadsGrad",
    real,
    grid: [rows, 1, 1],
    arguments: [reads(c.as(node.in[2], real)), writes(c.define(down, real)), writes(c.define(dshared, real)), ...sizes],
  });
}
