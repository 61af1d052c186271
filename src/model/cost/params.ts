/** Parameters of a decoder by formula. `tensors/` counts the same by adding up shapes; a test holds the two equal. */
import type { AttentionSpec, BlockKind, DecoderSpec, Ffn, LayerSpec } from "../decoder/types.js";

/** Parameters of a decoder. */
export interface ParamCount {
  readonly total: number;
  /**
   * Parameters that touch one token: both embeddings, attention, router, shared expert and `topK` experts per MoE
   * layer.
   */
  readonly active: number;
  /** Embedding matrix, and the output head if it is not the same matrix. Part of `total` and of `active`. */
  readonly embedding: number;
}

/** Parameters of one block by what they do. */
interface LayerParams {
  readonly attention: number;
  readonly norms: number;
  /** A dense FFN. */
  readonly ffn: number;
  readonly router: number;
  /** All routed experts together. */
  readonly experts: number;
  readonly shared: number;
}

const normsPerLayer = { pre: 2, post: 2, sandwich: 4, parallel: 2, "parallel-shared": 1 } as const satisfies Record<
  BlockKind,
  number
>;

/** Parameters of a decoder: all, those that one token uses, and those of its embeddings. */
export function countParams(spec: DecoderSpec): ParamCount {
  const embedding = spec.vocab * spec.hidden * (spec.tiedHead ? 1 : 2);
  const positions = spec.learnedPositions ? (spec.maxPositions + spec.positionsOffset) * spec.hidden : 0;
  let total = embedding + positions + (spec.headBias ? spec.vocab : 0) + normVectors(spec) * spec.hidden;
  let active = total;
  for (const layer of spec.layers) {
    const { attention, norms, ffn, router, experts, shared } = layerParams(spec, layer);
    const always = attention + norms + ffn + router + shared;
    total += always + experts;
    active += always + (layer.ffn.kind === "moe" ? (experts / layer.ffn.experts) * layer.ffn.topK : 0);
  }
  return { total, active, embedding };
}

/** Stored numbers of a layer's xIELU: two that are learnt and two constants. */
const XIELU_NUMBERS = 4;

/** Parameters of one block. */
export function layerParams(spec: DecoderSpec, { ffn }: LayerSpec): LayerParams {
  const attention = attentionMatrices(spec.attn, spec.hidden) + attentionVectors(spec.attn, spec.hidden);
  const norms = normsPerLayer[spec.block] * normVectors(spec) * spec.hidden;
  const matrices = ffnMatrices(ffn, spec.hidden);
  const biases = ffn.bias ? (ffn.gated ? 2 : 1) * ffn.ffnDim + spec.hidden : 0;
  const numbers = ffn.activation === "xielu" ? XIELU_NUMBERS : 0;
  const dense = matrices.ffn + biases + numbers;
  if (ffn.kind === "dense") return { attention, norms, ffn: dense, router: 0, experts: 0, shared: 0 };
  const routerVectors = (ffn.router.bias ? ffn.experts : 0) + (ffn.router.correctionBias ? ffn.experts : 0);
  const { router, expert, shared } = matrices;
  return {
    attention,
    norms,
    ffn: numbers,
    router: router + routerVectors,
    experts: ffn.experts * (expert + biases),
    shared,
  };
}

/** Weights of matrices of an FFN, one expert counted once: also what one token multiplies. */
export function ffnMatrices(
  ffn: Ffn,
  hidden: number,
): { readonly ffn: number; readonly router: number; readonly expert: number; readonly shared: number } {
  const matrices = ffn.gated ? 3 : 2;
  if (ffn.kind === "dense") return { ffn: matrices * hidden * ffn.ffnDim, router: 0, expert: 0, shared: 0 };
  const shared = ffn.shared === null ? 0 : matrices * hidden * ffn.shared.ffnDim + (ffn.shared.gated ? hidden : 0);
  return { ffn: 0, router: ffn.experts * hidden, expert: matrices * hidden * ffn.ffnDim, shared };
}

/** Weights of the query, key, value and output projections, or of those to and from the latents. */
export function attentionMatrices({ heads, kvHeads, headDim, latent }: AttentionSpec, hidden: number): number {
  if (latent === null) return (2 * heads + 2 * kvHeads) * headDim * hidden;
  const { queryRank, kvRank, ropeDim, valueDim } = latent;
  const query = queryRank === null ? hidden * heads * headDim : queryRank * (hidden + heads * headDim);
  return (
    query + hidden * (kvRank + ropeDim) + kvRank * heads * (headDim - ropeDim + valueDim) + heads * valueDim * hidden
  );
}

function attentionVectors(
  { heads, kvHeads, headDim, qkvBias, outBias, qkNorm, sinks, latent }: AttentionSpec,
  hidden: number,
): number {
  const always = (outBias ? hidden : 0) + (sinks ? heads : 0);
  if (latent !== null) return always + latent.kvRank + (latent.queryRank ?? 0);
  return (
    always +
    (qkvBias ? (heads + 2 * kvHeads) * headDim : 0) +
    (qkNorm === null ? 0 : qkNorm.span === "head" ? 2 * headDim : (heads + kvHeads) * headDim)
  );
}

/** Vectors of size hidden in one norm. */
function normVectors({ norm }: DecoderSpec): number {
  return (norm.weight === "none" ? 0 : 1) + (norm.bias ? 1 : 0);
}
