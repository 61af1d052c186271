/** SmolLM3: llama in which every fourth layer knows no positions (transformers: models/smollm3/modular_smollm3.py). */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { isInteger } from "./reader.js";
import { readLayerWindows, readQwenWindow, writeLayerTypes } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 4,
  headDim: "derived",
  maxPositions: 32_768,
  normEps: 1e-6,
  ropeTheta: 2_000_000,
  bos: 128_000,
  eos: 128_001,
  pad: 128_004,
  tiedHead: true,
};

/** `no_rope_layers` says 1 for a layer with rope, 0 for one without. */
function readRoped(config: ConfigReader, layers: number): boolean[] {
  const interval = config.int("no_rope_layer_interval", 4);
  const flags = config.list("no_rope_layers", isInteger, "a list of 0 and 1");
  if (flags === null) return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
  if (flags.length < layers || flags.some((flag) => flag !== 0 && flag !== 1)) {
    throw config.fail("no_rope_layers", `0 or 1 for each of ${layers} layers`);
  }
  return flags.slice(0, layers).map((flag) => flag === 1);
}

/** The config dialect of SmolLM3. */
export const smollm3: Dialect = {
  family: "smollm3",
  architecture: "SmolLM3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "smollm3", defaults);
    const roped = readRoped(config, common.layerCount);
    const windows = readLayerWindows(config, common.layerCount, (layer) => !roped[layer], readQwenWindow(config, null));
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    const ropes = roped.map((has) => (has ? common.rope : null));
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, windows, ropes);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    return {
      intermediate_size: ffn.ffnDim,
      attention_bias: sharedAttentionBias(spec),
      mlp_bias: ffn.bias,
      no_rope_layers: spec.layers.map(({ rope }) => (rope === null ? 0 : 1)),
      use_sliding_window: spec.layers.some(({ window }) => window !== null),
      ...writeLayerTypes(spec),
    };
  },
};
