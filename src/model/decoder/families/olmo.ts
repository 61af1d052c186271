/**
 * OLMo 1: llama with LayerNorms that have no weights, and optionally clipped queries, keys and values (transformers:
 * models/olmo/modular_olmo.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import { olmoDefaults } from "./olmo2.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  ...olmoDefaults,
  norm: { kind: "layer", weight: "none", bias: false },
  // `OlmoLayerNorm` says 1e-5 itself.
  normKey: null,
};

/** The config dialect of OLMo. */
export const olmo: Dialect = {
  family: "olmo",
  architecture: "OlmoForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "olmo", defaults);
    const clip = config.has("clip_qkv") ? config.positive("clip_qkv") : null;
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const attn = { ...common.attn, clip };
    return denseSpec({ ...common, attn }, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      attention_bias: sharedAttentionBias(spec),
      clip_qkv: spec.attn.clip,
    };
  },
};
