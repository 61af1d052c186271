/**
 * Mellum 2: qwen3_moe with windows, rope and kind of FFN chosen per layer (transformers:
 * models/mellum/configuration_mellum.py). The class knows `rope_parameters` with an entry per attention type only, so
 * nothing is written flat.
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readBase, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import {
  moeSpec,
  readAuxLossCoef,
  readDenseFfnDim,
  readMlpLayerTypes,
  readSmallExperts,
  uniformFfns,
  writeMlpLayerTypes,
  writeSmallExperts,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readRopesByType, ropesByTypeOf, writeRopesByType } from "./rope.js";
import { readLayerWindows, writeLayerTypes } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 4,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1e-6,
  ropeTheta: 500_000,
  bos: null,
  eos: null,
};

const ropes = { full: 500_000, sliding: 10_000, slidingKey: null } as const;

/** The config dialect of Mellum 2. */
export const mellum: Dialect = {
  family: "mellum",
  architecture: "MellumForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readBase(config, "mellum", defaults);
    const { layerCount } = common;
    const moe = readSmallExperts(config, { experts: 64, topK: 8, ffnDim: 896, renormalised: true });
    const sparse = readMlpLayerTypes(config, layerCount, () => true);
    const windows = readLayerWindows(config, layerCount, () => false, config.intOrNull("sliding_window", 1024));
    const { full, sliding } = readRopesByType(config, common.attn.headDim, ropes);
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    const each = windows.map((size) => (size === null ? full : sliding));
    return moeSpec(
      { ...common, rope: full },
      attn,
      { moe, dense: readDenseFfnDim(config, sparse), sparse },
      windows,
      readAuxLossCoef(config),
      each,
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    if (uniformFfns(spec).moe.shared !== null) throw refuse(spec, "a shared expert");
    const ropesByType = ropesByTypeOf(spec, ropes);
    if (ropesByType === null) throw refuse(spec, "layers without rope");
    return {
      ...writeSmallExperts(spec),
      ...writeMlpLayerTypes(spec),
      attention_bias: sharedAttentionBias(spec),
      ...writeLayerTypes(spec),
      ...writeRopesByType(ropesByType, ropes),
    };
  },
};
