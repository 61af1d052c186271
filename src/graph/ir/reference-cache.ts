/**
 * Reference evaluation of attention behind a cache: each row's past and new tokens as one sequence, of which only the
 * new outputs are kept.
 */
import type { CachedAttentionAttrs, PrimInputs } from "./ir.js";
import { attention } from "./reference-attention.js";
import type { Tensor } from "./reference-values.js";

export function cachedAttention(
  attrs: CachedAttentionAttrs,
  inputs: PrimInputs<Tensor>["cachedAttention"],
): Float64Array {
  const { batch, sequence, heads, kvHeads, headDim, valueDim, capacity } = attrs;
  const [q, k, v, pastK, pastV, lengths, sinks] = inputs;
  const out = new Float64Array(batch * sequence * heads * valueDim);
  for (let b = 0; b < batch; b++) {
    const past = lengths.data[b]!;
    const total = past + sequence;
    /** Rows [total, kvHeads * size] of past and new tokens together. */
    const joined = (before: Tensor, now: Tensor, size: number): Tensor => {
      const data = new Float64Array(total * kvHeads * size);
      for (let at = 0; at < past; at++) {
        for (let head = 0; head < kvHeads; head++) {
          const from = ((b * kvHeads + head) * capacity + at) * size;
          data.set(before.data.subarray(from, from + size), (at * kvHeads + head) * size);
        }
      }
      const first = b * sequence * kvHeads * size;
      data.set(now.data.subarray(first, first + sequence * kvHeads * size), past * kvHeads * size);
      return { dtype: "f32", shape: [total, kvHeads * size], data };
    };
    // Queries of past tokens are not known any more, nor what they give.
    const queries = new Float64Array(total * heads * headDim);
    queries.set(
      q.data.subarray(b * sequence * heads * headDim, (b + 1) * sequence * heads * headDim),
      past * heads * headDim,
    );
    const whole = attention({ ...attrs, batch: 1, sequence: total }, [
      { dtype: "f32", shape: [total, heads * headDim], data: queries },
      joined(pastK, k, headDim),
      joined(pastV, v, valueDim),
      ...(sinks === undefined ? [] : [sinks]),
    ]);
    out.set(whole.subarray(past * heads * valueDim), b * sequence * heads * valueDim);
  }
  return out;
}
