/**
 * HyperCLOVA X: Granite with norms behind attention and FFN as well, and logits that are multiplied, not divided
 * (transformers: models/hyperclovax/modular_hyperclovax.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import { graniteDefaults } from "./granite.js";
import type { ConfigReader } from "./reader.js";

const defaults = { ...graniteDefaults, activation: "silu" } as const;

/** The config dialect of HyperCLOVA X. */
export const hyperclovax: Dialect = {
  family: "hyperclovax",
  architecture: "HyperCLOVAXForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "hyperclovax", defaults);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    const scale = config.has("attention_multiplier") ? config.positive("attention_multiplier") : common.attn.scale;
    const spec = denseSpec(
      { ...common, attn: { ...common.attn, scale } },
      { qkNorm: false, qkvBias: bias, outBias: bias },
      ffn,
      [],
    );
    const multipliers = {
      embedding: config.positive("embedding_multiplier", 1),
      residual: config.positive("residual_multiplier", 1),
      logits: config.positive("logits_scaling", 1),
    };
    return { ...spec, multipliers, block: config.bool("use_post_norm", true) ? "sandwich" : "pre" };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    if (spec.block !== "sandwich" && spec.block !== "pre") throw refuse(spec, `${spec.block} blocks`);
    // transformers 5 validates this even though head_dim is given.
    if (spec.hidden % spec.attn.heads !== 0)
      throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
    return {
      intermediate_size: ffn.ffnDim,
      attention_bias: sharedAttentionBias(spec),
      mlp_bias: ffn.bias,
      embedding_multiplier: spec.multipliers.embedding,
      residual_multiplier: spec.multipliers.residual,
      logits_scaling: spec.multipliers.logits,
      attention_multiplier: spec.attn.scale,
      use_post_norm: spec.block === "sandwich",
    };
  },
};
