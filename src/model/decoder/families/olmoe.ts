/**
 * OLMoE: pre-norm blocks, a norm over all queries and all keys together, clipping behind that norm, every layer a
 * mixture of experts (transformers: models/olmoe/configuration_olmoe.py and modeling_olmoe.py).
 */
import { plainExperts } from "../types.js";
import type { DecoderSpec, MoeFfn } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import {
  everyLayerMoe,
  moeSpec,
  readAuxLossCoef,
  readExpertCount,
  readSoftmaxRouter,
  readTopK,
  requirePlainExperts,
  requireSoftmaxRouter,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  ropeTheta: 10_000,
  bos: null,
  eos: 50_279,
  pad: 1,
};

/** The config dialect of OLMoE. */
export const olmoe: Dialect = {
  family: "olmoe",
  architecture: "OlmoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    if (config.has("sliding_window")) throw config.fail("sliding_window", "no such key");
    const common = readCommon(config, "olmoe", defaults);
    const { heads, headDim } = common.attn;
    // The norms of queries and keys have the size that the hidden size implies.
    if (heads * headDim !== common.hidden)
      throw config.fail("head_dim", `${common.hidden / heads}, hidden_size / num_attention_heads`);
    const clip = config.has("clip_qkv") ? config.positive("clip_qkv") : null;
    const bias = config.bool("attention_bias", false);
    const moe = readOlmoExperts(config, { experts: 64, topK: 8 });
    const sparse = Array<boolean>(common.layerCount).fill(true);
    const attn = { qkNorm: "full", qkvBias: bias, outBias: bias } as const;
    return moeSpec(
      { ...common, attn: { ...common.attn, clip } },
      attn,
      { moe, dense: null, sparse },
      [],
      readAuxLossCoef(config, 0.01),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    return { ...writeOlmoExperts(spec), clip_qkv: spec.attn.clip };
  },
};

/** Experts as OLMoE and FlexOlmo have them. */
export function readOlmoExperts(
  config: ConfigReader,
  fallback: { readonly experts: number; readonly topK: number },
): Omit<MoeFfn, "activation"> {
  const experts = readExpertCount(config, fallback.experts);
  return {
    kind: "moe",
    ffnDim: config.int("intermediate_size"),
    experts,
    topK: readTopK(config, experts, fallback.topK),
    router: readSoftmaxRouter(config),
    ...plainExperts,
    shared: null,
  };
}

/** Attention and experts of OLMoE and FlexOlmo. */
export function writeOlmoExperts(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
  if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
  const moe = everyLayerMoe(spec);
  if (moe.shared !== null) throw refuse(spec, "a shared expert");
  requirePlainExperts(spec, moe);
  return {
    intermediate_size: moe.ffnDim,
    num_experts: moe.experts,
    num_experts_per_tok: moe.topK,
    norm_topk_prob: requireSoftmaxRouter(spec, moe) === "topk-softmax",
    attention_bias: sharedAttentionBias(spec),
    output_router_logits: false,
    router_aux_loss_coef: spec.auxLossCoef,
  };
}
