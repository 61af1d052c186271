/**
 * Qwen3-30B-A3B and its kin: qwen3 attention, many small experts, no shared expert. The router order is the config key
 * `norm_topk_prob`, read by `readSoftmaxRouter` (`experts.ts`): true is top-k then softmax, false or absent is softmax
 * then top-k.
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, sharedAttentionBias } from "./common.js";
import { moeSpec, readAuxLossCoef, uniformFfns } from "./experts.js";
import { qwenMoeDefaults, readQwenFfns, writeQwenExperts } from "./qwen_experts.js";
import type { ConfigReader } from "./reader.js";
import { readQwenWindow, uniformWindow } from "./windows.js";

const defaults: Defaults = { ...qwenMoeDefaults, kvHeads: 4 };

/** The config dialect of Qwen3-MoE. */
export const qwen3Moe: Dialect = {
  family: "qwen3_moe",
  architecture: "Qwen3MoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "qwen3_moe", defaults);
    const ffns = readQwenFfns(config, common.layerCount, { experts: 128, topK: 8, ffnDim: 768 });
    // This class has no layer_types: a window, if switched on, is on every layer.
    const windows = Array<number | null>(common.layerCount).fill(readQwenWindow(config));
    const bias = config.bool("attention_bias", false);
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    return moeSpec(common, attn, ffns, windows, readAuxLossCoef(config));
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
