/** Mixtral: mistral attention, every layer a mixture of experts, kept router weights always renormalised. */
import { plainExperts, softmaxRouter } from "../types.js";
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import {
  everyLayerMoe,
  moeSpec,
  readAuxLossCoef,
  readExpertCount,
  readTopK,
  requirePlainExperts,
  requireSoftmaxRouter,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  activation: "silu",
  llamaLike: true,
  normEps: 1e-5,
  ropeTheta: 1_000_000,
  bos: 1,
  eos: 2,
};

/** The config dialect of Mixtral. */
export const mixtral: Dialect = {
  family: "mixtral",
  architecture: "MixtralForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "mixtral", defaults);
    const experts = readExpertCount(config, 8);
    const moe = {
      kind: "moe",
      ffnDim: config.int("intermediate_size"),
      experts,
      topK: readTopK(config, experts, 2),
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    } as const;
    const every = <T>(value: T): T[] => Array<T>(common.layerCount).fill(value);
    const windows = every(config.intOrNull("sliding_window", null));
    const attn = { qkNorm: false, qkvBias: false, outBias: false };
    return moeSpec(common, attn, { moe, dense: null, sparse: every(true) }, windows, readAuxLossCoef(config));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const moe = everyLayerMoe(spec);
    if (moe.shared !== null) throw refuse(spec, "a shared expert");
    requirePlainExperts(spec, moe);
    if (requireSoftmaxRouter(spec, moe) !== "topk-softmax")
      throw refuse(spec, "router weights that are not renormalised (softmax-topk)");
    return {
      intermediate_size: moe.ffnDim,
      num_local_experts: moe.experts,
      num_experts_per_tok: moe.topK,
      sliding_window: uniformWindow(spec),
      output_router_logits: false,
      router_aux_loss_coef: spec.auxLossCoef,
      router_jitter_noise: 0,
    };
  },
};
