/**
 * StableLM 3B and 2: LayerNorm, rope over a quarter of each head, optionally a parallel block that shares one norm,
 * optionally (StableLM 2 12B) a LayerNorm without bias on each head's queries and keys (transformers,
 * configuration_stablelm.py and modeling_stablelm.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 32,
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "silu",
  ropeTheta: 10_000,
  partialRotary: 0.25,
  bos: 0,
  eos: 0,
};

/** The config dialect of StableLM. */
export const stablelm: Dialect = {
  family: "stablelm",
  architecture: "StableLmForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "stablelm", defaults);
    const { heads, headDim } = common.attn;
    // The class takes hidden_size / num_attention_heads whatever head_dim says.
    if (heads * headDim !== common.hidden)
      throw config.fail("head_dim", `${common.hidden / heads}, hidden_size / num_attention_heads`);
    const attn = {
      qkNorm: config.bool("qk_layernorm", false) && ("own-head" as const),
      qkvBias: config.bool("use_qkv_bias", false),
      outBias: false,
    };
    const spec = denseSpec(common, attn, { ffnDim: config.int("intermediate_size"), bias: false }, []);
    const { qkNorm } = spec.attn;
    const withoutBias = qkNorm && { ...qkNorm, norm: { ...qkNorm.norm, bias: false } };
    return {
      ...spec,
      attn: { ...spec.attn, qkNorm: withoutBias },
      block: config.bool("use_parallel_residual", false) ? "parallel-shared" : "pre",
    };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const qkNorm = spec.attn.qkNorm !== null;
    requireAttention(spec, { qkNorm, qkvBias: "any", outBias: false });
    if (spec.block !== "pre" && spec.block !== "parallel-shared") throw refuse(spec, `${spec.block} blocks`);
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      use_qkv_bias: spec.attn.qkvBias,
      qk_layernorm: qkNorm,
      use_parallel_residual: spec.block === "parallel-shared",
    };
  },
};
