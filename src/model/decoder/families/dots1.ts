/**
 * dots.llm1: qwen3 attention, DeepSeek-V3's experts (transformers: models/dots1/configuration_dots1.py and
 * modeling_dots1.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, requireAttention, sharedAttentionBias } from "./common.js";
import { moeSpec, readAuxLossCoef, readDenseFfnDim, readLeadingDense, writeLeadingDense } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readRoutedExperts, writeRoutedExperts } from "./routed.js";
import type { RoutedDefaults } from "./routed.js";
import { readLayerWindows, writeLayerTypes } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 32,
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: null,
  eos: null,
};

const routed: RoutedDefaults = {
  experts: undefined,
  topK: undefined,
  ffnDim: 1408,
  shared: undefined,
  groups: 1,
  keptGroups: 1,
  renormalised: false,
  scaling: 1,
};

/** The config dialect of dots.llm1. */
export const dots1: Dialect = {
  family: "dots1",
  architecture: "Dots1ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "dots1", defaults);
    const { layerCount } = common;
    const moe = readRoutedExperts(config, routed);
    const sparse = readLeadingDense(config, layerCount, 0);
    // The class has no switch for its windows: layers from max_window_layers on slide.
    const first = config.int("max_window_layers", 62, { min: 0 });
    const windows = readLayerWindows(
      config,
      layerCount,
      (layer) => layer >= first,
      config.intOrNull("sliding_window", 4096),
    );
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    return moeSpec(
      common,
      attn,
      { moe, dense: readDenseFfnDim(config, sparse), sparse },
      windows,
      readAuxLossCoef(config, 0),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    const firstSliding = spec.layers.findIndex(({ window }) => window !== null);
    return {
      ...writeRoutedExperts(spec),
      ...writeLeadingDense(spec),
      attention_bias: sharedAttentionBias(spec),
      ...writeLayerTypes(spec),
      max_window_layers: firstSliding === -1 ? spec.layers.length : firstSliding,
    };
  },
};
