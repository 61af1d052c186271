/**
 * Granite 3: llama with constant factors on embeddings, scores, residual branches and logits (transformers:
 * models/granite/modular_granite.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Common, Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** What the Granite class assumes. */
export const graniteDefaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

/** Granite's multipliers. The attention scale is `attention_multiplier`, 1 if the key is absent, never headDim^-0.5. */
export function withGraniteFactors(common: Common, config: ConfigReader): Common {
  const multipliers = {
    embedding: config.positive("embedding_multiplier", 1),
    residual: config.positive("residual_multiplier", 1),
    logits: 1 / config.positive("logits_scaling", 1),
  };
  return { ...common, multipliers, attn: { ...common.attn, scale: config.positive("attention_multiplier", 1) } };
}

/** The keys of Granite's constant factors. */
export function writeGraniteFactors({ multipliers, attn }: DecoderSpec): Record<string, unknown> {
  return {
    embedding_multiplier: multipliers.embedding,
    residual_multiplier: multipliers.residual,
    logits_scaling: 1 / multipliers.logits,
    attention_multiplier: attn.scale,
  };
}

/** The config dialect of Granite. */
export const granite: Dialect = {
  family: "granite",
  architecture: "GraniteForCausalLM",
  defaults: graniteDefaults,
  read(config: ConfigReader): DecoderSpec {
    const common = withGraniteFactors(readCommon(config, "granite", graniteDefaults), config);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return {
      intermediate_size: ffn.ffnDim,
      attention_bias: sharedAttentionBias(spec),
      mlp_bias: ffn.bias,
      ...writeGraniteFactors(spec),
    };
  },
};
