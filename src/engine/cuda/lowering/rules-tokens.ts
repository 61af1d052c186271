/** Embeddings, rotary positions, joined heads, documents within sequences. N tokens, H hidden, V vocabulary. */
import type { NodeOf } from "../../../graph/ir/ir.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import { blocksFor, int, read, readOrNull, write, type Context } from "./context.js";
import type { BufferId } from "./launches.js";
import { sortByDigit } from "./rules-experts.js";

/** Bits that one pass of a sort by token id takes. */
const DIGIT_BITS = 8;

export function embedding(c: Context, node: NodeOf<"embedding">): void {
  const [table, ids] = node.in;
  const [rows, size] = matrixSizes(typeOf(c.graph, node.out[0]));
  c.kernel({
    module: "tokens",
    kernel: "embedding",
    grid: [rows, 1, 1],
    bytes: 8 * rows * size,
    arguments: [read(c.of(table)), read(c.of(ids)), write(c.define(node.out[0])), int(size)],
  });
}

/** Tokens sorted by id, then a sum for each row of the table: equal ids add up in the order of their tokens. */
export function embeddingGrad(c: Context, node: NodeOf<"embeddingGrad">): void {
  const [ids, dy] = node.in;
  const { vocab } = node.attrs;
  const [tokens, size] = matrixSizes(typeOf(c.graph, dy));
  let sorted: { readonly keys: BufferId; readonly order: BufferId | null } = { keys: c.of(ids), order: null };
  for (let shift = 0; shift === 0 || vocab > 2 ** shift; shift += DIGIT_BITS)
    sorted = sortByDigit(c, { ...sorted, n: tokens, shift, digits: 2 ** DIGIT_BITS });
  c.kernel({
    module: "tokens",
    kernel: "embeddingGrad",
    grid: [vocab, 1, 1],
    flops: tokens * size,
    arguments: [
      read(sorted.keys),
      readOrNull(sorted.order),
      read(c.of(dy)),
      write(c.define(node.out[0])),
      int(tokens),
      int(size),
    ],
  });
}

export function segmentIds(c: Context, node: NodeOf<"segmentIds">): void {
  const { batch, sequence, end } = node.attrs;
  c.kernel({
    module: "tokens",
    kernel: "segmentIds",
    grid: [blocksFor(batch, 32), 1, 1],
    block: 32,
    arguments: [read(c.of(node.in[0])), write(c.define(node.out[0])), int(batch), int(sequence), int(end)],
  });
}

export function segmentPositions(c: Context, node: NodeOf<"segmentPositions">): void {
  const { batch, sequence } = node.attrs;
  c.kernel({
    module: "tokens",
    kernel: "segmentPositions",
    grid: [blocksFor(batch, 32), 1, 1],
    block: 32,
    arguments: [read(c.of(node.in[0])), write(c.define(node.out[0])), int(batch), int(sequence)],
  });
}

export function rope(c: Context, node: NodeOf<"rope">): void {
  const { batch, sequence, heads, headDim, offset, rotary, interleaved, inverse } = node.attrs;
  const sources = node.in.map((id) => read(c.of(id)));
  c.kernel({
    module: "tokens",
    kernel: "rope",
    grid: [batch * sequence, 1, 1],
    flops: 3 * batch * sequence * heads * rotary,
    arguments: [
      ...sources,
      write(c.define(node.out[0])),
      ...[sequence, heads, headDim, offset, rotary, Number(interleaved), Number(inverse)].map(int),
    ],
  });
}

/** Sizes of a head's own elements and of the shared ones. */
function joinedSizes(c: Context, { in: [own, shared], attrs: { heads } }: NodeOf<"joinHeads" | "joinHeadsGrad">) {
  const [rows, size] = matrixSizes(typeOf(c.graph, own));
  return { rows, sizes: [heads, size / heads, matrixSizes(typeOf(c.graph, shared))[1]].map(int) };
}

export function joinHeads(c: Context, node: NodeOf<"joinHeads">): void {
  const { rows, sizes } = joinedSizes(c, node);
  const sources = node.in.map((id) => read(c.of(id)));
  c.kernel({
    module: "tokens",
    kernel: "joinHeads",
    grid: [rows, 1, 1],
    arguments: [...sources, write(c.define(node.out[0])), ...sizes],
  });
}

export function joinHeadsGrad(c: Context, node: NodeOf<"joinHeadsGrad">): void {
  const { rows, sizes } = joinedSizes(c, node);
  const [down, dshared] = node.out;
  c.kernel({
    module: "tokens",
    kernel: "joinHeadsGrad",
    grid: [rows, 1, 1],
    arguments: [read(c.of(node.in[2])), write(c.define(down)), write(c.define(dshared)), ...sizes],
  });
}
