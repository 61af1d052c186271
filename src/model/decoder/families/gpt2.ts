/**
 * GPT-2: learnt positions instead of rope, LayerNorm, an FFN without a gate, biases everywhere (transformers,
 * configuration_gpt2.py and modeling_gpt2.py).
 */
import type { DecoderSpec, DenseFfn } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { attentionOf, readBase, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
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

/** The config dialect of GPT-2. */
export const gpt2: Dialect = {
  family: "gpt2",
  architecture: "GPT2LMHeadModel",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {});
    requireKeys(config, {
      scale_attn_weights: true,
      scale_attn_by_inverse_layer_idx: false,
      add_cross_attention: false,
    });
    const { layerCount, activation, ...common } = readBase(config, "gpt2", defaults);
    const { heads, kvHeads, headDim } = common.attn;
    // Neither key belongs to the class.
    if (kvHeads !== heads) throw config.fail("num_key_value_heads", `${heads}, like n_head`);
    if (heads * headDim !== common.hidden) throw config.fail("head_dim", `${common.hidden / heads}, n_embd / n_head`);
    const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * common.hidden;
    const ffn: DenseFfn = { kind: "dense", ffnDim, bias: true, activation, gated: false };
    const layers = Array.from({ length: layerCount }, () => ({ window: null, rope: null, ffn: { ...ffn } }));
    const attn = attentionOf(common, { qkNorm: false, qkvBias: true, outBias: true });
    return { ...common, learnedPositions: true, attn, layers, auxLossCoef: 0 };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: true, outBias: true });
    if (!spec.learnedPositions) throw refuse(spec, "no learnt positions");
    if (spec.layers.some(({ rope }) => rope !== null)) throw refuse(spec, "rope");
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    const { ffnDim, bias, gated, activation } = uniformDense(spec, true);
    if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
    return {
      // The usual name of this activation in this family's files.
      ...(activation === "geluTanh" ? { activation_function: "gelu_new" } : {}),
      n_inner: ffnDim === 4 * spec.hidden ? null : ffnDim,
      attn_pdrop: 0,
      embd_pdrop: 0,
      resid_pdrop: 0,
    };
  },
};
