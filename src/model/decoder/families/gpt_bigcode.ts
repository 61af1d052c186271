/**
 * GPT-BigCode (SantaCoder, StarCoder 1): GPT-2 whose query heads share one key and value head, or have one each
 * (transformers: models/gpt_bigcode/configuration_gpt_bigcode.py and modeling_gpt_bigcode.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Dialect } from "./common.js";
import { readBase, refuse, requireKeys } from "./common.js";
import { gptDefaults, readGpt, writeGpt } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

/** The config dialect of GPT-BigCode. */
export const gptBigcode: Dialect = {
  family: "gpt_bigcode",
  architecture: "GPTBigCodeForCausalLM",
  defaults: gptDefaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(gptDefaults.names ?? {});
    requireKeys(config, { scale_attn_weights: true, add_cross_attention: false });
    const multiQuery = config.bool("multi_query", true);
    // The class sets this key by that one.
    return readGpt(
      config,
      readBase(config.with({ num_key_value_heads: multiQuery ? 1 : null }), "gpt_bigcode", gptDefaults),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const { heads, kvHeads } = spec.attn;
    if (kvHeads !== 1 && kvHeads !== heads) throw refuse(spec, `${kvHeads} key heads for ${heads} heads`);
    return { ...writeGpt(spec), multi_query: kvHeads === 1, num_key_value_heads: kvHeads };
  },
};
