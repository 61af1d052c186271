/**
 * Mistral 7B and its kin: llama with a sliding window over every layer, or over those that `layer_types` names
 * (Ministral 8B, which transformers 5 reads by its class `ministral`: `AutoConfig.from_pretrained`).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerTypes } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

/** The config dialect of Mistral. */
export const mistral: Dialect = {
  family: "mistral",
  architecture: "MistralForCausalLM",
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "mistral", defaults);
    const ffn = { kind: "dense", ffnDim: config.int("intermediate_size"), bias: false } as const;
    // The class default is a window, so an absent key and null mean different models.
    const window = config.intOrNull("sliding_window", 4096);
    const windows = readLayerWindows(config, common.layerCount, () => true, window);
    return denseSpec(common, { qkNorm: false, qkvBias: false, outBias: false }, ffn, windows);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const { layer_types: types, ...window } = writeLayerTypes(spec);
    const differ = new Set(spec.layers.map((layer) => layer.window)).size > 1;
    // The key alone makes transformers take the other class, so it is written only where it says something.
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      ...window,
      ...(differ ? { layer_types: types } : {}),
    };
  },
};
