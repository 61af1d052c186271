/**
 * Granite 3 MoE: granite in which every layer is a mixture of experts (transformers, configuration_granitemoe.py and
 * modeling_granitemoe.py). Router order: top-k then softmax.
 */
import { plainExperts, softmaxRouter } from "../types.js";
import type { DecoderSpec, MoeFfn } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import {
  everyLayerMoe,
  moeSpec,
  readAuxLossCoef,
  readExpertCount,
  readTopK,
  requirePlainExperts,
  requireSoftmaxRouter,
} from "./experts.js";
import { graniteDefaults, withGraniteFactors, writeGraniteFactors } from "./granite.js";
import type { ConfigReader } from "./reader.js";

/** What Granite's MoE classes assume. */
export const graniteMoeDefaults: Defaults = { ...graniteDefaults, activation: "silu" };

/** The experts of Granite's MoE classes. Throws inputError for keys that are missing or wrong. */
export function readGraniteExperts(config: ConfigReader): Omit<MoeFfn, "activation"> {
  const experts = readExpertCount(config, 8);
  return {
    kind: "moe",
    ffnDim: config.int("intermediate_size"),
    experts,
    topK: readTopK(config, experts, 2),
    router: softmaxRouter("topk-softmax"),
    ...plainExperts,
    shared: null,
  };
}

/** The keys that Granite's mixtures of experts have in common. */
export function writeGraniteExperts(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
  const moe = everyLayerMoe(spec);
  requirePlainExperts(spec, moe);
  if (requireSoftmaxRouter(spec, moe) !== "topk-softmax")
    throw refuse(spec, "router weights that are not renormalised (softmax-topk)");
  return {
    intermediate_size: moe.ffnDim,
    num_local_experts: moe.experts,
    num_experts_per_tok: moe.topK,
    attention_bias: sharedAttentionBias(spec),
    ...writeGraniteFactors(spec),
    output_router_logits: false,
    router_aux_loss_coef: spec.auxLossCoef,
  };
}

/** The config dialect of Granite with experts. */
export const graniteMoe: Dialect = {
  family: "granitemoe",
  architecture: "GraniteMoeForCausalLM",
  defaults: graniteMoeDefaults,
  read(config: ConfigReader): DecoderSpec {
    const common = withGraniteFactors(readCommon(config, "granitemoe", graniteMoeDefaults), config);
    const bias = config.bool("attention_bias", false);
    const sparse = Array<boolean>(common.layerCount).fill(true);
    const attn = { qkNorm: false, qkvBias: bias, outBias: bias };
    return moeSpec(common, attn, { moe: readGraniteExperts(config), dense: null, sparse }, [], readAuxLossCoef(config));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    if (everyLayerMoe(spec).shared !== null) throw refuse(spec, "a shared expert");
    return writeGraniteExperts(spec);
  },
};
