/** Qwen3 dense: RMSNorm over each query and key head, usually no biases, head size 128 whatever the hidden size. */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerWindows } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 32,
  headDim: 128,
  maxPositions: 32_768,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: null,
  eos: null,
};

/** The config dialect of Qwen3. */
export const qwen3: Dialect = {
  family: "qwen3",
  architecture: "Qwen3ForCausalLM",
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "qwen3", defaults);
    const fullLayers = config.int("max_window_layers", 28, { min: 0 });
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer >= fullLayers);
    const bias = config.bool("attention_bias", false);
    const ffn = { kind: "dense", ffnDim: config.int("intermediate_size"), bias: false } as const;
    return denseSpec(common, { qkNorm: true, qkvBias: bias, outBias: bias }, ffn, windows);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      attention_bias: sharedAttentionBias(spec),
      ...writeLayerWindows(spec),
    };
  },
};
