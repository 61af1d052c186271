/** Parameters of a decoder by formula. `tensors/` counts the same by adding up shapes; a test holds the two equal. */
import type { AttentionSpec, BlockKind, DecoderSpec, Ffn, LayerSpec } from "../spec/types.js";

export interface ParamCount {
  readonly total: number;
  /** Parameters that touch one token: both embeddings, attention, router, shared expert and `topK` experts per MoE layer. */
  readonly active: number;
  /** Embedding matrix, and the output head if it is not the same matrix. Part of `total` and of `active`. */
  readonly embedding: number;
}

/** Parameters of one block by what they do. */
export interface LayerParams {
  readonly attention: number;
  readonly norms: number;
  /** A dense FFN. */
  readonly ffn: number;
  readonly router: number;
  /** All routed experts together. */
  readonly experts: number;
  readonly shared: number;
}

const normsPerLayer = { pre: 2, post: 2, sandwich: 4, parallel: 2, "parallel-shared": 1 } as const satisfies Record<BlockKind, number>;

export function countParams(spec: DecoderSpec): ParamCount {
  const embedding = spec.vocab * spec.hidden * (spec.tiedHead ? 1 : 2);
  const positions = spec.learnedPositions ? spec.maxPositions * spec.hidden : 0;
  let total = embedding + positions + normVectors(spec) * spec.hidden;
  let active = total;
  for (const layer of spec.layers) {
    const { attention, norms, ffn, router, experts, shared } = layerParams(spec, layer);
    const always = attention + norms + ffn + router + shared;
    total += always + experts;
    active += always + (layer.ffn.kind === "moe" ? (experts / layer.ffn.experts) * layer.ffn.topK : 0);
  }
  return { total, active, embedding };
}

export function layerParams(spec: DecoderSpec, { ffn }: LayerSpec): LayerParams {
  const attention = attentionMatrices(spec.attn, spec.hidden) + attentionVectors(spec.attn, spec.hidden);
  const norms = normsPerLayer[spec.block] * normVectors(spec) * spec.hidden;
  if (ffn.kind === "dense") {
    const biases = ffn.bias ? (ffn.gated ? 2 : 1) * ffn.inner + spec.hidden : 0;
    return { attention, norms, ffn: ffnMatrices(ffn, spec.hidden).ffn + biases, router: 0, experts: 0, shared: 0 };
  }
  const { router, expert, shared } = ffnMatrices(ffn, spec.hidden);
  return { attention, norms, ffn: 0, router, experts: ffn.experts * expert, shared };
}

/** Weights of matrices of an FFN, one expert counted once: also what one token multiplies. */
export function ffnMatrices(ffn: Ffn, hidden: number): { readonly ffn: number; readonly router: number; readonly expert: number; readonly shared: number } {
  if (ffn.kind === "dense") return { ffn: (ffn.gated ? 3 : 2) * hidden * ffn.inner, router: 0, expert: 0, shared: 0 };
  const shared = ffn.shared === null ? 0 : 3 * hidden * ffn.shared.inner + (ffn.shared.gated ? hidden : 0);
  return { ffn: 0, router: ffn.experts * hidden, expert: 3 * hidden * ffn.inner, shared };
}

/** Weights of the query, key, value and output projections. */
export function attentionMatrices({ heads, kvHeads, headDim }: AttentionSpec, hidden: number): number {
  return (2 * heads + 2 * kvHeads) * headDim * hidden;
}

function attentionVectors({ heads, kvHeads, headDim, qkvBias, outBias, qkNorm }: AttentionSpec, hidden: number): number {
  const qkvRows = (heads + 2 * kvHeads) * headDim;
  return (
    (qkvBias ? qkvRows : 0) +
    (outBias ? hidden : 0) +
    (qkNorm === null ? 0 : qkNorm.span === "head" ? 2 * headDim : (heads + kvHeads) * headDim)
  );
}

/** Vectors of size hidden in one norm. */
function normVectors({ norm }: DecoderSpec): number {
  return (norm.weight === "none" ? 0 : 1) + (norm.bias ? 1 : 0);
}
