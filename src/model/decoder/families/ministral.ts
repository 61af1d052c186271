/**
 * Ministral 8B of 2024: Mistral with a sliding window on chosen layers (transformers:
 * models/ministral/modular_ministral.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-6,
  activation: "silu",
  llamaLike: true,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

const defaultWindow = 4096;

/** The config dialect of Ministral. */
export const ministral: Dialect = {
  family: "ministral",
  architecture: "MinistralForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "ministral", defaults);
    const window = config.intOrNull("sliding_window", defaultWindow);
    const windows = readLayerWindows(config, common.layerCount, () => true, window);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    return denseSpec(common, { qkNorm: false, qkvBias: false, outBias: false }, ffn, windows);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      ...writeLayerTypesSized(spec, defaultWindow),
    };
  },
};
