/**
 * ERNIE 4.5, dense: llama with rope over neighbouring pairs and biases everywhere or nowhere (transformers:
 * models/ernie4_5/configuration_ernie4_5.py and modeling_ernie4_5.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 2,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 500_000,
  interleavedRope: true,
  bos: 1,
  eos: 2,
  pad: 0,
  tiedHead: true,
};

/** The config dialect of dense ERNIE 4.5. */
export const ernie45: Dialect = {
  family: "ernie4_5",
  architecture: "Ernie4_5ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "ernie4_5", defaults);
    const bias = config.bool("use_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias };
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    const bias = sharedAttentionBias(spec);
    if (ffn.bias !== bias) throw refuse(spec, "biases in only one of attention and FFN");
    return { intermediate_size: ffn.ffnDim, use_bias: bias };
  },
};
