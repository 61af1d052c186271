/**
 * Reference evaluation of attention (see `reference.ts`).
 *
 * Letters: N tokens = B batch x S sequence, D head size.
 */
import { at } from "../../base/at.js";
import { attentionExtras, type AttentionAttrs, type PrimInputs, type SegmentAttrs } from "./ir.js";
import { addScaled, dot } from "../../base/vectors.js";
import { cutRows, type Tensor } from "./reference-values.js";

type AttentionInputs = PrimInputs<Tensor>["attention"];

/** One token's query of one head, with the keys that it sees. Heads of all tokens are numbered row by row. */
interface Query {
  /** Number of the query head among those of all tokens. */
  readonly place: number;
  readonly head: number;
  /** Numbers of the visible key heads among those of all tokens. */
  readonly keys: readonly number[];
  readonly probabilities: Float64Array;
  /** Slope of the softcap at each score; 1 without softcap. */
  readonly slopes: Float64Array;
  /** Probability that the sink takes. */
  readonly sink: number;
}

/** Tokens that a query at token `token` sees: up to its own in its row, within the window and its document. */
function visibleTokens(
  { sequence, window }: AttentionAttrs,
  token: number,
  segmentIds: Float64Array | undefined,
): number[] {
  const position = token % sequence;
  const reach = window === null ? position : Math.min(position, window - 1);
  const tokens = Array.from({ length: reach + 1 }, (_, i) => token - reach + i);
  return segmentIds === undefined ? tokens : tokens.filter((key) => segmentIds[key] === segmentIds[token]);
}

/** Scores of a query behind the softcap, and the softcap's slopes. */
function scoresOf(
  { scale, softcap }: AttentionAttrs,
  query: Float64Array,
  keys: readonly Float64Array[],
): Pick<Query, "slopes"> & { readonly scores: Float64Array } {
  const raw = Float64Array.from(keys, (key) => dot(query, key) * scale);
  if (softcap === null) return { scores: raw, slopes: raw.map(() => 1) };
  const tanh = raw.map((score) => Math.tanh(score / softcap));
  return { scores: tanh.map((t) => softcap * t), slopes: tanh.map((t) => 1 - t * t) };
}

/** Softmax over scores and a sink; without a sink its logit is -Infinity. */
function softmaxWithSink(scores: Float64Array, sinkLogit: number): Pick<Query, "probabilities" | "sink"> {
  const max = scores.reduce((a, c) => Math.max(a, c), sinkLogit);
  const spare = Math.exp(sinkLogit - max);
  const weights = scores.map((score) => Math.exp(score - max));
  const sum = weights.reduce((a, c) => a + c, spare);
  return { probabilities: weights.map((weight) => weight / sum), sink: spare / sum };
}

/** Visits every query of every token and head. */
function eachQuery(attrs: AttentionAttrs, inputs: AttentionInputs, visit: (query: Query) => void): void {
  const { batch, sequence, heads, kvHeads, headDim } = attrs;
  const { sinks, segmentIds } = attentionExtras(attrs, inputs);
  const [q, k] = [cutRows(inputs[0].data, headDim), cutRows(inputs[1].data, headDim)];
  for (let token = 0; token < batch * sequence; token++) {
    const tokens = visibleTokens(attrs, token, segmentIds?.data);
    for (let head = 0; head < heads; head++) {
      const place = token * heads + head;
      const kvHead = Math.floor((head * kvHeads) / heads);
      const keys = tokens.map((key) => key * kvHeads + kvHead);
      const { scores, slopes } = scoresOf(
        attrs,
        at(q, place),
        keys.map((key) => at(k, key)),
      );
      const sinkLogit = sinks === null ? -Infinity : at(sinks.data, head);
      visit({ place, head, keys, slopes, ...softmaxWithSink(scores, sinkLogit) });
    }
  }
}

/** Output of attention [N, heads * valueDim]; inputs as of the primitive `attention`. */
export function attention(attrs: AttentionAttrs, inputs: AttentionInputs): Float64Array {
  const { batch, sequence, heads, valueDim } = attrs;
  const out = new Float64Array(batch * sequence * heads * valueDim);
  const [outs, v] = [cutRows(out, valueDim), cutRows(inputs[2].data, valueDim)];
  eachQuery(attrs, inputs, ({ place, keys, probabilities }) => {
    for (const [j, key] of keys.entries()) addScaled(at(outs, place), at(probabilities, j), at(v, key));
  });
  return out;
}

/** Gradients of q, k, v and, where there are some, of the sinks; inputs as of the primitive `attentionGrad`. */
export function attentionGrad(attrs: AttentionAttrs, inputs: PrimInputs<Tensor>["attentionGrad"]): Float64Array[] {
  const { headDim, valueDim, scale } = attrs;
  const [q, k, v] = inputs;
  const douts = cutRows(at(inputs, inputs.length - 1).data, valueDim);
  const [dq, dk, dv] = [q, k, v].map(({ data }) => new Float64Array(data.length)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const dsinks = new Float64Array(attrs.heads);
  const [qs, ks, vs] = [cutRows(q.data, headDim), cutRows(k.data, headDim), cutRows(v.data, valueDim)];
  const [dqs, dks, dvs] = [cutRows(dq, headDim), cutRows(dk, headDim), cutRows(dv, valueDim)];
  eachQuery(attrs, inputs, ({ place, head, keys, probabilities, slopes, sink }) => {
    const dout = at(douts, place);
    const dprobabilities = Float64Array.from(keys, (key) => dot(dout, at(vs, key)));
    const mean = dot(dprobabilities, probabilities);
    dsinks[head] = at(dsinks, head) - sink * mean;
    for (const [j, key] of keys.entries()) {
      const probability = at(probabilities, j);
      addScaled(at(dvs, key), probability, dout);
      const dscore = scale * at(slopes, j) * probability * (at(dprobabilities, j) - mean);
      addScaled(at(dqs, place), dscore, at(ks, key));
      addScaled(at(dks, key), dscore, at(qs, place));
    }
  });
  return attrs.sinks ? [dq, dk, dv, dsinks] : [dq, dk, dv];
}

/** For each token of each row, what `next` makes of the token and the value before it; null at the start of a row. */
function along({ batch, sequence }: SegmentAttrs, next: (row: number, before: number | null) => number): Float64Array {
  const out = new Float64Array(batch * sequence);
  let before: number | null = null;
  for (const row of out.keys()) out[row] = before = next(row, row % sequence === 0 ? null : before);
  return out;
}

/** For each token, how many tokens `end` stand before it in its row: the number of its document [N]. */
export const segmentIds = (attrs: SegmentAttrs, end: number, ids: Float64Array): Float64Array =>
  along(attrs, (row, before) => (before === null ? 0 : before + Number(ids[row - 1] === end)));

/** Each token's place within its document [N], from segment ids [N]. */
export const segmentPositions = (attrs: SegmentAttrs, segments: Float64Array): Float64Array =>
  along(attrs, (row, before) => (before !== null && segments[row - 1] === segments[row] ? before + 1 : 0));
