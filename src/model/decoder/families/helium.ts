/**
 * Helium: llama with rope over neighbouring pairs; the output projection has no bias (transformers:
 * models/helium/configuration_helium.py and modeling_helium.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 20,
  headDim: 128,
  maxPositions: 4096,
  normEps: 1e-8,
  activation: "silu",
  ropeTheta: 100_000,
  interleavedRope: true,
  bos: 1,
  eos: 2,
  pad: 3,
};

/** The config dialect of Helium. */
export const helium: Dialect = {
  family: "helium",
  architecture: "HeliumForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "helium", defaults);
    const { heads, headDim } = common.attn;
    // The class's output projection is square.
    if (heads * headDim !== common.hidden)
      throw config.fail("head_dim", `${common.hidden / heads}, hidden_size / num_attention_heads`);
    const attn = { qkNorm: false, qkvBias: config.bool("attention_bias", false), outBias: false };
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false) };
    return denseSpec(common, attn, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: false });
    const { heads, headDim } = spec.attn;
    if (heads * headDim !== spec.hidden)
      throw refuse(spec, `heads of ${headDim}, other than hidden_size / num_attention_heads`);
    const ffn = uniformDense(spec, true);
    return { intermediate_size: ffn.ffnDim, attention_bias: spec.attn.qkvBias, mlp_bias: ffn.bias };
  },
};
