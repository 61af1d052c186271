/**
 * Qwen3-30B-A3B and its kin: qwen3 attention, many small experts, no shared expert. The router order is the config key
 * `norm_topk_prob`, read by `readSoftmaxRouter` (`experts.ts`): true is top-k then softmax, false or absent is softmax
 * then top-k.
 */
import { plainExperts } from "../types.js";
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import {
  moeSpec,
  readAuxLossCoef,
  readDenseFfnDim,
  readExpertCount,
  readSoftmaxRouter,
  readSparseLayers,
  readTopK,
  writeQwenExperts,
  uniformFfns,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";
import { readQwenWindow, uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 4,
  headDim: "derived",
  maxPositions: 32_768,
  activation: "silu",
  llamaLike: true,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: null,
  eos: null,
};

export const qwen3Moe: Dialect = {
  family: "qwen3_moe",
  architecture: "Qwen3MoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "qwen3_moe", defaults);
    const experts = readExpertCount(config, 128);
    const moe = {
      kind: "moe",
      ffnDim: config.int("moe_intermediate_size", 768),
      experts,
      topK: readTopK(config, experts, 8),
      router: readSoftmaxRouter(config),
      ...plainExperts,
      shared: null,
    } as const;
    const sparse = readSparseLayers(config, common.layerCount);
    const dense = readDenseFfnDim(config, sparse);
    // This class has no layer_types: a window, if switched on, is on every layer.
    const windows = Array<number | null>(common.layerCount).fill(readQwenWindow(config));
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    return moeSpec(common, attn, { moe, dense, sparse }, windows, readAuxLossCoef(config));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    if (uniformFfns(spec).moe.shared !== null) throw refuse(spec, "a shared expert");
    const window = uniformWindow(spec);
    return {
      ...writeQwenExperts(spec),
      attention_bias: sharedAttentionBias(spec),
      use_sliding_window: window !== null,
      sliding_window: window,
    };
  },
};
