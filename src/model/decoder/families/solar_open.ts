/**
 * Solar Open: llama attention, every layer with DeepSeek-V3's experts (transformers:
 * models/solar_open/configuration_solar_open.py and modeling_solar_open.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, requireKeys } from "./common.js";
import { everyLayerMoe, moeSpec, readAuxLossCoef } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readRoutedExperts, writeRoutedExperts } from "./routed.js";
import type { RoutedDefaults } from "./routed.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1e-5,
  ropeTheta: 1_000_000,
  bos: null,
  eos: null,
};

const routed: RoutedDefaults = {
  experts: 128,
  topK: 8,
  ffnDim: 1280,
  shared: 1,
  groups: 1,
  keptGroups: 1,
  renormalised: true,
  scaling: 1,
};

/** The config dialect of Solar Open. */
export const solarOpen: Dialect = {
  family: "solar_open",
  architecture: "SolarOpenForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    // The class has neither norms on queries and keys nor dense layers, whatever these keys say.
    requireKeys(config, { use_qk_norm: false, first_k_dense_replace: 0 });
    const common = readCommon(config, "solar_open", defaults);
    const sparse = Array<boolean>(common.layerCount).fill(true);
    const attn = { qkNorm: false, qkvBias: config.bool("attention_bias", false), outBias: false };
    return moeSpec(
      common,
      attn,
      { moe: readRoutedExperts(config, routed), dense: null, sparse },
      [],
      readAuxLossCoef(config, 0),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: false });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    everyLayerMoe(spec);
    return {
      ...writeRoutedExperts(spec),
      first_k_dense_replace: 0,
      use_qk_norm: false,
      attention_bias: spec.attn.qkvBias,
    };
  },
};
