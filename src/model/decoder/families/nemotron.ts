/**
 * Nemotron 3 and 4, Minitron: LayerNorm with 1 + weight and bias, squared ReLU without a gate, rope over half of each
 * head (transformers, configuration_nemotron.py and modeling_nemotron.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  normKey: "norm_eps",
  norm: { kind: "layer", weight: "one-plus", bias: true },
  activation: "relu2",
  ropeTheta: 10_000,
  partialRotary: 0.5,
  bos: 2,
  eos: 3,
  initStd: 0.0134,
};

/** The config dialect of Nemotron. */
export const nemotron: Dialect = {
  family: "nemotron",
  architecture: "NemotronForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "nemotron", defaults);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false), gated: false };
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    return { intermediate_size: ffn.ffnDim, attention_bias: sharedAttentionBias(spec), mlp_bias: ffn.bias };
  },
};
