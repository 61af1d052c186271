/**
 * GPT-2: learnt positions instead of rope, LayerNorm, an FFN without a gate, biases everywhere (transformers,
 * configuration_gpt2.py and modeling_gpt2.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import { readBase, requireKeys, uniformDense } from "./common.js";
import { gptDefaults, readGpt, writeGpt } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

/** The config dialect of GPT-2. */
export const gpt2: Dialect = {
  family: "gpt2",
  architecture: "GPT2LMHeadModel",
  defaults: gptDefaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(gptDefaults.names ?? {});
    requireKeys(config, {
      scale_attn_weights: true,
      scale_attn_by_inverse_layer_idx: false,
      add_cross_attention: false,
    });
    const base = readBase(config, "gpt2", gptDefaults);
    const { heads, kvHeads } = base.attn;
    // Neither this key nor head_dim belongs to the class.
    if (kvHeads !== heads) throw config.fail("num_key_value_heads", `${heads}, like n_head`);
    return readGpt(config, base);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    return {
      // The usual name of this activation in this family's files.
      ...(uniformDense(spec, true).activation === "geluTanh" ? { activation_function: "gelu_new" } : {}),
      ...writeGpt(spec),
    };
  },
};
