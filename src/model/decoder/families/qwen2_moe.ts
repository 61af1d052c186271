/** Qwen1.5-MoE and Qwen2-57B-A14B: qwen2 attention, many small experts, and a shared expert behind a sigmoid gate. */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import { moeSpec, readAuxLossCoef, uniformFfns } from "./experts.js";
import { qwenMoeDefaults, readQwenFfns, writeQwenExperts } from "./qwen_experts.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerWindows } from "./windows.js";

const defaults: Defaults = { ...qwenMoeDefaults, kvHeads: 16 };

/** The config dialect of Qwen1.5-MoE and Qwen2-MoE. */
export const qwen2Moe: Dialect = {
  family: "qwen2_moe",
  architecture: "Qwen2MoeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "qwen2_moe", defaults);
    const ffns = readQwenFfns(config, common.layerCount, { experts: 60, topK: 4, ffnDim: 1408 });
    // 0 is how this family says "no shared expert"; transformers and vLLM both load it.
    const sharedFfnDim = config.int("shared_expert_intermediate_size", 5632, { min: 0 });
    const shared = sharedFfnDim === 0 ? null : { ffnDim: sharedFfnDim, gated: true };
    // Unlike qwen2, this class slides on the even layers below max_window_layers (transformers 5,
    // configuration_qwen2_moe.py).
    const below = config.int("max_window_layers", 28, { min: 0 });
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer % 2 === 0 && layer < below);
    const attn = { qkNorm: false, qkvBias: config.bool("qkv_bias", true), outBias: false };
    return moeSpec(common, attn, { ...ffns, moe: { ...ffns.moe, shared } }, windows, readAuxLossCoef(config));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: false });
    const { moe } = uniformFfns(spec);
    if (moe.shared !== null && !moe.shared.gated) throw refuse(spec, "a shared expert without its sigmoid gate");
    return {
      ...writeQwenExperts(spec),
      shared_expert_intermediate_size: moe.shared?.ffnDim ?? 0,
      qkv_bias: spec.attn.qkvBias,
      ...writeLayerWindows(spec),
    };
  },
};
