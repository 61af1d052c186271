/**
 * GLM-4.5: llama attention with rope over a part of the head and optionally a norm on queries and keys, DeepSeek-V3's
 * experts (transformers: models/glm4_moe/configuration_glm4_moe.py and modeling_glm4_moe.py). Layers for multi-token
 * prediction, which released files have behind the last one, are not read.
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import { moeSpec, readAuxLossCoef, readDenseFfnDim, readLeadingDense, writeLeadingDense } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readRoutedExperts, writeRoutedExperts } from "./routed.js";
import type { RoutedDefaults } from "./routed.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-5,
  ropeTheta: 10_000,
  partialRotary: 0.5,
  bos: null,
  eos: null,
};

const routed: RoutedDefaults = {
  experts: 128,
  topK: 8,
  ffnDim: 1408,
  shared: 1,
  groups: 1,
  keptGroups: 1,
  renormalised: true,
  scaling: 1,
};

/** The config dialect of GLM-4.5 and its kin. */
export const glm4Moe: Dialect = {
  family: "glm4_moe",
  architecture: "Glm4MoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "glm4_moe", defaults);
    const moe = readRoutedExperts(config, routed);
    const sparse = readLeadingDense(config, common.layerCount, 1);
    const attn = {
      qkNorm: config.bool("use_qk_norm", false),
      qkvBias: config.bool("attention_bias", false),
      outBias: false,
    };
    return moeSpec(
      common,
      attn,
      { moe, dense: readDenseFfnDim(config, sparse), sparse },
      [],
      readAuxLossCoef(config, 0),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const qkNorm = spec.attn.qkNorm !== null;
    requireAttention(spec, { qkNorm, qkvBias: "any", outBias: false });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return {
      ...writeRoutedExperts(spec),
      ...writeLeadingDense(spec),
      use_qk_norm: qkNorm,
      attention_bias: spec.attn.qkvBias,
      num_nextn_predict_layers: 0,
    };
  },
};
