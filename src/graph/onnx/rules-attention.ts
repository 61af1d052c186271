/**
 * Lowering of rope and attention. Queries go in blocks, each against the keys that it sees. The file is long because
 * the gradient goes through the same blocks as the forward pass and shares its functions.
 *
 * Letters: B batch, S sequence, D head size, G query heads of a key head, L queries of a block, M keys it sees.
 */
import { at } from "../../base/at.js";
import {
  attentionExtras,
  type AttentionAttrs,
  type NodeOf,
  type PrimInputs,
  type RopeAttrs,
  type ValueId,
} from "../ir/ir.js";
import type { Lowering } from "./context.js";

/** Rope on x [N, heads*D] by com.microsoft's operator. */
function rope(ctx: Lowering, x: string, cos: string, sin: string, attrs: RopeAttrs): string {
  const e = ctx.emitter;
  const { batch, sequence, heads, headDim, offset, rotary } = attrs;
  if (offset > 0) return ropeBehind(ctx, x, cos, sin, attrs);
  const signed = attrs.inverse ? ctx.remember(`neg ${sin}`, () => e.op("Neg", [sin])) : sin;
  const rows = e.reshape(x, [batch, sequence, heads * headDim]);
  // The operator derives the head size from the tables unless it is told that only a part turns.
  const whole = { interleaved: Number(attrs.interleaved) };
  const attributes = rotary === headDim ? whole : { ...whole, rotary_embedding_dim: rotary, num_heads: heads };
  const [rotated] = e.emit("RotaryEmbedding", [rows, e.ints([0]), cos, signed], attributes, 1, "com.microsoft");
  return e.reshape(rotated, [batch * sequence, heads * headDim]);
}

/** The operator turns a head's first elements only, so those before the offset are taken away and put back. */
function ropeBehind(ctx: Lowering, x: string, cos: string, sin: string, attrs: RopeAttrs): string {
  const e = ctx.emitter;
  const { batch, sequence, heads, headDim, offset } = attrs;
  const rest = headDim - offset;
  const rows = batch * sequence * heads;
  const [before, behind] = e.emit("Split", [e.reshape(x, [rows, headDim]), e.ints([offset, rest])], { axis: 1 }, 2);
  const rotated = rope(ctx, e.reshape(behind, [batch * sequence, heads * rest]), cos, sin, {
    ...attrs,
    headDim: rest,
    offset: 0,
  });
  return e.reshape(e.op("Concat", [before, e.reshape(rotated, [rows, rest])], { axis: 1 }), [
    batch * sequence,
    heads * headDim,
  ]);
}

/** Added to a score that the mask drops: so low that its probability underflows to 0. */
export const UNSEEN = -1e30;

/** Queries `start` to `start + length` of each sequence, and the keys `from` to `to` that any of them sees. */
interface QueryBlock {
  readonly start: number;
  readonly length: number;
  readonly from: number;
  readonly to: number;
}

/** Shorter blocks skip more of the masked scores, but cost more nodes and copies. */
const blockLength = (sequence: number): number => (sequence <= 1024 ? 128 : 256);

/** All queries and keys as one block. */
export const wholeBlock = (sequence: number): QueryBlock => ({ start: 0, length: sequence, from: 0, to: sequence });

/**
 * Blocks of queries, so that scores that the mask would drop are not computed: of the causal half, and outside of a
 * window. Keys begin and end where blocks do, so that the gradients of keys add up block by block.
 */
export function queryBlocks({ sequence, window }: Pick<AttentionAttrs, "sequence" | "window">): QueryBlock[] {
  const size = blockLength(sequence);
  const count = sequence < 2 * size ? 1 : Math.ceil(sequence / size);
  if (count === 1) return [wholeBlock(sequence)];
  return Array.from({ length: count }, (_, i) => {
    const start = i * size;
    const first = window === null ? 0 : Math.max(0, start - window + 1);
    return {
      start,
      length: Math.min(size, sequence - start),
      from: Math.floor(first / size) * size,
      to: Math.min(sequence, start + size),
    };
  });
}

/** What a block of queries has computed, by ONNX name. */
interface BlockParts {
  readonly block: QueryBlock;
  /** [B, kvHeads, G*L, D] with G = heads / kvHeads query heads per key head and L the block's length. */
  readonly q: string;
  /** The keys and values that the block sees: [B, kvHeads, M, D], [B, kvHeads, M, valueDim]. */
  readonly k: string;
  readonly v: string;
  /** [B, kvHeads, G*L, M] */
  readonly probabilities: string;
  /** Share of the sink [B, kvHeads, G*L, 1], or "" without sinks. */
  readonly sink: string;
  /** tanh(score / softcap), or "" without softcap. */
  readonly squashed: string;
  /** [B, kvHeads, G*L, valueDim] */
  readonly out: string;
}

/** [N, kvHeads*G*D] -> [B, kvHeads, G*S, D]; G = 1 for keys and values. */
export function splitHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number, headDim: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
  if (group === 1)
    return e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, headDim])], { perm: [0, 2, 1, 3] });
  const transposed = e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, group, headDim])], {
    perm: [0, 2, 3, 1, 4],
  });
  return e.reshape(transposed, [batch, kvHeads, group * sequence, headDim]);
}

/** [B, kvHeads, G*S, D] -> [N, kvHeads*G*D]: the way back of `splitHeads`. */
export function mergeHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number, headDim: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
  const columns = kvHeads * group * headDim;
  if (group === 1) return e.reshape(e.op("Transpose", [x], { perm: [0, 2, 1, 3] }), [batch * sequence, columns]);
  const open = e.reshape(x, [batch, kvHeads, group, sequence, headDim]);
  return e.reshape(e.op("Transpose", [open], { perm: [0, 3, 1, 2, 4] }), [batch * sequence, columns]);
}

/** Cuts [B, kvHeads, G*S, D] into the queries of each block: [B, kvHeads, G*L, D]. */
function cutQueries(
  ctx: Lowering,
  x: string,
  a: AttentionAttrs,
  headDim: number,
  blocks: readonly QueryBlock[],
): string[] {
  if (blocks.length === 1) return [x];
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
  const group = a.heads / kvHeads;
  const lengths = e.ints(blocks.map(({ length }) => length));
  if (group === 1) return e.emit("Split", [x, lengths], { axis: 2 }, blocks.length);
  const cut = e.emit(
    "Split",
    [e.reshape(x, [batch, kvHeads, group, sequence, headDim]), lengths],
    { axis: 3 },
    blocks.length,
  );
  return cut.map((part, i) => e.reshape(part, [batch, kvHeads, group * at(blocks, i).length, headDim]));
}

/** The way back of `cutQueries`. */
function joinQueries(
  ctx: Lowering,
  parts: readonly string[],
  a: AttentionAttrs,
  headDim: number,
  blocks: readonly QueryBlock[],
): string {
  if (blocks.length === 1) return at(parts, 0);
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
  const group = a.heads / kvHeads;
  if (group === 1) return e.op("Concat", parts, { axis: 2 });
  const open = parts.map((part, i) => e.reshape(part, [batch, kvHeads, group, at(blocks, i).length, headDim]));
  return e.reshape(e.op("Concat", open, { axis: 3 }), [batch, kvHeads, group * sequence, headDim]);
}

/** Keys or values [B, kvHeads, S, D] -> those that a block sees. */
function seenKeys(ctx: Lowering, x: string, { sequence }: AttentionAttrs, { from, to }: QueryBlock): string {
  if (from === 0 && to === sequence) return x;
  const e = ctx.emitter;
  return ctx.remember(`keys ${x} ${from} ${to}`, () => e.op("Slice", [x, e.ints([from]), e.ints([to]), e.ints([2])]));
}

/** Sums what each block says of the keys it sees, [B, kvHeads, M, D], into [B, kvHeads, S, D]. */
function sumOverBlocks(ctx: Lowering, parts: readonly string[], blocks: readonly QueryBlock[]): string {
  if (blocks.length === 1) return at(parts, 0);
  const e = ctx.emitter;
  const sums: string[] = [];
  blocks.forEach(({ from, to }, i) => {
    const keyed = blocks
      .map((block, place) => ({ place, ...block }))
      .filter(({ start }) => start >= from && start < to);
    const slices =
      keyed.length === 1
        ? [at(parts, i)]
        : e.emit("Split", [at(parts, i), e.ints(keyed.map(({ length }) => length))], { axis: 2 }, keyed.length);
    keyed.forEach(
      ({ place }, slice) =>
        (sums[place] = sums[place] === undefined ? at(slices, slice) : e.op("Add", [sums[place], at(slices, slice)])),
    );
  });
  return e.op("Concat", sums, { axis: 2 });
}

/** Additive mask [G*L, M] of a block: 0 where a query sees a key. */
export function mask(
  ctx: Lowering,
  { heads, kvHeads, window }: AttentionAttrs,
  { start, length, from, to }: QueryBlock,
): string {
  const group = heads / kvHeads;
  const keys = to - from;
  // Blocks at the same distance from their keys share a mask.
  return ctx.remember(`mask ${group} ${start - from} ${length} ${keys} ${window}`, () => {
    const values = new Float32Array(group * length * keys);
    for (let row = 0; row < group * length; row++) {
      const query = start + (row % length);
      for (let key = from; key < to; key++) {
        const visible = key <= query && (window === null || key > query - window);
        values[row * keys + key - from] = visible ? 0 : UNSEEN;
      }
    }
    return ctx.emitter.floats(values, [group * length, keys]);
  });
}

/**
 * The mask of a block for each row of the batch [B, 1, G*L, M] where segment ids keep documents apart, else [G*L, M].
 * Layers share it.
 */
function maskOf(ctx: Lowering, a: AttentionAttrs, block: QueryBlock, segmentIds: ValueId | null): string {
  const plain = mask(ctx, a, block);
  if (segmentIds === null) return plain;
  const { batch, sequence } = a;
  const group = a.heads / a.kvHeads;
  const { start, length, from, to } = block;
  const e = ctx.emitter;
  return ctx.remember(`segmentIds ${segmentIds} ${group} ${start} ${length} ${from} ${to} ${plain}`, () => {
    const whole = e.reshape(ctx.get(segmentIds), [batch, sequence]);
    const part = (first: number, end: number): string =>
      e.op("Slice", [whole, e.ints([first]), e.ints([end]), e.ints([1])]);
    const queries = e.op("Expand", [
      e.reshape(part(start, start + length), [batch, 1, length, 1]),
      e.ints([batch, group, length, 1]),
    ]);
    const same = e.op("Equal", [
      e.reshape(queries, [batch, 1, group * length, 1]),
      e.reshape(part(from, to), [batch, 1, 1, to - from]),
    ]);
    return e.op("Where", [same, plain, e.floats([UNSEEN])]);
  });
}

/** Softmax over keys and, where there is one, the sink. */
function softmaxWithSink(
  ctx: Lowering,
  scores: string,
  sinks: ValueId | null,
  a: AttentionAttrs,
  { length, from, to }: QueryBlock,
): readonly [string, string] {
  const e = ctx.emitter;
  if (sinks === null) return [e.op("Softmax", [scores], { axis: -1 }), ""];
  const { batch, kvHeads, heads } = a;
  const group = heads / kvHeads;
  const open = e.reshape(ctx.get(sinks), [1, kvHeads, group, 1, 1]);
  const column = e.reshape(e.op("Expand", [open, e.ints([batch, kvHeads, group, length, 1])]), [
    batch,
    kvHeads,
    group * length,
    1,
  ]);
  const all = e.op("Softmax", [e.op("Concat", [scores, column], { axis: 3 })], { axis: -1 });
  const [probabilities, sink] = e.emit("Split", [all, e.ints([to - from, 1])], { axis: 3 }, 2);
  return [probabilities, sink];
}

/** Attention's blocks with what each has computed; made once for the forward pass and its gradient. */
function attentionParts(
  ctx: Lowering,
  inputs: PrimInputs<ValueId>["attention"],
  a: AttentionAttrs,
): readonly BlockParts[] {
  const e = ctx.emitter;
  const [qId, kId, vId] = inputs;
  const { sinks, segmentIds } = attentionExtras(a, inputs);
  const key = `attention ${qId} ${kId} ${vId} ${sinks} ${segmentIds} ${JSON.stringify(a)}`;
  const blocks = queryBlocks(a);
  const fields = 7;
  const names = ctx.remember(key, () => {
    const group = a.heads / a.kvHeads;
    const queries = cutQueries(ctx, splitHeads(ctx, ctx.get(qId), a, group, a.headDim), a, a.headDim, blocks);
    const keys = splitHeads(ctx, ctx.get(kId), a, 1, a.headDim);
    const values = splitHeads(ctx, ctx.get(vId), a, 1, a.valueDim);
    return blocks.flatMap((block, i) => {
      const [q, k, v] = [at(queries, i), seenKeys(ctx, keys, a, block), seenKeys(ctx, values, a, block)];
      let scores = e.matmul(q, k, { transB: true, alpha: a.softcap === null ? a.scale : a.scale / a.softcap });
      let tanh = "";
      if (a.softcap !== null) {
        tanh = e.op("Tanh", [scores]);
        scores = e.op("Mul", [tanh, e.floats([a.softcap])]);
      }
      const [p, spare] = softmaxWithSink(
        ctx,
        e.op("Add", [scores, maskOf(ctx, a, block, segmentIds)]),
        sinks,
        a,
        block,
      );
      return [q, k, v, p, spare, tanh, e.matmul(p, v)];
    });
  });
  return blocks.map((block, i) => {
    const [q, k, v, probabilities, sink, squashed, out] = names.slice(i * fields, (i + 1) * fields) as [
      string,
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    return { block, q, k, v, probabilities, sink, squashed, out };
  });
}

type AttentionPrims =
  "segmentIds" | "segmentPositions" | "rope" | "joinHeads" | "joinHeadsGrad" | "attention" | "attentionGrad";

/** The lowering of rope, of attention and of what stands beside them. */
export const attentionRules: { readonly [P in AttentionPrims]: (ctx: Lowering, node: NodeOf<P>) => void } = {
  segmentIds(ctx, { in: [ids], out, attrs: { batch, sequence, end } }) {
    const e = ctx.emitter;
    const ends = e.op("Cast", [e.op("Equal", [e.reshape(ctx.get(ids), [batch, sequence]), e.int(end)])], { to: 7 });
    ctx.set(out[0], e.reshape(e.op("CumSum", [ends, e.int(1)], { exclusive: 1 }), [batch * sequence]));
  },
  segmentPositions(ctx, { in: [of], out, attrs: { batch, sequence } }) {
    // A token's position less the number of tokens of documents before its own, which is where its document begins.
    const e = ctx.emitter;
    const rows = e.reshape(ctx.get(of), [batch, sequence]);
    const before = e.op("Less", [e.reshape(rows, [batch, 1, sequence]), e.reshape(rows, [batch, sequence, 1])]);
    const starts = e.sum(e.op("Cast", [before], { to: 7 }), [2], false);
    const iota = e.ints(
      Array.from({ length: sequence }, (_, i) => i),
      [1, sequence],
    );
    ctx.set(out[0], e.reshape(e.op("Sub", [iota, starts]), [batch * sequence]));
  },
  rope: (ctx, { in: [x, cos, sin], out, attrs }) =>
    ctx.set(out[0], rope(ctx, ctx.get(x), ctx.get(cos), ctx.get(sin), attrs)),
  joinHeads(ctx, { in: [own, shared], out, attrs: { heads } }) {
    const e = ctx.emitter;
    const [rows, columns] = ctx.matrix(out[0]);
    const b = ctx.width(shared);
    const each = e.reshape(ctx.get(own), [rows, heads, columns / heads - b]);
    const all = e.op("Expand", [e.reshape(ctx.get(shared), [rows, 1, b]), e.ints([rows, heads, b])]);
    ctx.set(out[0], e.reshape(e.op("Concat", [each, all], { axis: 2 }), [rows, columns]));
  },
  joinHeadsGrad(ctx, { in: [own, shared, dy], out, attrs: { heads } }) {
    const e = ctx.emitter;
    const [rows, columns] = ctx.matrix(own);
    const [a, b] = [columns / heads, ctx.width(shared)];
    const [each, all] = e.emit("Split", [e.reshape(ctx.get(dy), [rows, heads, a + b]), e.ints([a, b])], { axis: 2 }, 2);
    ctx.set(out[0], e.reshape(each, [rows, columns]));
    ctx.set(out[1], e.sum(all, [1], false));
  },
  attention(ctx, { in: inputs, out, attrs }) {
    const parts = attentionParts(ctx, inputs, attrs);
    const joined = joinQueries(
      ctx,
      parts.map((part) => part.out),
      attrs,
      attrs.valueDim,
      parts.map(({ block }) => block),
    );
    ctx.set(out[0], mergeHeads(ctx, joined, attrs, attrs.heads / attrs.kvHeads, attrs.valueDim));
  },
  attentionGrad(ctx, { in: inputs, out, attrs }) {
    const e = ctx.emitter;
    const { batch, heads, kvHeads, headDim, valueDim, scale } = attrs;
    const group = heads / kvHeads;
    const parts = attentionParts(ctx, inputs, attrs);
    const blocks = parts.map(({ block }) => block);
    const douts = cutQueries(
      ctx,
      splitHeads(ctx, ctx.get(at(inputs, inputs.length - 1)), attrs, group, valueDim),
      attrs,
      valueDim,
      blocks,
    );
    const gradients = parts.map(({ block, q, k, v, probabilities, sink, squashed, out: forward }, i) => {
      const dout = at(douts, i);
      // Rows of dp·p sum to dout·out, so the [L, M] product need not be summed (Dao et al. 2022, appendix B.4).
      const dot = e.sum(e.op("Mul", [dout, forward]), [3], true);
      const dp = e.matmul(dout, v, { transB: true });
      let dscores = e.op("Mul", [e.op("Sub", [dp, dot]), probabilities]);
      if (squashed !== "") dscores = e.op("Sub", [dscores, e.op("Mul", [dscores, e.op("Mul", [squashed, squashed])])]);
      const lost = attrs.sinks
        ? e.sum(e.reshape(e.op("Mul", [sink, dot]), [batch, kvHeads, group, block.length]), [0, 3], false)
        : "";
      // Key and value gradients sum over the G query heads of a group because those are rows of one matrix here.
      return {
        dq: e.matmul(dscores, k, { alpha: scale }),
        dk: e.matmul(dscores, q, { transA: true, alpha: scale }),
        dv: e.matmul(probabilities, dout, { transA: true }),
        lost,
      };
    });
    const [dqs, dks, dvs] = [
      gradients.map(({ dq }) => dq),
      gradients.map(({ dk }) => dk),
      gradients.map(({ dv }) => dv),
    ] as const;
    const [dq, dk, dv, dsinks] = out;
    ctx.set(dq, mergeHeads(ctx, joinQueries(ctx, dqs, attrs, headDim, blocks), attrs, group, headDim));
    ctx.set(dk, mergeHeads(ctx, sumOverBlocks(ctx, dks, blocks), attrs, 1, headDim));
    ctx.set(dv, mergeHeads(ctx, sumOverBlocks(ctx, dvs, blocks), attrs, 1, valueDim));
    if (dsinks === undefined) return;
    const all = gradients.map(({ lost }) => lost).reduce((a, b) => e.op("Add", [a, b]));
    ctx.set(dsinks, e.reshape(e.op("Neg", [all]), [heads]));
  },
};
