/** Parameters of a decoder by formula. `tensors/` counts the same by adding up shapes; a test holds the two equal. */
import type { AttentionSpec, BlockKind, DecoderSpec, Ffn } from "../spec/types.js";

export interface ParamCount {
  readonly total: number;
  /** Parameters that touch one token: both embeddings, attention, router, shared expert and `topK` experts per MoE layer. */
  readonly active: number;
  /** Embedding matrix, and the output head if it is not the same matrix. Part of `total` and of `active`. */
  readonly embedding: number;
}

const normsPerLayer = { pre: 2, post: 2, sandwich: 4, parallel: 2, "parallel-shared": 1 } as const satisfies Record<BlockKind, number>;

export function countParams(spec: DecoderSpec): ParamCount {
  const embedding = spec.vocab * spec.hidden * (spec.tiedHead ? 1 : 2);
  const vectors = (spec.norm.weight === "none" ? 0 : 1) + (spec.norm.bias ? 1 : 0);
  const norms = (normsPerLayer[spec.block] * spec.layers.length + 1) * vectors * spec.hidden;
  const positions = spec.learnedPositions ? spec.maxPositions * spec.hidden : 0;
  const always = embedding + positions + norms + spec.layers.length * attentionParams(spec.attn, spec.hidden);
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
    (qkNorm === null ? 0 : qkNorm.span === "head" ? 2 * headDim : (heads + kvHeads) * headDim)
  );
}

function ffnParams(ffn: Ffn, hidden: number, which: "total" | "active"): number {
  if (ffn.kind === "dense") {
    const inward = ffn.gated ? 2 : 1;
    return (inward + 1) * hidden * ffn.inner + (ffn.bias ? inward * ffn.inner + hidden : 0);
  }
  const experts = which === "total" ? ffn.experts : ffn.topK;
  const shared = ffn.shared === null ? 0 : 3 * hidden * ffn.shared.inner + (ffn.shared.gated ? hidden : 0);
  return ffn.experts * hidden + experts * 3 * hidden * ffn.inner + shared;
}
