/**
 * HunYuan, dense: llama with a norm over each query and key head behind rope (transformers:
 * models/hunyuan_v1_dense/configuration_hunyuan_v1_dense.py and modeling_hunyuan_v1_dense.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readBase, requireAttention, requireKeys, sharedAttentionBias, uniformDense } from "./common.js";
import { readAlphaRope } from "./hunyuan_v1_moe.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
  pad: 0,
};

/** Keys of released files that the class does not look at: it has the norms, and no keys shared between layers. */
const fixed = { use_qk_norm: true, use_cla: false, mlp_bias: false, norm_type: "rms" };

/** The config dialect of dense HunYuan. */
export const hunyuanV1Dense: Dialect = {
  family: "hunyuan_v1_dense",
  architecture: "HunYuanDenseV1ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireKeys(config, { ...fixed, ...(config.get("norm_type") === "hf_rms" ? { norm_type: "hf_rms" } : {}) });
    const base = readBase(config, "hunyuan_v1_dense", defaults);
    const common = { ...base, rope: readAlphaRope(config, base.attn.headDim, defaults) };
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const spec = denseSpec(common, { qkNorm: true, qkvBias: bias, outBias: bias }, ffn, []);
    return { ...spec, attn: { ...spec.attn, qkNorm: { span: "head", norm: base.norm, afterRope: true } } };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      use_qk_norm: true,
      attention_bias: sharedAttentionBias(spec),
    };
  },
};
