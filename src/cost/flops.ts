/**
 * Matrix-multiplication FLOPs per token, two per multiply-add. Norms, softmax, rope, biases and the embedding look-up
 * are left out, as is usual (Kaplan et al. 2020, section 2.1). Attention is counted as it is computed here: dense
 * `sequence` x `sequence` scores, causal or windowed masks save nothing.
 */
import type { DecoderSpec, Ffn } from "../spec/types.js";

/** FLOPs of a forward pass over `sequence` tokens, divided by `sequence`. */
export function forwardFlopsPerToken(spec: DecoderSpec, sequence: number): number {
  const { heads, kvHeads, headDim } = spec.attn;
  const projections = (2 * heads + 2 * kvHeads) * headDim * spec.hidden;
  // Scores and weighted values: each token meets `sequence` others in every head.
  const attention = 2 * heads * headDim * sequence;
  const ffns = spec.layers.reduce((sum, { ffn }) => sum + ffnMultiplyAdds(ffn, spec.hidden), 0);
  const head = spec.vocab * spec.hidden;
  return 2 * (spec.layers.length * (projections + attention) + ffns + head);
}

/** Forward and backward: the backward pass multiplies twice as much (gradients of inputs and of weights). */
export function trainFlopsPerToken(spec: DecoderSpec, sequence: number): number {
  return 3 * forwardFlopsPerToken(spec, sequence);
}

function ffnMultiplyAdds(ffn: Ffn, hidden: number): number {
  if (ffn.kind === "dense") return (ffn.gated ? 3 : 2) * hidden * ffn.inner;
  const shared = ffn.shared === null ? 0 : 3 * hidden * ffn.shared.inner + (ffn.shared.gated ? hidden : 0);
  return hidden * ffn.experts + ffn.topK * 3 * hidden * ffn.inner + shared;
}
