/**
 * Seed-OSS: llama with biases on queries, keys and values, whose output projection has a key of its own for its bias
 * (transformers: models/seed_oss/configuration_seed_oss.py and modeling_seed_oss.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 128,
  maxPositions: 524_288,
  normEps: 1e-6,
  activation: "silu",
  ropeTheta: 10_000,
  bos: 0,
  eos: 2,
  pad: 1,
};

/** The config dialect of Seed-OSS. */
export const seedOss: Dialect = {
  family: "seed_oss",
  architecture: "SeedOssForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "seed_oss", defaults);
    const attn = {
      qkNorm: false,
      qkvBias: config.bool("attention_bias", true),
      outBias: config.bool("attention_out_bias", false),
    };
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    return denseSpec(common, attn, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    return {
      intermediate_size: ffn.ffnDim,
      attention_bias: spec.attn.qkvBias,
      attention_out_bias: spec.attn.outBias,
      mlp_bias: ffn.bias,
      // The class's default is 0.1.
      residual_dropout: 0,
    };
  },
};
