/**
 * Lowering of attention behind a cache: scores over the past and over the new tokens, one softmax, two weighted sums.
 * Caches are never transposed or copied.
 *
 * Letters: B rows of the batch, S new tokens in each, C keys that a cache has room for, G query heads of a key head.
 */
import { at } from "../../base/at.js";
import { cachedExtras, type CachedAttentionAttrs, type NodeOf, type ValueId } from "../ir/ir.js";
import type { Lowering } from "./context.js";
import { mask, mergeHeads, splitHeads, UNSEEN, wholeBlock } from "./rules-attention.js";

/** The starts of all tokens as [B, 1, G*S, 1]: those of a row once for each head of a group. */
function startsOfQueries(
  ctx: Lowering,
  starts: string,
  { batch, sequence, heads, kvHeads }: CachedAttentionAttrs,
): string {
  const group = heads / kvHeads;
  return ctx.remember(`starts of queries ${starts} ${group} ${sequence}`, () => {
    const e = ctx.emitter;
    const open = e.reshape(starts, [batch, 1, sequence, 1]);
    return e.reshape(e.op("Expand", [open, e.ints([batch, group, sequence, 1])]), [batch, 1, group * sequence, 1]);
  });
}

/**
 * Additive mask [B, 1, G*S or 1, C] of the past: a key counts if it lies before the row's length and, with a window,
 * above length + i - start - window.
 */
function maskOfPast(ctx: Lowering, lengths: string, starts: string | null, attrs: CachedAttentionAttrs): string {
  const { batch, sequence, capacity, heads, kvHeads, window } = attrs;
  const group = heads / kvHeads;
  const from = window === null ? null : starts;
  return ctx.remember(`mask of past ${lengths} ${from} ${group} ${sequence} ${capacity} ${window}`, () => {
    const e = ctx.emitter;
    const length = e.reshape(lengths, [batch, 1, 1, 1]);
    const keys = e.ints(
      Array.from({ length: capacity }, (_, key) => key),
      [1, 1, 1, capacity],
    );
    let visible = e.op("Less", [keys, length]);
    if (window !== null) {
      let reach = e.ints(
        Array.from({ length: group * sequence }, (_, row) => window - (row % sequence)),
        [1, 1, group * sequence, 1],
      );
      if (from !== null) reach = e.op("Add", [reach, startsOfQueries(ctx, from, attrs)]);
      visible = e.op("And", [visible, e.op("Greater", [e.op("Add", [keys, reach]), length])]);
    }
    return e.op("Where", [visible, e.floats([0]), e.floats([UNSEEN])]);
  });
}

/** Additive mask of the new tokens [G*S, S], or [B, 1, G*S, S] where a row's tokens are several texts. */
function maskOfNew(ctx: Lowering, starts: string | null, attrs: CachedAttentionAttrs): string {
  const { sequence } = attrs;
  const plain = mask(ctx, attrs, wholeBlock(sequence));
  if (starts === null) return plain;
  return ctx.remember(`mask of new ${starts} ${plain}`, () => {
    const e = ctx.emitter;
    const keys = e.ints(
      Array.from({ length: sequence }, (_, key) => key),
      [1, 1, 1, sequence],
    );
    const own = e.op("GreaterOrEqual", [keys, startsOfQueries(ctx, starts, attrs)]);
    return e.op("Where", [own, plain, e.floats([UNSEEN])]);
  });
}

/** The sinks [heads] as one more score of each query: [B, kvHeads, G*S, 1]. */
function sinkScores(ctx: Lowering, sinks: ValueId, { batch, sequence, heads, kvHeads }: CachedAttentionAttrs): string {
  const e = ctx.emitter;
  const group = heads / kvHeads;
  const open = e.reshape(ctx.get(sinks), [1, kvHeads, group, 1, 1]);
  const perQuery = e.op("Expand", [open, e.ints([batch, kvHeads, group, sequence, 1])]);
  return e.reshape(perQuery, [batch, kvHeads, group * sequence, 1]);
}

/** The lowering of `cachedAttention`. */
export const cacheRules = {
  cachedAttention(ctx: Lowering, { in: inputs, out, attrs }: NodeOf<"cachedAttention">): void {
    const e = ctx.emitter;
    const [q, k, v, pastKeys, pastValues, lengths] = inputs;
    const { sinks, starts: startsId } = cachedExtras(attrs, inputs);
    const starts = startsId === null ? null : ctx.get(startsId);
    const { sequence, heads, kvHeads, headDim, valueDim, capacity, scale, softcap } = attrs;
    const group = heads / kvHeads;
    const queries = splitHeads(ctx, ctx.get(q), attrs, group, headDim);
    const scores = (keys: string): string => {
      const raw = e.matmul(queries, keys, { transB: true, alpha: softcap === null ? scale : scale / softcap });
      return softcap === null ? raw : e.op("Mul", [e.op("Tanh", [raw]), e.floats([softcap])]);
    };
    const parts = [
      e.op("Add", [scores(ctx.get(pastKeys)), maskOfPast(ctx, ctx.get(lengths), starts, attrs)]),
      e.op("Add", [scores(splitHeads(ctx, ctx.get(k), attrs, 1, headDim)), maskOfNew(ctx, starts, attrs)]),
    ];
    const sizes = [capacity, sequence];
    if (sinks !== null) {
      parts.push(sinkScores(ctx, sinks, attrs));
      sizes.push(1);
    }
    const all = e.op("Softmax", [e.op("Concat", parts, { axis: 3 })], { axis: -1 });
    const probabilities = e.emit("Split", [all, e.ints(sizes)], { axis: 3 }, sizes.length);
    const mixed = e.op("Add", [
      e.matmul(at(probabilities, 0), ctx.get(pastValues)),
      e.matmul(at(probabilities, 1), splitHeads(ctx, ctx.get(v), attrs, 1, valueDim)),
    ]);
    ctx.set(out[0], mergeHeads(ctx, mixed, attrs, group, valueDim));
  },
};
