/** What Llama and its kin have in common, and in what a decoder departs from it. */
import { rmsNorm, type AttentionSpec, type DecoderSpec, type Family, type Rope } from "./types.js";

/** Rope over the whole head, in halves, unscaled. */
export function plainRope(theta: number, headDim: number): Rope {
  return { theta, scaling: { kind: "none" }, rotary: headDim, interleaved: false };
}

/** The norm of queries and keys in a new dense model of `family`: over each head for Qwen3, none for Llama. */
export function plainQkNorm(family: Family, eps: number): AttentionSpec["qkNorm"] {
  return family === "qwen3" ? { span: "head", norm: rmsNorm(eps), afterRope: false } : null;
}

/** Attention without norms, biases, caps or clipping. */
export function plainAttention(size: Pick<AttentionSpec, "heads" | "kvHeads" | "headDim">): AttentionSpec {
  return {
    ...size,
    qkNorm: null,
    qkvBias: false,
    outBias: false,
    scale: size.headDim ** -0.5,
    softcap: null,
    clip: null,
    sinks: false,
    latent: null,
    alibi: null,
    lengthScale: null,
  };
}

/** What the spec has beyond a Llama-like decoder, in words; empty for Llama, Mistral, Qwen and Mixtral. */
export function departures(spec: DecoderSpec, { anyActivation = false } = {}): string[] {
  const { embedding, residual, logits } = spec.multipliers;
  const { scale, softcap, clip, headDim, qkNorm, sinks, latent, alibi, lengthScale } = spec.attn;
  const { kind, weight, bias } = spec.norm;
  const differences: string[] = [];
  const add = (departs: boolean, words: string): void => {
    if (departs) differences.push(words);
  };
  add(kind !== "rms" || weight !== "scale" || bias, "norms other than RMSNorm with a plain weight");
  add(
    qkNorm !== null &&
      (qkNorm.span !== "head" || qkNorm.afterRope || JSON.stringify(qkNorm.norm) !== JSON.stringify(spec.norm)),
    "a norm on queries and keys other than RMSNorm over each head",
  );
  add(spec.block !== "pre", `${spec.block} blocks`);
  add(embedding !== 1 || residual !== 1 || logits !== 1, "multipliers");
  add(spec.logitSoftcap !== null || softcap !== null, "soft caps");
  add(clip !== null, "clipped queries, keys and values");
  add(sinks, "attention sinks");
  add(latent !== null, "multi-head latent attention");
  add(alibi !== null, "linear biases on attention (ALiBi)");
  add(lengthScale !== null, "queries scaled by position");
  add(spec.learnedPositions, "learnt positions");
  add(spec.headBias, "a bias on the logits");
  add(scale !== headDim ** -0.5, `an attention scale of ${scale}`);
  const ropes = spec.layers.map(({ rope }) => rope);
  add(
    ropes.includes(null) || new Set(ropes.map((rope) => JSON.stringify(rope))).size > 1,
    "layers with different ropes, or none",
  );
  add(
    spec.layers.some(({ rope }) => rope !== null && (rope.rotary !== headDim || rope.interleaved)),
    "rope over a part of the head or over neighbouring pairs",
  );
  add(
    spec.layers.some(
      ({ ffn }) => (ffn.activation !== "silu" && !anyActivation) || (ffn.kind === "dense" && !ffn.gated),
    ),
    anyActivation ? "FFNs without a gate" : "FFNs other than SwiGLU",
  );
  return differences;
}
