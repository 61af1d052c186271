/**
 * Gemma 3's text model: Gemma 2 without caps on the scores, with a norm over each query and key head, and with a rope
 * of its own for sliding layers (transformers: models/gemma3/modular_gemma3.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readBase, refuse, requireAttention } from "./common.js";
import { gemmaDefaults, requireCausal } from "./gemma.js";
import { sandwiched, writeSandwiched } from "./gemma2.js";
import type { ConfigReader } from "./reader.js";
import { readRopesByType, ropesByTypeOf, writeRopesByType } from "./rope.js";
import { readLayerWindows } from "./windows.js";

// `attn_logit_softcapping` stays refused: the class has the key, its attention does not use it.
const defaults: Defaults = { ...gemmaDefaults, kvHeads: 4, maxPositions: 131_072 };

const ropes = { full: 1_000_000, sliding: 10_000, slidingKey: "rope_local_base_freq" } as const;

/** The config dialect of Gemma 3, text only. */
export const gemma3Text: Dialect = {
  family: "gemma3_text",
  architecture: "Gemma3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireCausal(config);
    const common = sandwiched(config, readBase(config, "gemma3_text", defaults), { scores: null, logits: null });
    // Older files have no `layer_types`; `_sliding_window_pattern`, which transformers 5 saves, is not read back by it.
    const pattern = config.int("sliding_window_pattern", 6);
    const window = config.intOrNull("sliding_window", 4096);
    const windows = readLayerWindows(config, common.layerCount, (layer) => (layer + 1) % pattern !== 0, window);
    const { full, sliding } = readRopesByType(config, common.attn.headDim, ropes);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const attn = { qkNorm: true, qkvBias: bias, outBias: bias };
    const each = windows.map((size) => (size === null ? full : sliding));
    return denseSpec({ ...common, rope: full }, attn, ffn, windows, each);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
    const ropesByType = ropesByTypeOf(spec, ropes);
    if (ropesByType === null) throw refuse(spec, "layers without rope");
    return { ...writeSandwiched(spec), ...writeRopesByType(ropesByType, ropes) };
  },
};
