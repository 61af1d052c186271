/**
 * Bytes that training keeps on a device: weights, gradients, optimizer state, and what a block saves for its backward
 * pass. Mixed precision with bfloat16 weights and activations, float32 gradients and AdamW, as Megatron-Core's
 * distributed optimizer lays it out (6 + 12 / shards bytes per parameter).
 */
import type { AttentionSpec, DecoderSpec, Ffn, LayerSpec } from "../decoder/types.js";
import type { Recompute } from "./flops.js";

/** Bytes that a parameter takes in training. */
export const bytesPerParam = {
  /** The weights are bfloat16. */
  weights: 2,
  /** Gradients are accumulated in float32. */
  gradients: 4,
  /** AdamW's two moments and a copy of the weights, all in float32. */
  optimizer: 12,
} as const;

/** How the activations of a block are cut over devices. */
export interface Cut {
  /** Tensor parallelism with sequence parallelism: everything of a token row is cut, by columns or by tokens. */
  readonly tensor: number;
  /** Tensor parallelism inside of experts: tokens are gathered over it. */
  readonly expertTensor: number;
  /** Tokens of the busiest device over the mean. */
  readonly imbalance: number;
}

/**
 * Bytes that one block keeps for its backward pass, per token, in bfloat16 with flash attention and no dropout (counted
 * as in Korthikanti et al. 2022, arXiv 2205.05198, section 4, for today's blocks): both norms' inputs and outputs;
 * queries, keys, values, attention's output and its log-sum (float32); gate and up and their product; for a mixture the
 * router's logits and probabilities (float32), and for each of T copies the gathered row, gate, up, product and output
 * row. `selective` computes norms and products again; `full` keeps only the block's input.
 */
export function blockActivationBytes(
  { hidden, attn }: DecoderSpec,
  { ffn }: LayerSpec,
  recompute: Recompute,
  cut: Cut,
): number {
  const row = 2 * hidden;
  if (recompute === "full") return row / cut.tensor;
  const norms = recompute === "selective" ? 2 * row : 4 * row;
  return (norms + attentionActivations(attn)) / cut.tensor + ffnActivations(ffn, row, recompute, cut);
}

function attentionActivations({ heads, kvHeads, headDim, latent }: AttentionSpec): number {
  if (latent === null) return 2 * (2 * heads + 2 * kvHeads) * headDim + 4 * heads;
  // Queries and keys of headDim, values and output of valueDim, and the latents before and after their norms.
  const { queryRank, kvRank, ropeDim, valueDim } = latent;
  return 2 * (2 * heads * headDim + 2 * heads * valueDim + 2 * (queryRank ?? 0) + 2 * kvRank + ropeDim) + 4 * heads;
}

function ffnActivations(ffn: Ffn, row: number, recompute: Recompute, { tensor, expertTensor, imbalance }: Cut): number {
  const matrices = (ffnDim: number, gated: boolean): number =>
    2 * ffnDim * ((gated ? 2 : 1) + (recompute === "none" ? 1 : 0));
  if (ffn.kind === "dense") return matrices(ffn.ffnDim, ffn.gated) / tensor;
  const copies = (ffn.topK * imbalance) / tensor;
  const routed = copies * (2 * row * expertTensor + matrices(ffn.ffnDim, ffn.gated));
  const shared = ffn.shared === null ? 0 : matrices(ffn.shared.ffnDim, ffn.gated) / tensor;
  return (8 * ffn.experts) / tensor + routed + shared;
}

/** Bytes per token of the output head: bfloat16 logits and their float32 softmax. */
export function headActivationBytes({ vocab }: DecoderSpec, tensor: number): number {
  return (6 * vocab) / tensor;
}
