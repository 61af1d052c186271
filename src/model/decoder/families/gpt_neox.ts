/**
 * GPT-NeoX, Pythia: LayerNorm, an FFN without a gate, biases, blocks in parallel with a norm each, rope over a quarter
 * of each head (transformers, configuration_gpt_neox.py and modeling_gpt_neox.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "gelu",
  ropeTheta: 10_000,
  partialRotary: 0.25,
  bos: 0,
  eos: 2,
  names: { rope_theta: "rotary_emb_base", partial_rotary_factor: "rotary_pct" },
};

/** The config dialect of GPT-NeoX and Pythia. */
export const gptNeox: Dialect = {
  family: "gpt_neox",
  architecture: "GPTNeoXForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    const common = readCommon(config, "gpt_neox", defaults);
    const { heads, kvHeads, headDim } = common.attn;
    // Neither key belongs to the class.
    if (kvHeads !== heads) throw config.fail("num_key_value_heads", `${heads}, like num_attention_heads`);
    if (heads * headDim !== common.hidden)
      throw config.fail("head_dim", `${common.hidden / heads}, hidden_size / num_attention_heads`);
    const bias = config.bool("attention_bias", true);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: true, gated: false };
    const spec = denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
    return { ...spec, block: config.bool("use_parallel_residual", true) ? "parallel" : "pre" };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    if (spec.block !== "pre" && spec.block !== "parallel") throw refuse(spec, `${spec.block} blocks`);
    const { ffnDim, bias } = uniformDense(spec, true);
    if (!bias) throw refuse(spec, "no FFN biases");
    return {
      intermediate_size: ffnDim,
      attention_bias: sharedAttentionBias(spec),
      use_parallel_residual: spec.block === "parallel",
    };
  },
};
