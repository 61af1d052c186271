/** Qwen2 and Qwen2.5: llama with biases on query, key and value, and optionally windows on the later layers. */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerWindows } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 32,
  headDim: "derived",
  maxPositions: 32_768,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: null,
  eos: null,
};

/** The config dialect of Qwen2 and Qwen2.5. */
export const qwen2: Dialect = {
  family: "qwen2",
  architecture: "Qwen2ForCausalLM",
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "qwen2", defaults);
    const fullLayers = config.int("max_window_layers", 28, { min: 0 });
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer >= fullLayers);
    const ffn = { kind: "dense", ffnDim: config.int("intermediate_size"), bias: false } as const;
    return denseSpec(common, { qkNorm: false, qkvBias: true, outBias: false }, ffn, windows);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: true, outBias: false });
    return { intermediate_size: uniformDense(spec, false).ffnDim, ...writeLayerWindows(spec) };
  },
};
