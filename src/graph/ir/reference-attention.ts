/** Reference evaluation of attention (see `reference.ts`). */
import { attentionExtras, matrixSizes, type AttentionAttrs, type PrimInputs, type SegmentAttrs } from "./ir.js";
import type { Tensor } from "./reference-values.js";

interface Query {
  /** First element of this query head, and of its output. */
  readonly at: number;
  readonly outAt: number;
  readonly head: number;
  /** First element of each visible key head, and of its value head. */
  readonly keys: readonly number[];
  readonly values: readonly number[];
  readonly probabilities: Float64Array;
  /** Slope of the softcap at each score; 1 without softcap. */
  readonly slopes: Float64Array;
  /** Probability that the sink takes. */
  readonly sink: number;
}

/** Visits every (query row, head) with its visible keys. */
function eachQuery(
  attrs: AttentionAttrs,
  inputs: PrimInputs<Tensor>["attention"],
  visit: (query: Query) => void,
): void {
  const [{ data: q }, { data: k }] = inputs;
  const extras = attentionExtras(attrs, inputs);
  const [sinks, segmentIds] = [extras.sinks?.data ?? null, extras.segmentIds?.data ?? null];
  const { batch, sequence, heads, kvHeads, headDim, valueDim, scale, window, softcap } = attrs;
  for (let b = 0; b < batch; b++) {
    for (let i = 0; i < sequence; i++) {
      for (let head = 0; head < heads; head++) {
        const query = (b * sequence + i) * heads + head;
        const at = query * headDim;
        const kvHead = Math.floor((head * kvHeads) / heads);
        const first = window === null ? 0 : Math.max(0, i - window + 1);
        const together = Array.from({ length: i - first + 1 }, (_, j) => b * sequence + first + j).filter(
          (key) => segmentIds === null || segmentIds[key] === segmentIds[b * sequence + i],
        );
        const seen = together.map((key) => key * kvHeads + kvHead);
        const keys = seen.map((key) => key * headDim);
        const slopes = new Float64Array(keys.length).fill(1);
        const scores = Float64Array.from(keys, (key, j) => {
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += q[at + d]! * k[key + d]!;
          if (softcap === null) return dot * scale;
          const t = Math.tanh((dot * scale) / softcap);
          slopes[j] = 1 - t * t;
          return softcap * t;
        });
        const max = scores.reduce((a, c) => Math.max(a, c), sinks === null ? -Infinity : sinks[head]!);
        const spare = sinks === null ? 0 : Math.exp(sinks[head]! - max);
        const weights = scores.map((score) => Math.exp(score - max));
        const sum = weights.reduce((a, c) => a + c, spare);
        visit({
          at,
          outAt: query * valueDim,
          head,
          keys,
          values: seen.map((key) => key * valueDim),
          slopes,
          probabilities: weights.map((weight) => weight / sum),
          sink: spare / sum,
        });
      }
    }
  }
}

export function attention(attrs: AttentionAttrs, inputs: PrimInputs<Tensor>["attention"]): Float64Array {
  const [q, , v] = inputs;
  const out = new Float64Array(matrixSizes(q)[0] * attrs.heads * attrs.valueDim);
  eachQuery(attrs, inputs, ({ outAt, values, probabilities }) => {
    values.forEach((value, j) => {
      for (let d = 0; d < attrs.valueDim; d++) out[outAt + d]! += probabilities[j]! * v.data[value + d]!;
    });
  });
  return out;
}

export function attentionGrad(attrs: AttentionAttrs, inputs: PrimInputs<Tensor>["attentionGrad"]): Float64Array[] {
  const [q, k, v] = inputs;
  // The output's gradient comes last: there are at least q, k and v before it.
  const dout = inputs.at(-1)!;
  const dq = new Float64Array(q.data.length);
  const dk = new Float64Array(k.data.length);
  const dv = new Float64Array(v.data.length);
  const dsinks = new Float64Array(attrs.heads);
  const { headDim, valueDim, scale } = attrs;
  eachQuery(attrs, inputs, ({ at, outAt, head, keys, values, probabilities, slopes, sink }) => {
    const dp = new Float64Array(keys.length);
    let dot = 0;
    values.forEach((value, j) => {
      for (let d = 0; d < valueDim; d++) {
        dp[j]! += dout.data[outAt + d]! * v.data[value + d]!;
        dv[value + d]! += probabilities[j]! * dout.data[outAt + d]!;
      }
      dot += dp[j]! * probabilities[j]!;
    });
    dsinks[head]! -= sink * dot;
    keys.forEach((key, j) => {
      const ds = scale * slopes[j]! * probabilities[j]! * (dp[j]! - dot);
      for (let d = 0; d < headDim; d++) {
        dq[at + d]! += ds * k.data[key + d]!;
        dk[key + d]! += ds * q.data[at + d]!;
      }
    });
  });
  return attrs.sinks ? [dq, dk, dv, dsinks] : [dq, dk, dv];
}

/** For each token of each row, what `next` makes of the token and the value before it; null at the start of a row. */
function along({ batch, sequence }: SegmentAttrs, next: (row: number, before: number | null) => number): Float64Array {
  const out = new Float64Array(batch * sequence);
  out.forEach((_, row) => (out[row] = next(row, row % sequence === 0 ? null : out[row - 1]!)));
  return out;
}

export const segmentIds = (attrs: SegmentAttrs, end: number, ids: Float64Array): Float64Array =>
  along(attrs, (row, before) => (before === null ? 0 : before + Number(ids[row - 1] === end)));

export const segmentPositions = (attrs: SegmentAttrs, of: Float64Array): Float64Array =>
  along(attrs, (row, before) => (before !== null && of[row - 1] === of[row] ? before + 1 : 0));
