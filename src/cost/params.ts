/** Parameters of a decoder by formula. `tensors/` counts the same by adding up shapes; a test holds the two equal. */
import type { AttentionSpec, DecoderSpec, Ffn } from "../spec/types.js";

export interface ParamCount {
  readonly total: number;
  /** Parameters that touch one token: both embeddings, attention, router, shared expert and `topK` experts per MoE layer. */
  readonly active: number;
  /** Embedding matrix, and the output head if it is not the same matrix. Part of `total` and of `active`. */
  readonly embedding: number;
}

export function countParams(spec: DecoderSpec): ParamCount {
  const embedding = spec.vocab * spec.hidden * (spec.tiedHead ? 1 : 2);
  // Two norms a layer, one at the end.
  const norms = (2 * spec.layers.length + 1) * spec.hidden;
  const always = embedding + norms + spec.layers.length * attentionParams(spec.attn, spec.hidden);
  let total = always;
  let active = always;
  for (const { ffn } of spec.layers) {
    total += ffnParams(ffn, spec.hidden, "total");
    active += ffnParams(ffn, spec.hidden, "active");
  }
  return { total, active, embedding };
}

function attentionParams({ heads, kvHeads, headDim, qkvBias, outBias, qkNorm }: AttentionSpec, hidden: number): number {
  const qkvRows = (heads + 2 * kvHeads) * headDim;
  return (
    qkvRows * hidden +
    hidden * heads * headDim +
    (qkvBias ? qkvRows : 0) +
    (outBias ? hidden : 0) +
    (qkNorm ? 2 * headDim : 0)
  );
}

function ffnParams(ffn: Ffn, hidden: number, which: "total" | "active"): number {
  if (ffn.kind === "dense") return 3 * hidden * ffn.inner + (ffn.bias ? 2 * ffn.inner + hidden : 0);
  const experts = which === "total" ? ffn.experts : ffn.topK;
  const shared = ffn.shared === null ? 0 : 3 * hidden * ffn.shared.inner + (ffn.shared.gated ? hidden : 0);
  return ffn.experts * hidden + experts * 3 * hidden * ffn.inner + shared;
}
