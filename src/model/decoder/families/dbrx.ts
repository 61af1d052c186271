/**
 * DBRX: LayerNorm without bias, clipped queries, keys and values, settings of attention and experts in objects of their
 * own (transformers, configuration_dbrx.py and modeling_dbrx.py).
 */
import { plainExperts, softmaxRouter } from "../types.js";
import type { DecoderSpec, RouterOrder } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse, requireAttention } from "./common.js";
import {
  everyLayerMoe,
  moeSpec,
  readAuxLossCoef,
  readTopK,
  requirePlainExperts,
  requireSoftmaxRouter,
} from "./experts.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: 1,
  headDim: "derived",
  maxPositions: 2048,
  // `nn.LayerNorm` with its own epsilon.
  normEps: 1e-5,
  normKey: null,
  norm: { kind: "layer", weight: "scale", bias: false },
  activation: "silu",
  activationKeys: ["ffn_config.ffn_act_fn.name"],
  // Only transformers 5 has a default, which is not that of the released models' files.
  ropeTheta: null,
  bos: null,
  eos: null,
  names: {
    hidden_size: "d_model",
    num_attention_heads: "n_heads",
    num_hidden_layers: "n_layers",
    max_position_embeddings: "max_seq_len",
    num_key_value_heads: "attn_config.kv_n_heads",
    rope_theta: "attn_config.rope_theta",
    clip_qkv: "attn_config.clip_qkv",
    intermediate_size: "ffn_config.ffn_hidden_size",
    num_experts: "ffn_config.moe_num_experts",
    num_experts_per_tok: "ffn_config.moe_top_k",
    router_aux_loss_coef: "ffn_config.moe_loss_weight",
    moe_normalize_expert_weights: "ffn_config.moe_normalize_expert_weights",
  },
};

const nested = ["attn_config", "ffn_config", "ffn_config.ffn_act_fn"];

/**
 * transformers 5 crashes without a limit, so one stands for none that no activation reaches: every limit from here on
 * is read as none.
 */
const unclipped = 1e30;

function readOrder(config: ConfigReader): RouterOrder {
  switch (config.get("moe_normalize_expert_weights")) {
    case undefined:
    case 1:
      return "topk-softmax";
    case null:
      return "softmax-topk";
    default:
      throw config.fail("moe_normalize_expert_weights", "1.0 or null (weights divided by another norm cannot be said)");
  }
}

/** The config dialect of DBRX. */
export const dbrx: Dialect = {
  family: "dbrx",
  architecture: "DbrxForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const config = file.flattened(nested).renamed(defaults.names ?? {});
    if (file.has("rope_theta") && file.get("rope_theta") !== config.get("rope_theta"))
      throw file.fail("rope_theta", "the rope_theta of attn_config");
    const common = readCommon(config, "dbrx", defaults);
    if (common.tiedHead) throw config.fail("tie_word_embeddings", "false");
    const { heads, headDim } = common.attn;
    if (heads * headDim !== common.hidden) throw config.fail("head_dim", `${common.hidden / heads}, d_model / n_heads`);
    const experts = config.int("num_experts", 4);
    const moe = {
      kind: "moe",
      ffnDim: config.int("intermediate_size"),
      experts,
      topK: readTopK(config, experts, 1),
      router: softmaxRouter(readOrder(config)),
      ...plainExperts,
      shared: null,
    } as const;
    const limit = config.has("clip_qkv") ? config.positive("clip_qkv") : null;
    const attn = { ...common.attn, clip: limit === null || limit >= unclipped ? null : limit };
    const sparse = Array<boolean>(common.layerCount).fill(true);
    const plain = { qkNorm: false, qkvBias: false, outBias: false };
    return moeSpec({ ...common, attn }, plain, { moe, dense: null, sparse }, [], readAuxLossCoef(config, 0.01));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const moe = everyLayerMoe(spec);
    requirePlainExperts(spec, moe);
    if (spec.tiedHead) throw refuse(spec, "a tied output head");
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    if (moe.shared !== null) throw refuse(spec, "a shared expert");
    return {
      "attn_config.clip_qkv": spec.attn.clip ?? unclipped,
      "attn_config.attn_pdrop": 0,
      "ffn_config.ffn_hidden_size": moe.ffnDim,
      "ffn_config.moe_num_experts": moe.experts,
      "ffn_config.moe_top_k": moe.topK,
      "ffn_config.moe_loss_weight": spec.auxLossCoef,
      "ffn_config.moe_normalize_expert_weights": requireSoftmaxRouter(spec, moe) === "topk-softmax" ? 1 : null,
      output_router_logits: false,
    };
  },
};
