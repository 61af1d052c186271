/** Granite 3: llama with constant factors on embeddings, scores, residual branches and logits (transformers: models/granite/modular_granite.py). */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

export const granite: Dialect = {
  family: "granite",
  architecture: "GraniteForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "granite", defaults);
    const multipliers = {
      embedding: config.positive("embedding_multiplier", 1),
      residual: config.positive("residual_multiplier", 1),
      logits: 1 / config.positive("logits_scaling", 1),
    };
    // Stands in the place of headDim^-0.5, also when it is absent.
    const attn = { ...common.attn, scale: config.positive("attention_multiplier", 1) };
    const bias = config.bool("attention_bias", false);
    const ffn = { inner: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    return denseSpec({ ...common, multipliers, attn }, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return {
      intermediate_size: ffn.inner,
      attention_bias: sharedAttentionBias(spec),
      mlp_bias: ffn.bias,
      embedding_multiplier: spec.multipliers.embedding,
      residual_multiplier: spec.multipliers.residual,
      logits_scaling: 1 / spec.multipliers.logits,
      attention_multiplier: spec.attn.scale,
    };
  },
};
