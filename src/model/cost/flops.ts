/**
 * Matrix-multiplication FLOPs per token, two per multiply-add. Norms, softmax, rope, biases and the embedding look-up
 * are left out, as is usual (Kaplan et al. 2020, section 2.1).
 */
import type { AttentionSpec, DecoderSpec } from "../decoder/types.js";
import { attentionMatrices, ffnMatrices } from "./params.js";

/**
 * Pairs of tokens whose scores are counted. `dense`: all sequence x sequence, as this package's engine computes them;
 * `causal`: only those that a mask leaves, as flash attention does.
 */
type AttentionCount = "dense" | "causal";

/** FLOPs of a forward pass for one token, by what is computed. */
export interface ForwardFlops {
  readonly projections: number;
  /** Scores and weighted values. */
  readonly attention: number;
  readonly ffn: number;
  readonly router: number;
  /** The `topK` routed experts of a token. */
  readonly experts: number;
  readonly shared: number;
  readonly head: number;
  readonly total: number;
}

/**
 * What a training step computes again in the backward pass instead of keeping it. `selective`: cheap functions (norms,
 * activation functions), no matrix products; `full`: every block from its input (Korthikanti et al. 2022, arXiv
 * 2205.05198).
 */
export type Recompute = "none" | "selective" | "full";

/** FLOPs per token of a forward pass over `sequence` tokens, divided by `sequence`. */
export function forwardFlops(spec: DecoderSpec, sequence: number, count: AttentionCount): ForwardFlops {
  const sums = { projections: 0, attention: 0, ffn: 0, router: 0, experts: 0, shared: 0 };
  for (const { ffn, window } of spec.layers) {
    sums.projections += 2 * attentionMatrices(spec.attn, spec.hidden);
    sums.attention += 2 * attentionPerPair(spec.attn) * (count === "dense" ? sequence : seenTokens(sequence, window));
    const matrices = ffnMatrices(ffn, spec.hidden);
    sums.ffn += 2 * matrices.ffn;
    sums.router += 2 * matrices.router;
    sums.experts += ffn.kind === "moe" ? 2 * ffn.topK * matrices.expert : 0;
    sums.shared += 2 * matrices.shared;
  }
  const head = 2 * spec.vocab * spec.hidden;
  const { projections, attention, ffn, router, experts, shared } = sums;
  return { ...sums, head, total: projections + attention + ffn + router + experts + shared + head };
}

/**
 * FLOPs of a forward pass over `sequence` tokens, divided by `sequence`; attention as it is computed here, without
 * savings by masks.
 */
export function forwardFlopsPerToken(spec: DecoderSpec, sequence: number): number {
  return forwardFlops(spec, sequence, "dense").total;
}

/** Forward and backward: the backward pass multiplies twice as much (gradients of inputs and of weights). */
export function trainFlopsPerToken(spec: DecoderSpec, sequence: number): number {
  return 3 * forwardFlopsPerToken(spec, sequence);
}

/**
 * FLOPs per token that recomputation adds to forward and backward: with `full`, the blocks' forward pass once more, not
 * the head's.
 */
export function recomputedFlops({ total, head }: ForwardFlops, recompute: Recompute): number {
  return recompute === "full" ? total - head : 0;
}

/** Multiply-adds for one pair of tokens: a score and a weighted value in every head. */
function attentionPerPair({ heads, headDim, latent }: AttentionSpec): number {
  return heads * (headDim + (latent?.valueDim ?? headDim));
}

/** Tokens that a token sees on average, itself included. */
function seenTokens(sequence: number, window: number | null): number {
  const w = Math.min(window ?? sequence, sequence);
  return w - (w * (w - 1)) / (2 * sequence);
}
