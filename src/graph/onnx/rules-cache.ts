/**
 * Lowering of attention behind a cache: scores over the past and over the new tokens, one softmax, two weighted sums.
 * Caches are never transposed or copied.
 */
import { at } from "../../base/at.js";
import type { CachedAttentionAttrs, NodeOf } from "../ir/ir.js";
import type { Lowering } from "./context.js";
import { mask, mergeHeads, splitHeads, UNSEEN, wholeBlock } from "./rules-attention.js";

/**
 * Additive mask [B, 1, G*S or 1, C] of the past: a key counts if it lies before the row's length and, with a window,
 * above length + i - window.
 */
function maskOfPast(
  ctx: Lowering,
  lengths: string,
  { batch, sequence, capacity, heads, kvHeads, window }: CachedAttentionAttrs,
): string {
  const group = heads / kvHeads;
  return ctx.remember(`mask of past ${lengths} ${group} ${sequence} ${capacity} ${window}`, () => {
    const e = ctx.emitter;
    const length = e.reshape(lengths, [batch, 1, 1, 1]);
    const keys = e.ints(
      Array.from({ length: capacity }, (_, key) => key),
      [1, 1, 1, capacity],
    );
    let seen = e.op("Less", [keys, length]);
    if (window !== null) {
      const reach = Array.from({ length: group * sequence }, (_, row) => window - (row % sequence));
      seen = e.op("And", [
        seen,
        e.op("Greater", [e.op("Add", [keys, e.ints(reach, [1, 1, group * sequence, 1])]), length]),
      ]);
    }
    return e.op("Where", [seen, e.floats([0]), e.floats([UNSEEN])]);
  });
}

export const cacheRules = {
  cachedAttention(ctx: Lowering, { in: inputs, out, attrs }: NodeOf<"cachedAttention">): void {
    const e = ctx.emitter;
    const { batch, sequence, heads, kvHeads, headDim, valueDim, capacity, scale, softcap, sinks } = attrs;
    const group = heads / kvHeads;
    const [q, k, v, pastK, pastV, lengths] = inputs.map((id) => ctx.get(id)) as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    const queries = splitHeads(ctx, q, attrs, group, headDim);
    const scores = (keys: string): string => {
      const raw = e.matmul(queries, keys, { transB: true, alpha: softcap === null ? scale : scale / softcap });
      return softcap === null ? raw : e.op("Mul", [e.op("Tanh", [raw]), e.floats([softcap])]);
    };
    const parts = [
      e.op("Add", [scores(pastK), maskOfPast(ctx, lengths, attrs)]),
      e.op("Add", [scores(splitHeads(ctx, k, attrs, 1, headDim)), mask(ctx, attrs, wholeBlock(sequence))]),
    ];
    const sizes = [capacity, sequence];
    if (sinks) {
      const open = e.reshape(ctx.get(at(inputs, 6)), [1, kvHeads, group, 1, 1]);
      parts.push(
        e.reshape(e.op("Expand", [open, e.ints([batch, kvHeads, group, sequence, 1])]), [
          batch,
          kvHeads,
          group * sequence,
          1,
        ]),
      );
      sizes.push(1);
    }
    const all = e.op("Softmax", [e.op("Concat", parts, { axis: 3 })], { axis: -1 });
    const [past, now] = e.emit("Split", [all, e.ints(sizes)], { axis: 3 }, sizes.length) as [string, string];
    const mixed = e.op("Add", [e.matmul(past, pastV), e.matmul(now, splitHeads(ctx, v, attrs, 1, valueDim))]);
    ctx.set(out[0], mergeHeads(ctx, mixed, attrs, group, valueDim));
  },
};
