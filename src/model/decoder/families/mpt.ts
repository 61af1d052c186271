/**
 * MPT: linear biases on attention, LayerNorm without bias, an FFN of four times the model's width without a gate, no
 * biases (transformers: models/mpt/configuration_mpt.py and modeling_mpt.py).
 */
import type { DecoderSpec } from "../types.js";
import { mptAlibi } from "./alibi.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readBase, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
import { requireSquareHeads } from "./learnt.js";
import { plainRope } from "../plain.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  normKey: "layer_norm_epsilon",
  norm: { kind: "layer", weight: "scale", bias: false },
  activation: "gelu",
  ropeTheta: null,
  bos: null,
  eos: null,
  tiedHead: true,
  names: {
    hidden_size: "d_model",
    num_attention_heads: "n_heads",
    num_hidden_layers: "n_layers",
    max_position_embeddings: "max_seq_len",
  },
};

/** The width of the class's FFN, whatever `expansion_ratio` says. */
const EXPANSION = 4;

/** What the class computes whatever these keys say. */
const fixed = {
  expansion_ratio: EXPANSION,
  no_bias: true,
  logit_scale: null,
  "attn_config.attn_type": "multihead_attention",
  "attn_config.qk_ln": false,
  "attn_config.prefix_lm": false,
  "attn_config.attn_uses_sequence_id": false,
  "attn_config.alibi": true,
  "attn_config.alibi_bias_max": 8,
};

/** The config dialect of MPT. */
export const mpt: Dialect = {
  family: "mpt",
  architecture: "MptForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.renamed(defaults.names ?? {}).flattened(["attn_config"]);
    requireKeys(config, fixed);
    if (config.get("norm_type") === "rmsnorm") throw config.fail("norm_type", '"low_precision_layernorm"');
    const base = readBase(config, "mpt", defaults);
    const square = requireSquareHeads(config, base, "n_heads", "d_model");
    if (square.kvHeads !== square.heads) throw config.fail("num_key_value_heads", `${square.heads}, like n_heads`);
    const clip = "attn_config.clip_qkv";
    const scale = "attn_config.softmax_scale";
    const attn = {
      ...square,
      alibi: mptAlibi(square.heads),
      clip: config.has(clip) ? config.positive(clip) : null,
      scale: config.has(scale) ? config.positive(scale) : square.scale,
    };
    const layers = Array<null>(base.layerCount).fill(null);
    return denseSpec(
      // No layer has the rope that is named here.
      { ...base, attn, activation: "gelu", rope: plainRope(1, square.headDim) },
      { qkNorm: false, qkvBias: false, outBias: false },
      { ffnDim: EXPANSION * base.hidden, bias: false, gated: false },
      [],
      layers,
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const { ffnDim, gated, activation } = uniformDense(spec, false);
    if (ffnDim !== EXPANSION * spec.hidden) throw refuse(spec, `an FFN of ${ffnDim} at a width of ${spec.hidden}`);
    if (gated || activation !== "gelu") throw refuse(spec, "an FFN with a gate, or another activation than GELU");
    const { alibi, clip, scale, headDim } = spec.attn;
    if (alibi === null) throw refuse(spec, "attention without linear biases");
    return {
      hidden_act: undefined,
      expansion_ratio: EXPANSION,
      no_bias: true,
      "attn_config.alibi": true,
      "attn_config.attn_pdrop": 0,
      "attn_config.clip_qkv": clip,
      "attn_config.softmax_scale": scale === headDim ** -0.5 ? null : scale,
      resid_pdrop: 0,
      emb_pdrop: 0,
    };
  },
};
