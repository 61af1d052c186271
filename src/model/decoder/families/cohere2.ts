/**
 * Command R7B and Command A: Command R with a sliding window on three layers of four, and rope on those alone
 * (transformers: models/cohere2/modular_cohere2.py).
 */
import type { DecoderSpec } from "../types.js";
import { cohereDefaults, readParallel, writeParallel } from "./cohere.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention, requireKeys } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, slidingRopes, writeSlidingRopes } from "./windows.js";

const defaults: Defaults = { ...cohereDefaults, ropeTheta: 10_000 };

/** Keys of released files that the class does not look at. */
const fixed = {
  use_qk_norm: false,
  use_parallel_block: true,
  use_parallel_embedding: false,
  use_gated_activation: true,
  position_embedding_type: "rope_gptj",
  order_of_interleaved_layers: "local_attn_first",
};

/** Every n-th layer attends to all tokens; released files say the same number a second time. */
function readPattern(config: ConfigReader): number {
  const pattern = config.int("sliding_window_pattern", 4);
  requireKeys(config, { layer_switch: pattern });
  return pattern;
}

/** The config dialect of Command R7B and Command A. */
export const cohere2: Dialect = {
  family: "cohere2",
  architecture: "Cohere2ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireKeys(config, { ...fixed, rotary_pct: 1 });
    const common = readCommon(config, "cohere2", defaults);
    const { heads, headDim } = common.attn;
    // The class takes hidden_size / num_attention_heads whatever head_dim says.
    if (headDim !== common.hidden / heads)
      throw config.fail("head_dim", `${common.hidden / heads}, hidden_size / num_attention_heads`);
    const window = config.intOrNull("sliding_window", 4096);
    const pattern = config.has("layer_types") ? 1 : readPattern(config);
    const windows = readLayerWindows(config, common.layerCount, (layer) => (layer + 1) % pattern !== 0, window);
    return readParallel(config, common, false, { windows, ropes: slidingRopes(windows, common.rope) });
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const { heads, headDim } = spec.attn;
    if (heads * headDim !== spec.hidden)
      throw refuse(spec, `heads of ${headDim}, other than hidden_size / num_attention_heads`);
    return { ...writeParallel(spec), ...writeSlidingRopes(spec, false) };
  },
};
