/**
 * gpt-oss: attention sinks, a router and experts with biases, a clamped gated unit, YaRN (transformers,
 * configuration_gpt_oss.py and modeling_gpt_oss.py). Released files are quantized (MXFP4) and refused by
 * `readQuantization`.
 */
import { softmaxRouter } from "../types.js";
import type { DecoderSpec, RopeScaling } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, requireKeys, sharedAttentionBias } from "./common.js";
import { everyLayerMoe, moeSpec, readAuxLossCoef, readExpertCount, readTopK } from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { yarnMscale } from "./rope.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 64,
  maxPositions: 131_072,
  normEps: 1e-5,
  ropeTheta: 150_000,
  bos: null,
  eos: null,
};

/** What the class takes if a config says nothing about rope but, perhaps, the length before it was extended. */
const usualYarn = {
  kind: "yarn",
  factor: 32,
  betaFast: 32,
  betaSlow: 1,
  originalMaxPositions: 4096,
  truncate: false,
  attentionFactor: yarnMscale(32, 1),
} as const satisfies RopeScaling;

/** Fixed by `GptOssExperts`. */
const clampedGlu = { alpha: 1.702, limit: 7 } as const;

/** The config dialect of gpt-oss. */
export const gptOss: Dialect = {
  family: "gpt_oss",
  architecture: "GptOssForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireKeys(config, { swiglu_limit: clampedGlu.limit });
    const common = readCommon(config, "gpt_oss", defaults);
    const usual = !config.has("rope_parameters") && !config.has("rope_scaling");
    const originalMaxPositions = config.int("original_max_position_embeddings", usualYarn.originalMaxPositions);
    const rope = usual ? { ...common.rope, scaling: { ...usualYarn, originalMaxPositions } } : common.rope;
    const experts = readExpertCount(config, 128);
    const moe = {
      kind: "moe",
      ffnDim: config.int("intermediate_size"),
      gated: true,
      bias: true,
      clampedGlu,
      experts,
      topK: readTopK(config, experts, 4),
      router: { ...softmaxRouter("topk-softmax"), bias: true },
      shared: null,
    } as const;
    // Without `layer_types` every other layer slides, the first one too.
    const windows = readLayerWindows(
      config,
      common.layerCount,
      (layer) => layer % 2 === 0,
      config.intOrNull("sliding_window", 128),
    );
    const bias = config.bool("attention_bias", true);
    const attn = { ...common.attn, sinks: true };
    const sparse = Array<boolean>(common.layerCount).fill(true);
    return moeSpec(
      { ...common, attn, rope },
      { qkNorm: false, qkvBias: bias, outBias: bias },
      { moe, dense: null, sparse },
      windows,
      readAuxLossCoef(config),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const moe = everyLayerMoe(spec);
    if (!spec.attn.sinks) throw refuse(spec, "no attention sinks");
    if (moe.shared !== null) throw refuse(spec, "a shared expert");
    if (!moe.gated || !moe.bias || !moe.router.bias)
      throw refuse(spec, "a router or experts without biases, or experts without a gate");
    if (JSON.stringify(moe.clampedGlu) !== JSON.stringify(clampedGlu)) {
      throw refuse(
        spec,
        `a gated unit other than the one clamped at ${clampedGlu.limit} with alpha ${clampedGlu.alpha}`,
      );
    }
    return {
      intermediate_size: moe.ffnDim,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      swiglu_limit: clampedGlu.limit,
      attention_bias: sharedAttentionBias(spec),
      output_router_logits: false,
      router_aux_loss_coef: spec.auxLossCoef,
      ...writeLayerTypesSized(spec, 128),
    };
  },
};
