/**
 * GPT-BigCode (SantaCoder, StarCoder 1): GPT-2 whose query heads share one key and value head, or have one each
 * (transformers: models/gpt_bigcode/configuration_gpt_bigcode.py and modeling_gpt_bigcode.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { attentionOf, readBase, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
import { learntPositions, requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 1024,
  normEps: 1e-5,
  normKey: "layer_norm_epsilon",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "geluTanh",
  activationKeys: ["activation_function"],
  ropeTheta: null,
  bos: 50_256,
  eos: 50_256,
  tiedHead: true,
  names: {
    hidden_size: "n_embd",
    num_attention_heads: "n_head",
    num_hidden_layers: "n_layer",
    max_position_embeddings: "n_positions",
    intermediate_size: "n_inner",
  },
};

/** The config dialect of GPT-BigCode. */
export const gptBigcode: Dialect = {
  family: "gpt_bigcode",
  architecture: "GPTBigCodeForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    requireKeys(config, { scale_attn_weights: true, add_cross_attention: false });
    const multiQuery = config.bool("multi_query", true);
    // The class sets this key by that one.
    const base = readBase(config.with({ num_key_value_heads: multiQuery ? 1 : null }), "gpt_bigcode", defaults);
    const attn = attentionOf(
      { ...base, attn: requireSquareHeads(config, base, "n_head", "n_embd") },
      { qkNorm: false, qkvBias: true, outBias: true },
    );
    const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * base.hidden;
    return learntPositions(base, attn, { ffnDim, bias: true }, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: true, outBias: true });
    if (!spec.learnedPositions) throw refuse(spec, "no learnt positions");
    const { heads, kvHeads } = spec.attn;
    if (kvHeads !== 1 && kvHeads !== heads) throw refuse(spec, `${kvHeads} key heads for ${heads} heads`);
    const { ffnDim, bias, gated } = uniformDense(spec, true);
    if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
    return {
      n_inner: ffnDim === 4 * spec.hidden ? null : ffnDim,
      multi_query: kvHeads === 1,
      num_key_value_heads: kvHeads,
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
    };
  },
};
