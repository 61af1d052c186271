/**
 * Reference evaluation of attention behind a cache: each row's past and new tokens as one sequence, of which only the
 * new outputs are kept.
 *
 * Letters: B rows, C keys that a cache has room for.
 */
import type { CachedAttentionAttrs, PrimInputs } from "./ir.js";
import { attention } from "./reference-attention.js";
import { rowOf, type Tensor } from "./reference-values.js";

/** Output for the new tokens [N, heads * valueDim]; inputs as of the primitive `cachedAttention`. */
export function cachedAttention(
  attrs: CachedAttentionAttrs,
  inputs: PrimInputs<Tensor>["cachedAttention"],
): Float64Array {
  const { sequence, heads, valueDim } = attrs;
  const size = sequence * heads * valueDim;
  const [, , , , , lengths] = inputs;
  const out = new Float64Array(lengths.data.length * size);
  for (const [row, past] of lengths.data.entries()) {
    const whole = attentionOfRow(attrs, inputs, row, past);
    out.set(whole.subarray(past * heads * valueDim), row * size);
  }
  return out;
}

/** Attention of one row's past and new tokens together; the outputs of past tokens are of no use. */
function attentionOfRow(
  attrs: CachedAttentionAttrs,
  [q, k, v, pastK, pastV, , ...sinks]: PrimInputs<Tensor>["cachedAttention"],
  row: number,
  past: number,
): Float64Array {
  const { sequence, heads, headDim, valueDim } = attrs;
  const total = past + sequence;
  // The cache has no queries of past tokens, so zeros stand in their places.
  const queries = new Float64Array(total * heads * headDim);
  queries.set(rowOf(q.data, row, sequence * heads * headDim), past * heads * headDim);
  return attention({ ...attrs, batch: 1, sequence: total }, [
    { dtype: "f32", shape: [total, heads * headDim], data: queries },
    pastAndNew(attrs, pastK, k, headDim, row, past),
    pastAndNew(attrs, pastV, v, valueDim, row, past),
    ...sinks,
  ]);
}

/** One row's past [kvHeads, C, size] and new tokens [S, kvHeads * size] as [past + S, kvHeads * size]. */
function pastAndNew(
  { sequence, kvHeads, capacity }: CachedAttentionAttrs,
  cached: Tensor,
  fresh: Tensor,
  size: number,
  row: number,
  past: number,
): Tensor {
  const width = kvHeads * size;
  const data = new Float64Array((past + sequence) * width);
  for (let token = 0; token < past; token++) {
    for (let head = 0; head < kvHeads; head++) {
      const element = rowOf(cached.data, (row * kvHeads + head) * capacity + token, size);
      data.set(element, token * width + head * size);
    }
  }
  data.set(rowOf(fresh.data, row, sequence * width), past * width);
  return { dtype: "f32", shape: [past + sequence, width], data };
}
