/**
 * Apertus: llama with a norm over each query and key head, whose FFN has no gate and xIELU, an activation with two
 * learnt numbers (transformers: models/apertus/configuration_apertus.py and modular_apertus.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import {
  denseSpec,
  readCommon,
  refuse,
  requireAttention,
  requireKeys,
  sharedAttentionBias,
  uniformDense,
} from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 65_536,
  normEps: 1e-5,
  activation: "xielu",
  ropeTheta: 12_000_000,
  bos: 1,
  eos: 2,
  pad: 3,
};

/** What the class takes where a file has no rope of its own, whatever `rope_theta` says. */
const defaultRope = {
  rope_type: "llama3",
  rope_theta: 12_000_000,
  factor: 8,
  original_max_position_embeddings: 8192,
  low_freq_factor: 1,
  high_freq_factor: 4,
};

/** The config dialect of Apertus. */
export const apertus: Dialect = {
  family: "apertus",
  architecture: "ApertusForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    // Keys of released files that the class does not look at.
    requireKeys(file, { qk_norm: true, post_norm: false, mlp_bias: false });
    const hasRope = file.has("rope_parameters") || file.has("rope_scaling");
    const config = hasRope ? file : file.with({ rope_parameters: defaultRope });
    const common = readCommon(config, "apertus", defaults);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false, gated: false };
    return denseSpec(common, { qkNorm: true, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, false);
    if (ffn.gated) throw refuse(spec, "an FFN with a gate");
    return { intermediate_size: ffn.ffnDim, attention_bias: sharedAttentionBias(spec) };
  },
};
