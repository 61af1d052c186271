/**
 * VaultGemma: Gemma 2 without the norms behind attention and FFN (transformers:
 * models/vaultgemma/modular_vaultgemma.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention } from "./common.js";
import { gemmaDefaults } from "./gemma.js";
import { sandwiched, writeCapped } from "./gemma2.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows } from "./windows.js";

const defaults: Defaults = {
  ...gemmaDefaults,
  kvHeads: 4,
};

/** The config dialect of VaultGemma. */
export const vaultgemma: Dialect = {
  family: "vaultgemma",
  architecture: "VaultGemmaForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = sandwiched(config, readCommon(config, "vaultgemma", defaults), { scores: 50, logits: 30 });
    const window = config.intOrNull("sliding_window", 4096);
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer % 2 === 0, window);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const spec = denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, windows);
    return { ...spec, block: "pre" };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    if (spec.block !== "pre") throw refuse(spec, `${spec.block} blocks`);
    return writeCapped(spec);
  },
};
