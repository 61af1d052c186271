/**
 * What every attribute of a family's `config.json` is to its reader: used, irrelevant to what the model computes, or
 * refused where it departs from the one meaning a spec can say. `test/external/record_attributes.py` records which
 * attributes transformers reads while it builds and runs a model of each family; a test holds that each of them has an
 * entry here and that the entry is true. `config.ts` refuses by this table before a family's dialect reads.
 */
import { jsonText } from "../../base/shown.js";
import type { Family } from "./types.js";
import type { ConfigReader } from "./families/reader.js";

/** What an attribute is to the reader of a family. */
export type AttributeUse =
  /** The spec depends on it, or a dialect checks it against what it must be. */
  | { readonly kind: "used" }
  | { readonly kind: "irrelevant"; readonly why: string }
  /** Any other value than null and those that `allows` is true for. */
  | { readonly kind: "refused"; readonly expected: string; readonly allows: (value: unknown) => boolean };

/** Attributes by name; those of an object inside the config as `OBJECT.NAME`. */
type AttributeTable = Readonly<Record<string, AttributeUse>>;

const used: AttributeUse = { kind: "used" };
const irrelevant = (why: string): AttributeUse => ({ kind: "irrelevant", why });
/** Refused unless it has one of the values. */
const only = (expected: string, ...values: readonly unknown[]): AttributeUse => ({
  kind: "refused",
  expected,
  allows: (value) => values.some((one) => jsonText(one) === jsonText(value)),
});
const each = (use: AttributeUse, ...names: readonly string[]): AttributeTable =>
  Object.fromEntries(names.map((name) => [name, use]));

const bookkeeping = irrelevant("says what the model is called, who saved it and how it is loaded");
const outputs = irrelevant("says what a call returns beside the logits");
const execution = irrelevant("chooses between implementations of the same arithmetic");
const training = irrelevant("noise and settings of training, switched off otherwise");
const heads = irrelevant("belongs to heads for classification, which no causal model here has");
const sampling = irrelevant("a setting of generation, which transformers keeps in generation_config.json");
const internal = irrelevant("set by the config class itself, never read from a file");
const tokenizers = irrelevant("names a token for tokenizers");
const foreign = irrelevant("asked of every model, has a meaning for images only");

/** `requireSaidWindows` holds them to the windows that the class computes. */
const areWindows = (value: unknown): boolean =>
  Array.isArray(value) && value.every((type) => type === "full_attention" || type === "sliding_attention");

/** Attributes that every class has, or that mean the same in all classes that have them. */
const shared: AttributeTable = {
  ...each(
    used,
    ...["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
    ...["num_key_value_heads", "head_dim", "max_position_embeddings", "initializer_range", "tie_word_embeddings"],
    ...["bos_token_id", "eos_token_id", "pad_token_id", "hidden_act", "rms_norm_eps", "attention_bias"],
    ...["rope_theta", "rope_scaling", "rope_parameters", "rope_parameters.rope_theta", "rope_parameters.rope_type"],
    ...["rope_parameters.type", "rope_parameters.factor", "rope_parameters.original_max_position_embeddings"],
    ...["rope_parameters.attention_factor", "rope_parameters.beta_fast", "rope_parameters.beta_slow"],
    ...["rope_parameters.mscale", "rope_parameters.mscale_all_dim", "rope_parameters.truncate"],
    ...["rope_parameters.low_freq_factor", "rope_parameters.high_freq_factor"],
    ...["rope_parameters.short_factor", "rope_parameters.long_factor", "rope_parameters.partial_rotary_factor"],
    ...["partial_rotary_factor", "original_max_position_embeddings", "num_experts_per_tok", "norm_topk_prob"],
    ...["num_experts", "num_local_experts", "moe_intermediate_size", "router_aux_loss_coef"],
  ),
  ...each(bookkeeping, ...["architectures", "auto_map", "transformers_version", "name_or_path", "_commit_hash"]),
  dtype: irrelevant("the tensors say their precision themselves"),
  torch_dtype: irrelevant("the tensors say their precision themselves"),
  ...each(outputs, "output_attentions", "output_hidden_states", "output_router_logits", "return_dict"),
  output_cross_attentions: outputs,
  ...each(
    execution,
    ...["attn_implementation", "experts_implementation", "base_model_tp_plan", "use_cache"],
    ...["pretraining_tp", "chunk_size_feed_forward", "gradient_checkpointing"],
  ),
  ...each(
    training,
    ...["attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "emb_pdrop", "hidden_dropout"],
    ...["residual_dropout", "embedding_dropout", "classifier_dropout", "router_jitter_noise", "input_jitter_noise"],
  ),
  ...each(heads, "id2label", "label2id", "num_labels", "problem_type"),
  ...each(foreign, "vision_aspect_ratio", "vision_feature_layer", "vision_feature_select_strategy"),
  ...each(internal, "_rope_type_labels", "ignore_keys_at_rope_validation"),
  is_causal: only("true, because a decoder sees no token behind its own", true),
  use_bidirectional_attention: only("false, because a decoder sees no token behind its own", false),
  is_encoder_decoder: only("false", false),
  add_cross_attention: only("false", false),
  per_layer_config: only("no settings of single layers", {}),
  num_kv_shared_layers: only("0, because no layer here takes over another one's keys and values", 0),
  attention_chunk_size: only("no chunks of attention"),
  ...each(only("no such key"), "clip_qkv", "attn_logit_softcapping", "final_logit_softcapping"),
  layer_types: {
    kind: "refused",
    expected: '"full_attention" or "sliding_attention" for each layer',
    allows: areWindows,
  },
  sliding_window: irrelevant("this family's attention has no window; only the size of transformers' cache follows it"),
};

/**
 * Keys that transformers 5.18 does not look at and files have all the same: those of generation, which it drops, those
 * of other programs and of older versions.
 */
const olderShared: AttributeTable = {
  ...each(used, "model_type", "quantization_config", "compression_config"),
  ...each(bookkeeping, "_name_or_path", "custom_pipelines", "task_specific_params", "tokenizer_class", "language"),
  ...each(bookkeeping, "unsloth_version", "unsloth_fixed"),
  upcycle: irrelevant("says how this toolkit made the model"),
  ...each(execution, "_attn_implementation", "_attn_implementation_autoset", "use_flash_attn", "use_flash_attention_2"),
  ...each(execution, "_flash_attn_2_enabled", "model_max_length", "is_llama_config", "ep_size", "torchscript"),
  tie_last_hidden_states: outputs,
  is_decoder: internal,
  type_vocab_size: heads,
  ...each(
    sampling,
    ...["do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"],
    ...["max_length", "min_length", "max_new_tokens", "num_beams", "num_return_sequences", "early_stopping"],
    ...["no_repeat_ngram_size", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens"],
    ...["decoder_start_token_id", "begin_suppress_tokens", "diversity_penalty", "num_beam_groups"],
    ...["encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "remove_invalid_values"],
  ),
};

const windowed = each(used, "sliding_window");
const layered = each(used, "sliding_window", "layer_types");
const qwenWindows = each(used, "sliding_window", "layer_types", "use_sliding_window", "max_window_layers");
const multipliers = each(
  used,
  ...["embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"],
);
const routed = each(
  used,
  ...["n_routed_experts", "n_shared_experts", "n_group", "topk_group", "routed_scaling_factor"],
);
/** Names of DeepSeek-V3's router, which its kin carry on. */
const olderRouted = each(used, "scoring_func", "topk_method", "moe_layer_freq");
const ropesByType: AttributeTable = each(
  used,
  ...["full_attention", "sliding_attention"].flatMap((type) =>
    ["", ".rope_theta", ".rope_type", ".type", ".partial_rotary_factor"].map((key) => `rope_parameters.${type}${key}`),
  ),
);
const extraPredictions = irrelevant("layers for predicting further tokens stand behind the last one and are not read");
/** What the class of an object inside a config takes over from the class of all configs. */
const insideObject = (object: string): AttributeTable => ({
  ...each(
    irrelevant("the class looks at the whole config's only"),
    ...[
      ...["_commit_hash", "architectures", "attn_implementation", "chunk_size_feed_forward", "dtype", "torch_dtype"],
      ...["experts_implementation", "id2label", "label2id", "is_encoder_decoder", "name_or_path", "num_labels"],
      ...["output_attentions", "output_hidden_states", "problem_type", "return_dict", "transformers_version"],
    ].map((name) => `${object}.${name}`),
  ),
  ...each(
    only("no such key"),
    ...["partial_rotary_factor", "per_layer_config", "rope_parameters", "rope_scaling"].map(
      (name) => `${object}.${name}`,
    ),
  ),
});
const ropeKeys = ["rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"] as const;
const learntPositions = each(irrelevant("positions are learnt"), ...ropeKeys);
const unturned = each(irrelevant("positions are biases of the scores"), ...ropeKeys);
const otherRope = irrelevant("belongs to a kind of rope that this family's class refuses");
const otherKernel = irrelevant("a switch for the class's implementation; the result is the same");

/** Attributes of single families, and shared ones that mean something else to them. */
const own: Readonly<Partial<Record<Family, AttributeTable>>> = {
  llama: each(used, "mlp_bias"),
  mistral: windowed,
  qwen2: qwenWindows,
  qwen3: qwenWindows,
  nemotron: each(used, "norm_eps", "mlp_bias"),
  starcoder2: { ...windowed, ...each(used, "norm_epsilon", "use_bias") },
  stablelm: each(used, "layer_norm_eps", "use_qkv_bias", "qk_layernorm", "use_parallel_residual"),
  cohere: each(used, "layer_norm_eps", "logit_scale", "use_qk_norm"),
  phi3: {
    ...windowed,
    ...each(otherRope, "rope_parameters.low_freq_factor", "rope_parameters.high_freq_factor"),
    "rope_parameters.original_max_position_embeddings": irrelevant("the one beside rope_parameters has the last word"),
  },
  gpt_neox: {
    ...each(used, "layer_norm_eps", "use_parallel_residual", "rotary_pct", "rotary_emb_base"),
    rope_theta: irrelevant("the class reads rotary_emb_base and rope_parameters"),
    partial_rotary_factor: irrelevant("the class reads rotary_pct and rope_parameters"),
    is_decoder: internal,
  },
  gemma: each(used, "use_bidirectional_attention"),
  gemma2: {
    ...layered,
    ...each(used, "hidden_activation", "query_pre_attn_scalar"),
    ...each(used, "attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"),
  },
  gemma3_text: {
    ...layered,
    ...each(used, "hidden_activation", "query_pre_attn_scalar", "sliding_window_pattern", "rope_local_base_freq"),
    ...each(used, "final_logit_softcapping", "use_bidirectional_attention"),
    _sliding_window_pattern: internal,
    ...ropesByType,
  },
  granite: { ...multipliers, ...each(used, "mlp_bias") },
  smollm3: { ...layered, ...each(used, "use_sliding_window", "no_rope_layers", "no_rope_layer_interval", "mlp_bias") },
  seed_oss: each(used, "attention_out_bias", "mlp_bias"),
  arcee: each(used, "mlp_bias"),
  exaone4: { ...layered, ...each(used, "sliding_window_pattern") },
  cohere2: { ...layered, ...each(used, "layer_norm_eps", "logit_scale", "sliding_window_pattern") },
  ernie4_5: each(used, "use_bias"),
  hunyuan_v1_dense: { ...each(used, "rope_parameters.alpha"), eod_token_id: tokenizers },
  helium: each(used, "mlp_bias"),
  ministral: layered,
  ministral3: { ...windowed, ...each(used, "rope_parameters.llama_4_scaling_beta") },
  cwm: { ...layered, ...each(used, "mlp_bias") },
  jais2: each(used, "layer_norm_eps", "mlp_bias"),
  hyperclovax: { ...multipliers, ...each(used, "mlp_bias", "use_post_norm") },
  vaultgemma: {
    ...layered,
    ...each(used, "hidden_activation", "query_pre_attn_scalar"),
    ...each(used, "attn_logit_softcapping", "final_logit_softcapping"),
  },
  falcon: each(
    used,
    ...["activation", "alibi", "bias", "ffn_hidden_size", "layer_norm_epsilon", "multi_query", "num_kv_heads"],
    ...["new_decoder_architecture", "num_ln_in_parallel_attn", "parallel_attn", "n_embed"],
  ),
  opt: {
    ...each(used, "activation_function", "ffn_dim", "enable_bias", "layer_norm_elementwise_affine", "init_std"),
    ...each(used, "do_layer_norm_before", "word_embed_proj_dim", "_remove_final_layer_norm"),
    initializer_range: irrelevant("the class reads init_std"),
    ...each(training, "dropout", "layerdrop"),
    ...learntPositions,
  },
  mpt: {
    ...each(used, "d_model", "n_heads", "n_layers", "max_seq_len", "layer_norm_epsilon", "attn_config"),
    ...each(used, "attn_config.clip_qkv", "attn_config.softmax_scale", "attn_config.alibi"),
    ...each(used, "attn_config.alibi_bias_max", "attn_config.attn_type", "attn_config.attn_uses_sequence_id"),
    ...each(used, "attn_config.prefix_lm", "attn_config.qk_ln", "expansion_ratio", "logit_scale", "no_bias"),
    ...each(used, "norm_type"),
    ...each(irrelevant("the class has no such thing"), "learned_pos_emb", "embedding_fraction"),
    max_position_embeddings: irrelevant("the class reads max_seq_len"),
    ...unturned,
    "attn_config.attn_pdrop": training,
    ...each(execution, "attn_config.attn_impl", "init_device"),
    "attn_config.rope_theta": only("no such key"),
    ...insideObject("attn_config"),
  },
  gptj: {
    ...each(used, "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "rotary_dim"),
    ...each(used, "layer_norm_epsilon"),
    ...each(irrelevant("rotary_dim elements turn, at a base of the class's own"), ...ropeKeys),
  },
  codegen: {
    ...each(used, "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "rotary_dim"),
    ...each(used, "layer_norm_epsilon"),
    n_ctx: irrelevant("bounds a number that the class does not use"),
    ...each(irrelevant("rotary_dim elements turn, at a base of the class's own"), ...ropeKeys),
  },
  phi: each(used, "layer_norm_eps", "qk_layernorm"),
  gpt_neo: {
    ...each(used, "num_heads", "num_layers", "window_size", "activation_function", "layer_norm_epsilon"),
    ...each(used, "attention_types", "attention_layers"),
    ...each(training, "embed_dropout", "resid_dropout"),
    ...learntPositions,
  },
  gpt_bigcode: {
    ...each(used, "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function", "multi_query"),
    ...each(used, "layer_norm_epsilon", "scale_attn_weights", "add_cross_attention"),
    ...each(
      irrelevant("computes the same scores in another precision"),
      ...["attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"],
    ),
    ...learntPositions,
  },
  olmo3: { ...layered, ...ropesByType },
  olmo: each(used, "clip_qkv"),
  mixtral: windowed,
  qwen2_moe: {
    ...qwenWindows,
    ...each(used, "decoder_sparse_step", "mlp_only_layers", "shared_expert_intermediate_size", "qkv_bias"),
  },
  qwen3_moe: { ...windowed, ...each(used, "use_sliding_window", "decoder_sparse_step", "mlp_only_layers") },
  olmoe: each(used, "clip_qkv", "sliding_window"),
  mellum: {
    ...layered,
    ...ropesByType,
    ...each(used, "mlp_layer_types"),
    ...each(irrelevant("the class reads rope_parameters"), "rope_theta", "rope_scaling"),
  },
  dots1: { ...layered, ...routed, ...each(used, "max_window_layers", "first_k_dense_replace") },
  glm4_moe: { ...routed, ...each(used, "first_k_dense_replace", "use_qk_norm"), num_mtp_layers: extraPredictions },
  solar_open: routed,
  hy_v3: {
    ...each(used, "mlp_bias", "num_shared_experts", "router_scaling_factor", "mlp_layer_types"),
    enable_moe_fp32_combine: otherKernel,
  },
  hunyuan_v1_moe: {
    ...each(used, "moe_topk", "rope_parameters.alpha"),
    ...each(tokenizers, "eod_token_id", "sep_token_id"),
  },
  deepseek_v3: {
    ...routed,
    head_dim: irrelevant("the sizes of the parts of a head count"),
    num_mtp_layers: extraPredictions,
    ...each(
      used,
      "first_k_dense_replace",
      "q_lora_rank",
      "kv_lora_rank",
      "qk_rope_head_dim",
      "qk_nope_head_dim",
      "v_head_dim",
    ),
    ...each(used, "rope_interleave"),
  },
  granitemoe: multipliers,
  granitemoe_swa: { ...layered, ...multipliers, ...each(used, "shared_intermediate_size", "layer_rope_theta") },
  phimoe: {
    ...windowed,
    ...each(otherRope, "rope_parameters.low_freq_factor", "rope_parameters.high_freq_factor"),
    ...each(otherRope, "rope_parameters.beta_fast", "rope_parameters.beta_slow"),
    ...each(used, "lm_head_bias", "router_jitter_noise", "rope_parameters.short_mscale", "rope_parameters.long_mscale"),
  },
  ernie4_5_moe: each(
    used,
    ...["use_bias", "moe_k", "moe_num_experts", "moe_num_shared_experts", "moe_norm_min"],
    ...["moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"],
  ),
  lfm2_moe: {
    ...each(
      used,
      "layer_types",
      "norm_eps",
      "tie_embedding",
      "num_dense_layers",
      "use_expert_bias",
      "routed_scaling_factor",
    ),
    ...each(irrelevant("belongs to convolutions, whose layers are refused"), "conv_bias", "conv_L_cache"),
  },
  gpt_oss: layered,
  dbrx: {
    ...each(used, "d_model", "n_heads", "n_layers", "max_seq_len", "attn_config", "ffn_config"),
    ...each(used, "attn_config.clip_qkv", "attn_config.kv_n_heads", "attn_config.rope_theta"),
    ...each(used, "ffn_config.ffn_act_fn", "ffn_config.ffn_act_fn.name", "ffn_config.ffn_hidden_size"),
    ...each(used, "ffn_config.moe_num_experts", "ffn_config.moe_top_k", "ffn_config.moe_loss_weight"),
    ...each(used, "ffn_config.moe_normalize_expert_weights"),
    "ffn_config.rope_theta": only("no such key"),
    ...each(training, "attn_config.attn_pdrop", "ffn_config.moe_jitter_eps"),
    "ffn_config.hidden_size": irrelevant("the class overwrites it with d_model"),
    ...insideObject("attn_config"),
    ...insideObject("ffn_config"),
  },
  gpt2: {
    ...each(used, "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function"),
    ...each(used, "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "add_cross_attention"),
    ...learntPositions,
    reorder_and_upcast_attn: irrelevant("computes the same scores in another precision"),
    ...each(heads, "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    ...each(heads, "summary_first_dropout"),
  },
};

/** The same for single families. */
const olderOwn: Readonly<Partial<Record<Family, AttributeTable>>> = {
  gemma: each(used, "hidden_activation"),
  dots1: olderRouted,
  glm4_moe: { ...olderRouted, num_nextn_predict_layers: extraPredictions },
  solar_open: { ...olderRouted, ...each(used, "first_k_dense_replace", "use_qk_norm") },
  hunyuan_v1_moe: each(
    used,
    ...["num_shared_expert", "use_mixed_mlp_moe", "use_cla", "moe_layer_num_skipped", "use_qk_norm"],
  ),
  deepseek_v3: { ...olderRouted, num_nextn_predict_layers: extraPredictions, qk_head_dim: internal },
  gpt_oss: each(used, "swiglu_limit"),
  apertus: each(used, "qk_norm", "post_norm", "mlp_bias"),
  cohere2: each(
    used,
    ...["use_qk_norm", "use_parallel_block", "use_parallel_embedding", "use_gated_activation", "layer_switch"],
    ...["position_embedding_type", "order_of_interleaved_layers", "rotary_pct"],
  ),
  falcon: each(used, "apply_residual_connection_post_layernorm"),
  gptj: each(used, "rotary", "scale_attn_weights"),
  hunyuan_v1_dense: each(used, "use_qk_norm", "use_cla", "mlp_bias", "norm_type"),
};

/** What an attribute is to the family's reader; undefined if it is not known. */
export function attributeUse(family: Family, name: string): AttributeUse | undefined {
  return own[family]?.[name] ?? shared[name] ?? olderOwn[family]?.[name] ?? olderShared[name];
}

/** The table's attributes of a family that transformers reads, those of all families left out. */
export function ownAttributes(family: Family): readonly string[] {
  return Object.keys(own[family] ?? {});
}

/** The table's attributes of all families that transformers reads. */
export const sharedAttributes: readonly string[] = Object.keys(shared);

/** Throws inputError for an attribute whose value departs from the only one that a spec of the family can say. */
export function refuseDepartures(config: ConfigReader, family: Family): void {
  for (const path of new Set([...Object.keys(own[family] ?? {}), ...Object.keys(shared)])) {
    const use = attributeUse(family, path);
    if (use?.kind !== "refused") continue;
    const [key = "", ...objects] = path.split(".").reverse();
    const owner = objects.reduceRight<ConfigReader | null>((inside, name) => inside?.object(name) ?? null, config);
    if (owner?.has(key) === true && !use.allows(owner.get(key))) throw owner.fail(key, use.expected);
  }
}

/**
 * Keys that say something and that neither the family's reader nor, as far as was recorded, transformers' class knows.
 */
export function unknownKeys(config: ConfigReader, family: Family): readonly string[] {
  return config.keys().filter((key) => attributeUse(family, key) === undefined && config.get(key) !== null);
}
