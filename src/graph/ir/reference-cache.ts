/**
 * Reference evaluation of attention behind a cache: the past of each row and one run of new tokens that begin together
 * as one sequence, of which only the new outputs are kept.
 *
 * Letters: B rows, C keys that a cache has room for.
 */
import { at } from "../../base/at.js";
import { cachedExtras, type CachedAttentionAttrs, type PrimInputs } from "./ir.js";
import { attention } from "./reference-attention.js";
import { rowOf, type Tensor } from "./reference-values.js";

/** Output for the new tokens [N, heads * valueDim]; inputs as of the primitive `cachedAttention`. */
export function cachedAttention(
  attrs: CachedAttentionAttrs,
  inputs: PrimInputs<Tensor>["cachedAttention"],
): Float64Array {
  const { sequence, heads, valueDim } = attrs;
  const width = heads * valueDim;
  const [, , , , , lengths] = inputs;
  const { starts } = cachedExtras(attrs, inputs);
  const out = new Float64Array(lengths.data.length * sequence * width);
  for (const [row, past] of lengths.data.entries()) {
    const startOf = (token: number): number => (starts === null ? 0 : at(starts.data, row * sequence + token));
    for (let token = 0, end = 0; token < sequence; token = end) {
      const first = startOf(token);
      while (end < sequence && startOf(end) === first) end++;
      const whole = attentionOfRun(attrs, inputs, { row, past, first, end });
      out.set(whole.subarray((past + token - first) * width), (row * sequence + token) * width);
    }
  }
  return out;
}

/** New tokens [first, end) of a row behind its past. */
interface Run {
  readonly row: number;
  readonly past: number;
  readonly first: number;
  readonly end: number;
}

/** Attention of a run's past and new tokens together; the outputs of past tokens are of no use. */
function attentionOfRun(
  attrs: CachedAttentionAttrs,
  inputs: PrimInputs<Tensor>["cachedAttention"],
  run: Run,
): Float64Array {
  const { heads, headDim, valueDim, sequence } = attrs;
  const [q, k, v, pastK, pastV] = inputs;
  const { sinks } = cachedExtras(attrs, inputs);
  const { row, past, first, end } = run;
  const total = past + end - first;
  // The cache has no queries of past tokens, so zeros stand in their places.
  const queries = new Float64Array(total * heads * headDim);
  const size = heads * headDim;
  queries.set(q.data.subarray((row * sequence + first) * size, (row * sequence + end) * size), past * size);
  return attention({ ...attrs, batch: 1, sequence: total, segmentIds: false }, [
    { dtype: "f32", shape: [total, size], data: queries },
    pastAndNew(attrs, pastK, k, headDim, run),
    pastAndNew(attrs, pastV, v, valueDim, run),
    ...(sinks === null ? [] : [sinks]),
  ]);
}

/** A row's past [kvHeads, C, size] and a run of its new tokens [.., kvHeads * size] as [total, kvHeads * size]. */
function pastAndNew(
  { sequence, kvHeads, capacity }: CachedAttentionAttrs,
  cached: Tensor,
  fresh: Tensor,
  size: number,
  { row, past, first, end }: Run,
): Tensor {
  const width = kvHeads * size;
  const total = past + end - first;
  const data = new Float64Array(total * width);
  for (let token = 0; token < past; token++) {
    for (let head = 0; head < kvHeads; head++) {
      const element = rowOf(cached.data, (row * kvHeads + head) * capacity + token, size);
      data.set(element, token * width + head * size);
    }
  }
  data.set(fresh.data.subarray((row * sequence + first) * width, (row * sequence + end) * width), past * width);
  return { dtype: "f32", shape: [total, width], data };
}
