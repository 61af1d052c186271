/**
 * Phi-3.5-MoE: LayerNorm, every layer a mixture of experts behind a SparseMixer router (transformers,
 * configuration_phimoe.py and modeling_phimoe.py). LongRoPE with its long factors on long sequences, as in transformers
 * 4 and the model's own code; transformers 5.18 computes the table without the sequence's length and so always takes
 * the short ones.
 */
import { inputError } from "../../../base/errors.js";
import { plainExperts } from "../types.js";
import type { DecoderSpec, Rope, RouterSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import { everyLayerMoe, moeSpec, readAuxLossCoef, readExpertCount, requirePlainExperts } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { requireLongrope } from "./rope.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-5,
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "silu",
  ropeTheta: 1_000_000,
  bos: 1,
  eos: 2,
};

const sparseMixer = (jitter: number): RouterSpec => ({
  score: "sparsemixer",
  jitter,
  renormalise: null,
  groups: null,
  correctionBias: false,
  scaling: 1,
  bias: false,
});

/** The class multiplies cos and sin by `short_mscale` or `long_mscale` and knows no attention factor. */
function readRopeFactor(config: ConfigReader, rope: Rope): Rope {
  const { scaling } = rope;
  requireLongrope(config, rope);
  if (scaling.kind !== "longrope") return rope;
  const keys = [config.object("rope_parameters"), config.object("rope_scaling")].filter((one) => one !== null);
  const factors = new Set(keys.flatMap((one) => [one.positive("short_mscale"), one.positive("long_mscale")]));
  const [attentionFactor, ...others] = factors;
  if (attentionFactor === undefined || others.length > 0) {
    throw inputError(`short_mscale and long_mscale are ${[...factors].join(" and ")}, expected one number`, {
      where: config.where,
    });
  }
  return { ...rope, scaling: { ...scaling, attentionFactor } };
}

function writeRopeFactor({ layers: [first] }: DecoderSpec): Record<string, unknown> {
  const rope = first?.rope;
  if (rope?.scaling.kind !== "longrope") return {};
  const { short, long, originalMaxPositions, attentionFactor } = rope.scaling;
  const scaling = {
    rope_type: "longrope",
    short_factor: short,
    long_factor: long,
    short_mscale: attentionFactor,
    long_mscale: attentionFactor,
    original_max_position_embeddings: originalMaxPositions,
  };
  return {
    rope_scaling: scaling,
    rope_parameters: { ...scaling, rope_theta: rope.theta },
    original_max_position_embeddings: originalMaxPositions,
  };
}

/** The config dialect of Phi-3.5-MoE. */
export const phimoe: Dialect = {
  family: "phimoe",
  // As the released model has it, which vLLM and llama.cpp know; transformers goes by `model_type`.
  architecture: "PhiMoEForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "phimoe", defaults);
    const experts = readExpertCount(config, 16);
    if (config.int("num_experts_per_tok", 2) !== 2)
      throw config.fail("num_experts_per_tok", "2 (SparseMixer takes two experts)");
    if (experts < 2) throw config.fail("num_local_experts", "at least 2");
    const moe = {
      kind: "moe",
      ffnDim: config.int("intermediate_size"),
      experts,
      topK: 2,
      router: sparseMixer(config.positive("router_jitter_noise", 0.01, { zero: true })),
      ...plainExperts,
      shared: null,
    } as const;
    const every = <T>(value: T): T[] => Array<T>(common.layerCount).fill(value);
    const windows = every(config.intOrNull("sliding_window", null));
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: false, qkvBias: bias, outBias: bias };
    const rope = readRopeFactor(config, common.rope);
    const ffns = { moe, dense: null, sparse: every(true) };
    const spec = moeSpec({ ...common, rope }, attn, ffns, windows, readAuxLossCoef(config));
    return { ...spec, headBias: config.bool("lm_head_bias", false) };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const moe = everyLayerMoe(spec);
    requirePlainExperts(spec, moe);
    if (moe.shared !== null) throw refuse(spec, "a shared expert");
    if (moe.router.score !== "sparsemixer") throw refuse(spec, `a ${moe.router.score} router (it has SparseMixer)`);
    return {
      intermediate_size: moe.ffnDim,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      attention_bias: sharedAttentionBias(spec),
      lm_head_bias: spec.headBias,
      sliding_window: uniformWindow(spec),
      output_router_logits: false,
      router_aux_loss_coef: spec.auxLossCoef,
      router_jitter_noise: moe.router.jitter,
      input_jitter_noise: 0,
      ...writeRopeFactor(spec),
    };
  },
};
