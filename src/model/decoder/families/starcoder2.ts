/**
 * StarCoder2: LayerNorm, an FFN without a gate, biases everywhere or nowhere, a sliding window over every layer
 * (transformers, configuration_starcoder2.py and modeling_starcoder2.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 2,
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  normKey: "norm_epsilon",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "geluTanh",
  ropeTheta: 10_000,
  bos: 50_256,
  eos: 50_256,
  tiedHead: true,
  initStd: 0.018042,
};

/** The config dialect of StarCoder2. */
export const starcoder2: Dialect = {
  family: "starcoder2",
  architecture: "Starcoder2ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "starcoder2", defaults);
    const bias = config.bool("use_bias", true);
    const window = config.intOrNull("sliding_window", null);
    const ffn = { ffnDim: config.int("intermediate_size"), bias, gated: false };
    return denseSpec(
      common,
      { qkNorm: false, qkvBias: bias, outBias: bias },
      ffn,
      Array(common.layerCount).fill(window),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    const bias = sharedAttentionBias(spec);
    if (ffn.bias !== bias) throw refuse(spec, "biases in only one of attention and FFN");
    return { intermediate_size: ffn.ffnDim, use_bias: bias, sliding_window: uniformWindow(spec) };
  },
};
