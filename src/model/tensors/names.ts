/**
 * On-disk Hugging Face names of tensor slots, as tables: one row per part. `{layer}` and `{expert}` are filled in,
 * `{head}` with each head in turn. These are the per-expert names that `save_pretrained` writes and that transformers 4
 * and 5, vLLM and llama.cpp read. The file is long because it holds a table for each family and nothing else.
 */
import type { DecoderSpec, Family } from "../decoder/types.js";
import type { Slot, SlotAt, SlotPart } from "./slots.js";
import { slotsOf } from "./slots.js";

type ExpertPart = "gate" | "gateBias" | "up" | "upBias" | "down" | "downBias";

/** The names of one family. */
interface NameTable {
  /** Null for parts the family does not have. */
  readonly parts: Readonly<Record<SlotPart, string | null>>;
  /** Names of the routed experts' tensors. */
  readonly experts: Readonly<Partial<Record<ExpertPart, string>>> | null;
}

const layer = "model.layers.{layer}";
const attention = `${layer}.self_attn`;

const llamaParts: NameTable["parts"] = {
  embed: "model.embed_tokens.weight",
  positions: null,
  inputNorm: `${layer}.input_layernorm.weight`,
  inputNormBias: null,
  postAttentionNorm: null,
  postAttentionNormBias: null,
  q: `${attention}.q_proj.weight`,
  qBias: `${attention}.q_proj.bias`,
  k: `${attention}.k_proj.weight`,
  kBias: `${attention}.k_proj.bias`,
  v: `${attention}.v_proj.weight`,
  vBias: `${attention}.v_proj.bias`,
  qNorm: `${attention}.q_norm.weight`,
  kNorm: `${attention}.k_norm.weight`,
  sinks: null,
  qDown: null,
  qLatentNorm: null,
  kvDown: null,
  kvLatentNorm: null,
  kRope: null,
  o: `${attention}.o_proj.weight`,
  oBias: `${attention}.o_proj.bias`,
  ffnNorm: `${layer}.post_attention_layernorm.weight`,
  ffnNormBias: null,
  gate: `${layer}.mlp.gate_proj.weight`,
  gateBias: `${layer}.mlp.gate_proj.bias`,
  up: `${layer}.mlp.up_proj.weight`,
  upBias: `${layer}.mlp.up_proj.bias`,
  down: `${layer}.mlp.down_proj.weight`,
  downBias: `${layer}.mlp.down_proj.bias`,
  router: null,
  routerBias: null,
  routerCorrection: null,
  sharedGate: null,
  sharedUp: null,
  sharedDown: null,
  sharedRouter: null,
  activationP: null,
  activationN: null,
  activationBeta: null,
  activationEps: null,
  postFfnNorm: null,
  postFfnNormBias: null,
  finalNorm: "model.norm.weight",
  finalNormBias: null,
  head: "lm_head.weight",
  headBias: null,
};

const dense: NameTable = { parts: llamaParts, experts: null };

const layerNormBiases = {
  inputNormBias: `${layer}.input_layernorm.bias`,
  ffnNormBias: `${layer}.post_attention_layernorm.bias`,
  finalNormBias: "model.norm.bias",
};

const nemotron: NameTable = { parts: { ...llamaParts, ...layerNormBiases, gate: null, gateBias: null }, experts: null };

/** Norms on queries and keys are a tensor for each head. */
const stablelm: NameTable = {
  parts: {
    ...llamaParts,
    ...layerNormBiases,
    qNorm: `${attention}.q_layernorm.norms.{head}.weight`,
    kNorm: `${attention}.k_layernorm.norms.{head}.weight`,
  },
  experts: null,
};

const starcoder2: NameTable = {
  parts: {
    ...llamaParts,
    ...layerNormBiases,
    gate: null,
    gateBias: null,
    up: `${layer}.mlp.c_fc.weight`,
    upBias: `${layer}.mlp.c_fc.bias`,
    down: `${layer}.mlp.c_proj.weight`,
    downBias: `${layer}.mlp.c_proj.bias`,
  },
  experts: null,
};

/** Gemma 2 and 3 and OLMo 2 and 3: norms behind attention and FFN, and Gemma's before the FFN has another name. */
const postNorms: NameTable = {
  parts: {
    ...llamaParts,
    postAttentionNorm: `${layer}.post_attention_layernorm.weight`,
    ffnNorm: `${layer}.pre_feedforward_layernorm.weight`,
    postFfnNorm: `${layer}.post_feedforward_layernorm.weight`,
  },
  experts: null,
};

/** Fused: `placement.ts` says which rows are whose. */
const phi3: NameTable = {
  parts: {
    ...llamaParts,
    q: `${attention}.qkv_proj.weight`,
    k: `${attention}.qkv_proj.weight`,
    v: `${attention}.qkv_proj.weight`,
    gate: `${layer}.mlp.gate_up_proj.weight`,
    up: `${layer}.mlp.gate_up_proj.weight`,
  },
  experts: null,
};

/** Fused: `placement.ts` says which rows are whose. */
const glm: NameTable = {
  parts: { ...llamaParts, gate: `${layer}.mlp.gate_up_proj.weight`, up: `${layer}.mlp.gate_up_proj.weight` },
  experts: null,
};

const glm4: NameTable = {
  parts: {
    ...glm.parts,
    postAttentionNorm: `${layer}.post_self_attn_layernorm.weight`,
    postFfnNorm: `${layer}.post_mlp_layernorm.weight`,
  },
  experts: null,
};

const hunyuanNorms = {
  qNorm: `${attention}.query_layernorm.weight`,
  kNorm: `${attention}.key_layernorm.weight`,
};

const hunyuanV1Dense: NameTable = { parts: { ...llamaParts, ...hunyuanNorms }, experts: null };

const neoxLayer = "gpt_neox.layers.{layer}";
const neoxFused = `${neoxLayer}.attention.query_key_value`;

/** Fused: `placement.ts` says which rows are whose. */
const gptNeox: NameTable = {
  parts: {
    ...llamaParts,
    embed: "gpt_neox.embed_in.weight",
    inputNorm: `${neoxLayer}.input_layernorm.weight`,
    inputNormBias: `${neoxLayer}.input_layernorm.bias`,
    q: `${neoxFused}.weight`,
    qBias: `${neoxFused}.bias`,
    k: `${neoxFused}.weight`,
    kBias: `${neoxFused}.bias`,
    v: `${neoxFused}.weight`,
    vBias: `${neoxFused}.bias`,
    qNorm: null,
    kNorm: null,
    o: `${neoxLayer}.attention.dense.weight`,
    oBias: `${neoxLayer}.attention.dense.bias`,
    ffnNorm: `${neoxLayer}.post_attention_layernorm.weight`,
    ffnNormBias: `${neoxLayer}.post_attention_layernorm.bias`,
    gate: null,
    gateBias: null,
    up: `${neoxLayer}.mlp.dense_h_to_4h.weight`,
    upBias: `${neoxLayer}.mlp.dense_h_to_4h.bias`,
    down: `${neoxLayer}.mlp.dense_4h_to_h.weight`,
    downBias: `${neoxLayer}.mlp.dense_4h_to_h.bias`,
    finalNorm: "gpt_neox.final_layer_norm.weight",
    finalNormBias: "gpt_neox.final_layer_norm.bias",
    head: "embed_out.weight",
  },
  experts: null,
};

const mixtral: NameTable = {
  parts: {
    ...llamaParts,
    gate: null,
    gateBias: null,
    up: null,
    upBias: null,
    down: null,
    downBias: null,
    router: `${layer}.block_sparse_moe.gate.weight`,
  },
  experts: {
    gate: `${layer}.block_sparse_moe.experts.{expert}.w1.weight`,
    up: `${layer}.block_sparse_moe.experts.{expert}.w3.weight`,
    down: `${layer}.block_sparse_moe.experts.{expert}.w2.weight`,
  },
};

const blockSparse = `${layer}.block_sparse_moe`;
const noDenseFfn = { gate: null, gateBias: null, up: null, upBias: null, down: null, downBias: null };

/** Fused: `placement.ts` says which part of the tensor is whose. */
const graniteMoe: NameTable = {
  parts: { ...llamaParts, ...noDenseFfn, router: `${blockSparse}.router.layer.weight` },
  experts: {
    gate: `${blockSparse}.input_linear.weight`,
    up: `${blockSparse}.input_linear.weight`,
    down: `${blockSparse}.output_linear.weight`,
  },
};

/** Fused: `placement.ts` says which part of the tensor is whose. */
const graniteMoeSwa: NameTable = {
  parts: {
    ...llamaParts,
    ...noDenseFfn,
    sinks: `${attention}.sinks`,
    router: `${blockSparse}.router.weight`,
    sharedGate: `${layer}.shared_mlp.input_linear.weight`,
    sharedUp: `${layer}.shared_mlp.input_linear.weight`,
    sharedDown: `${layer}.shared_mlp.output_linear.weight`,
  },
  experts: {
    gate: `${blockSparse}.experts.gate_up_proj`,
    up: `${blockSparse}.experts.gate_up_proj`,
    down: `${blockSparse}.experts.down_proj`,
  },
};

const phimoe: NameTable = {
  parts: { ...mixtral.parts, ...layerNormBiases, headBias: "lm_head.bias" },
  experts: mixtral.experts,
};

const qwenMoe: NameTable = {
  parts: {
    ...llamaParts,
    router: `${layer}.mlp.gate.weight`,
    sharedGate: `${layer}.mlp.shared_expert.gate_proj.weight`,
    sharedUp: `${layer}.mlp.shared_expert.up_proj.weight`,
    sharedDown: `${layer}.mlp.shared_expert.down_proj.weight`,
    sharedRouter: `${layer}.mlp.shared_expert_gate.weight`,
  },
  experts: {
    gate: `${layer}.mlp.experts.{expert}.gate_proj.weight`,
    up: `${layer}.mlp.experts.{expert}.up_proj.weight`,
    down: `${layer}.mlp.experts.{expert}.down_proj.weight`,
  },
};

const flexOlmo: NameTable = { parts: { ...postNorms.parts, router: qwenMoe.parts.router }, experts: qwenMoe.experts };

/** Our own format has a name for every part. */
const upcycle: NameTable = {
  parts: {
    ...llamaParts,
    ...layerNormBiases,
    positions: "model.embed_positions.weight",
    sinks: `${attention}.sinks`,
    qDown: `${attention}.q_down.weight`,
    qLatentNorm: `${attention}.q_latent_norm.weight`,
    kvDown: `${attention}.kv_down.weight`,
    kvLatentNorm: `${attention}.kv_latent_norm.weight`,
    kRope: `${attention}.k_rope.weight`,
    // `post_attention_layernorm` means different norms in different families.
    ffnNorm: `${layer}.ffn_norm.weight`,
    ffnNormBias: `${layer}.ffn_norm.bias`,
    postAttentionNorm: `${layer}.post_attention_norm.weight`,
    postAttentionNormBias: `${layer}.post_attention_norm.bias`,
    postFfnNorm: `${layer}.post_ffn_norm.weight`,
    postFfnNormBias: `${layer}.post_ffn_norm.bias`,
    activationP: `${layer}.activation.alpha_p`,
    activationN: `${layer}.activation.alpha_n`,
    activationBeta: `${layer}.activation.beta`,
    activationEps: `${layer}.activation.eps`,
    headBias: "lm_head.bias",
    router: `${layer}.moe.router.weight`,
    routerBias: `${layer}.moe.router.bias`,
    routerCorrection: `${layer}.moe.router.correction`,
    sharedGate: `${layer}.moe.shared.gate_proj.weight`,
    sharedUp: `${layer}.moe.shared.up_proj.weight`,
    sharedDown: `${layer}.moe.shared.down_proj.weight`,
    sharedRouter: `${layer}.moe.shared.router.weight`,
  },
  experts: {
    gate: `${layer}.moe.experts.{expert}.gate_proj.weight`,
    gateBias: `${layer}.moe.experts.{expert}.gate_proj.bias`,
    up: `${layer}.moe.experts.{expert}.up_proj.weight`,
    upBias: `${layer}.moe.experts.{expert}.up_proj.bias`,
    down: `${layer}.moe.experts.{expert}.down_proj.weight`,
    downBias: `${layer}.moe.experts.{expert}.down_proj.bias`,
  },
};

const ernie45Moe: NameTable = {
  parts: {
    ...qwenMoe.parts,
    routerCorrection: `${layer}.mlp.moe_statics.e_score_correction_bias`,
    sharedGate: `${layer}.mlp.shared_experts.gate_proj.weight`,
    sharedUp: `${layer}.mlp.shared_experts.up_proj.weight`,
    sharedDown: `${layer}.mlp.shared_experts.down_proj.weight`,
    sharedRouter: null,
  },
  experts: qwenMoe.experts,
};

const lfm2Ffn = `${layer}.feed_forward`;

const lfm2Moe: NameTable = {
  parts: {
    ...llamaParts,
    inputNorm: `${layer}.operator_norm.weight`,
    qNorm: `${attention}.q_layernorm.weight`,
    kNorm: `${attention}.k_layernorm.weight`,
    o: `${attention}.out_proj.weight`,
    oBias: null,
    ffnNorm: `${layer}.ffn_norm.weight`,
    ...noDenseFfn,
    gate: `${lfm2Ffn}.w1.weight`,
    up: `${lfm2Ffn}.w3.weight`,
    down: `${lfm2Ffn}.w2.weight`,
    router: `${lfm2Ffn}.gate.weight`,
    routerCorrection: `${lfm2Ffn}.expert_bias`,
    finalNorm: "model.embedding_norm.weight",
  },
  experts: {
    gate: `${lfm2Ffn}.experts.{expert}.w1.weight`,
    up: `${lfm2Ffn}.experts.{expert}.w3.weight`,
    down: `${lfm2Ffn}.experts.{expert}.w2.weight`,
  },
};

const ossExperts = `${layer}.mlp.experts`;

/** Fused: `placement.ts` says which part of the tensor is whose. */
const gptOss: NameTable = {
  parts: {
    ...llamaParts,
    ...noDenseFfn,
    sinks: `${attention}.sinks`,
    router: `${layer}.mlp.router.weight`,
    routerBias: `${layer}.mlp.router.bias`,
  },
  experts: {
    gate: `${ossExperts}.gate_up_proj`,
    gateBias: `${ossExperts}.gate_up_proj_bias`,
    up: `${ossExperts}.gate_up_proj`,
    upBias: `${ossExperts}.gate_up_proj_bias`,
    down: `${ossExperts}.down_proj`,
    downBias: `${ossExperts}.down_proj_bias`,
  },
};

const sharedNames = (
  prefix: string,
): Pick<NameTable["parts"], "sharedGate" | "sharedUp" | "sharedDown" | "sharedRouter"> => ({
  sharedGate: `${prefix}.gate_proj.weight`,
  sharedUp: `${prefix}.up_proj.weight`,
  sharedDown: `${prefix}.down_proj.weight`,
  sharedRouter: null,
});

/** DeepSeek-V3's experts. */
const routed: NameTable = {
  parts: {
    ...qwenMoe.parts,
    routerCorrection: `${layer}.mlp.gate.e_score_correction_bias`,
    ...sharedNames(`${layer}.mlp.shared_experts`),
  },
  experts: qwenMoe.experts,
};

/** `placement.ts` says which rows are whose. */
const deepseekV3: NameTable = {
  parts: {
    ...routed.parts,
    qDown: `${attention}.q_a_proj.weight`,
    qLatentNorm: `${attention}.q_a_layernorm.weight`,
    q: `${attention}.q_b_proj.weight`,
    kvDown: `${attention}.kv_a_proj_with_mqa.weight`,
    kRope: `${attention}.kv_a_proj_with_mqa.weight`,
    kvLatentNorm: `${attention}.kv_a_layernorm.weight`,
    k: `${attention}.kv_b_proj.weight`,
    v: `${attention}.kv_b_proj.weight`,
  },
  experts: routed.experts,
};

const hyV3: NameTable = {
  parts: {
    ...routed.parts,
    router: `${layer}.mlp.router.gate.weight`,
    routerCorrection: `${layer}.mlp.expert_bias`,
    ...sharedNames(`${layer}.mlp.shared_mlp`),
  },
  experts: routed.experts,
};

const hunyuanV1Moe: NameTable = {
  parts: {
    ...qwenMoe.parts,
    ...hunyuanNorms,
    router: `${layer}.mlp.gate.wg.weight`,
    ...sharedNames(`${layer}.mlp.shared_mlp`),
  },
  experts: qwenMoe.experts,
};

const dbrxBlock = "transformer.blocks.{layer}";
const dbrxAttention = `${dbrxBlock}.norm_attn_norm`;
const dbrxExperts = `${dbrxBlock}.ffn.experts.mlp`;

/** Fused: `placement.ts` says which part of the tensor is whose. */
const dbrx: NameTable = {
  parts: {
    ...llamaParts,
    ...noDenseFfn,
    embed: "transformer.wte.weight",
    inputNorm: `${dbrxAttention}.norm_1.weight`,
    q: `${dbrxAttention}.attn.Wqkv.weight`,
    k: `${dbrxAttention}.attn.Wqkv.weight`,
    v: `${dbrxAttention}.attn.Wqkv.weight`,
    o: `${dbrxAttention}.attn.out_proj.weight`,
    ffnNorm: `${dbrxAttention}.norm_2.weight`,
    router: `${dbrxBlock}.ffn.router.layer.weight`,
    finalNorm: "transformer.norm_f.weight",
  },
  experts: { gate: `${dbrxExperts}.w1`, up: `${dbrxExperts}.v1`, down: `${dbrxExperts}.w2` },
};

const gpt2Layer = "transformer.h.{layer}";

/** Stored [in, out], query, key and value in one: `placement.ts` says which columns are whose. */
const gpt2: NameTable = {
  parts: {
    ...llamaParts,
    embed: "transformer.wte.weight",
    positions: "transformer.wpe.weight",
    inputNorm: `${gpt2Layer}.ln_1.weight`,
    inputNormBias: `${gpt2Layer}.ln_1.bias`,
    q: `${gpt2Layer}.attn.c_attn.weight`,
    qBias: `${gpt2Layer}.attn.c_attn.bias`,
    k: `${gpt2Layer}.attn.c_attn.weight`,
    kBias: `${gpt2Layer}.attn.c_attn.bias`,
    v: `${gpt2Layer}.attn.c_attn.weight`,
    vBias: `${gpt2Layer}.attn.c_attn.bias`,
    o: `${gpt2Layer}.attn.c_proj.weight`,
    oBias: `${gpt2Layer}.attn.c_proj.bias`,
    ffnNorm: `${gpt2Layer}.ln_2.weight`,
    ffnNormBias: `${gpt2Layer}.ln_2.bias`,
    gate: null,
    gateBias: null,
    up: `${gpt2Layer}.mlp.c_fc.weight`,
    upBias: `${gpt2Layer}.mlp.c_fc.bias`,
    down: `${gpt2Layer}.mlp.c_proj.weight`,
    downBias: `${gpt2Layer}.mlp.c_proj.bias`,
    finalNorm: "transformer.ln_f.weight",
    finalNormBias: "transformer.ln_f.bias",
  },
  experts: null,
};

const hyperclovax: NameTable = {
  parts: {
    ...llamaParts,
    postAttentionNorm: `${layer}.post_norm1.weight`,
    postFfnNorm: `${layer}.post_norm2.weight`,
  },
  experts: null,
};

const vaultgemma: NameTable = { parts: { ...llamaParts, ffnNorm: postNorms.parts.ffnNorm }, experts: null };

const xielu = `${layer}.mlp.act_fn`;

const apertus: NameTable = {
  parts: {
    ...llamaParts,
    inputNorm: `${layer}.attention_layernorm.weight`,
    ffnNorm: `${layer}.feedforward_layernorm.weight`,
    gate: null,
    gateBias: null,
    activationP: `${xielu}.alpha_p`,
    activationN: `${xielu}.alpha_n`,
    activationBeta: `${xielu}.beta`,
    activationEps: `${xielu}.eps`,
  },
  experts: null,
};

const falconAttention = `${gpt2Layer}.self_attention`;
const falconFused = `${falconAttention}.query_key_value`;

/** Fused: `placement.ts` says which rows are whose. */
const falcon: NameTable = {
  parts: {
    ...gpt2.parts,
    embed: "transformer.word_embeddings.weight",
    positions: null,
    inputNorm: `${gpt2Layer}.input_layernorm.weight`,
    inputNormBias: `${gpt2Layer}.input_layernorm.bias`,
    q: `${falconFused}.weight`,
    qBias: `${falconFused}.bias`,
    k: `${falconFused}.weight`,
    kBias: `${falconFused}.bias`,
    v: `${falconFused}.weight`,
    vBias: `${falconFused}.bias`,
    o: `${falconAttention}.dense.weight`,
    oBias: `${falconAttention}.dense.bias`,
    ffnNorm: `${gpt2Layer}.post_attention_layernorm.weight`,
    ffnNormBias: `${gpt2Layer}.post_attention_layernorm.bias`,
    up: `${gpt2Layer}.mlp.dense_h_to_4h.weight`,
    upBias: `${gpt2Layer}.mlp.dense_h_to_4h.bias`,
    down: `${gpt2Layer}.mlp.dense_4h_to_h.weight`,
    downBias: `${gpt2Layer}.mlp.dense_4h_to_h.bias`,
  },
  experts: null,
};

/** Falcon 40B and its kin, with a norm in front of attention and one in front of the FFN. */
const falconTwoNorms: NameTable = {
  parts: {
    ...falcon.parts,
    inputNorm: `${gpt2Layer}.ln_attn.weight`,
    inputNormBias: `${gpt2Layer}.ln_attn.bias`,
    ffnNorm: `${gpt2Layer}.ln_mlp.weight`,
    ffnNormBias: `${gpt2Layer}.ln_mlp.bias`,
  },
  experts: null,
};

const optLayer = "model.decoder.layers.{layer}";

const opt: NameTable = {
  parts: {
    ...llamaParts,
    embed: "model.decoder.embed_tokens.weight",
    positions: "model.decoder.embed_positions.weight",
    inputNorm: `${optLayer}.self_attn_layer_norm.weight`,
    inputNormBias: `${optLayer}.self_attn_layer_norm.bias`,
    q: `${optLayer}.self_attn.q_proj.weight`,
    qBias: `${optLayer}.self_attn.q_proj.bias`,
    k: `${optLayer}.self_attn.k_proj.weight`,
    kBias: `${optLayer}.self_attn.k_proj.bias`,
    v: `${optLayer}.self_attn.v_proj.weight`,
    vBias: `${optLayer}.self_attn.v_proj.bias`,
    o: `${optLayer}.self_attn.out_proj.weight`,
    oBias: `${optLayer}.self_attn.out_proj.bias`,
    ffnNorm: `${optLayer}.final_layer_norm.weight`,
    ffnNormBias: `${optLayer}.final_layer_norm.bias`,
    gate: null,
    gateBias: null,
    up: `${optLayer}.fc1.weight`,
    upBias: `${optLayer}.fc1.bias`,
    down: `${optLayer}.fc2.weight`,
    downBias: `${optLayer}.fc2.bias`,
    finalNorm: "model.decoder.final_layer_norm.weight",
    finalNormBias: "model.decoder.final_layer_norm.bias",
  },
  experts: null,
};

const mptLayer = "transformer.blocks.{layer}";

/** Fused: `placement.ts` says which rows are whose. */
const mpt: NameTable = {
  parts: {
    ...llamaParts,
    embed: "transformer.wte.weight",
    inputNorm: `${mptLayer}.norm_1.weight`,
    q: `${mptLayer}.attn.Wqkv.weight`,
    k: `${mptLayer}.attn.Wqkv.weight`,
    v: `${mptLayer}.attn.Wqkv.weight`,
    o: `${mptLayer}.attn.out_proj.weight`,
    ffnNorm: `${mptLayer}.norm_2.weight`,
    gate: null,
    gateBias: null,
    up: `${mptLayer}.ffn.up_proj.weight`,
    down: `${mptLayer}.ffn.down_proj.weight`,
    finalNorm: "transformer.norm_f.weight",
  },
  experts: null,
};

const gptj: NameTable = {
  parts: {
    ...gpt2.parts,
    positions: null,
    q: `${gpt2Layer}.attn.q_proj.weight`,
    qBias: null,
    k: `${gpt2Layer}.attn.k_proj.weight`,
    kBias: null,
    v: `${gpt2Layer}.attn.v_proj.weight`,
    vBias: null,
    o: `${gpt2Layer}.attn.out_proj.weight`,
    oBias: null,
    ffnNorm: null,
    ffnNormBias: null,
    up: `${gpt2Layer}.mlp.fc_in.weight`,
    upBias: `${gpt2Layer}.mlp.fc_in.bias`,
    down: `${gpt2Layer}.mlp.fc_out.weight`,
    downBias: `${gpt2Layer}.mlp.fc_out.bias`,
    headBias: "lm_head.bias",
  },
  experts: null,
};

const codegenFused = `${gpt2Layer}.attn.qkv_proj.weight`;

/** Fused: `placement.ts` says which rows are whose. */
const codegen: NameTable = {
  parts: { ...gptj.parts, q: codegenFused, k: codegenFused, v: codegenFused },
  experts: null,
};

const phi: NameTable = {
  parts: {
    ...llamaParts,
    ...layerNormBiases,
    o: `${attention}.dense.weight`,
    oBias: `${attention}.dense.bias`,
    ffnNorm: null,
    ffnNormBias: null,
    gate: null,
    gateBias: null,
    up: `${layer}.mlp.fc1.weight`,
    upBias: `${layer}.mlp.fc1.bias`,
    down: `${layer}.mlp.fc2.weight`,
    downBias: `${layer}.mlp.fc2.bias`,
    finalNorm: "model.final_layernorm.weight",
    finalNormBias: "model.final_layernorm.bias",
    headBias: "lm_head.bias",
  },
  experts: null,
};

const neoAttention = `${gpt2Layer}.attn.attention`;

const gptNeo: NameTable = {
  parts: {
    ...gpt2.parts,
    q: `${neoAttention}.q_proj.weight`,
    qBias: null,
    k: `${neoAttention}.k_proj.weight`,
    kBias: null,
    v: `${neoAttention}.v_proj.weight`,
    vBias: null,
    o: `${neoAttention}.out_proj.weight`,
    oBias: `${neoAttention}.out_proj.bias`,
  },
  experts: null,
};

const tables: Readonly<Record<Family, NameTable>> = {
  upcycle,
  llama: dense,
  mistral: dense,
  qwen2: dense,
  qwen3: dense,
  nemotron,
  starcoder2,
  stablelm,
  cohere: dense,
  phi3,
  gpt_neox: gptNeox,
  gemma: dense,
  gemma2: postNorms,
  gemma3_text: postNorms,
  granite: dense,
  smollm3: dense,
  glm,
  glm4,
  seed_oss: dense,
  arcee: dense,
  exaone4: postNorms,
  cohere2: dense,
  ernie4_5: dense,
  hunyuan_v1_dense: hunyuanV1Dense,
  helium: dense,
  ministral: dense,
  ministral3: dense,
  apertus,
  cwm: dense,
  jais2: nemotron,
  hyperclovax,
  vaultgemma,
  falcon,
  opt,
  mpt,
  gptj,
  codegen,
  phi,
  gpt_neo: gptNeo,
  gpt_bigcode: gpt2,
  olmo2: postNorms,
  olmo3: postNorms,
  olmo: dense,
  mixtral,
  qwen2_moe: qwenMoe,
  qwen3_moe: qwenMoe,
  olmoe: qwenMoe,
  flex_olmo: flexOlmo,
  mellum: qwenMoe,
  dots1: routed,
  glm4_moe: routed,
  solar_open: routed,
  hy_v3: hyV3,
  hunyuan_v1_moe: hunyuanV1Moe,
  deepseek_v3: deepseekV3,
  granitemoe: graniteMoe,
  granitemoe_swa: graniteMoeSwa,
  phimoe,
  ernie4_5_moe: ernie45Moe,
  lfm2_moe: lfm2Moe,
  gpt_oss: gptOss,
  dbrx,
  gpt2,
};

/** Which of a family's two forms of names. */
export type NameForm =
  /** Of files: what `save_pretrained` writes. */
  | "files"
  /**
   * Of transformers 5's modules: what `state_dict()` gives, FSDP saves, and `save_original_format=False` writes.
   * Experts of a layer are two tensors.
   */
  | "modules";

const moduleExperts = (prefix: string): NameTable["experts"] => ({
  gate: `${prefix}.gate_up_proj`,
  up: `${prefix}.gate_up_proj`,
  down: `${prefix}.down_proj`,
});

/** What differs in the modules of a class whose files have a tensor for each expert (`conversion_mapping.py`, 5.18). */
const modules: Readonly<Partial<Record<Family, Partial<NameTable>>>> = {
  gpt_neox: { parts: { ...gptNeox.parts, head: llamaParts.head } },
  mixtral: { parts: { ...mixtral.parts, router: qwenMoe.parts.router }, experts: moduleExperts(ossExperts) },
  phimoe: { parts: { ...phimoe.parts, router: `${layer}.mlp.router.weight` }, experts: moduleExperts(ossExperts) },
  granitemoe: {
    parts: { ...graniteMoe.parts, router: `${blockSparse}.router.weight` },
    experts: moduleExperts(`${blockSparse}.experts`),
  },
  hy_v3: {
    parts: {
      ...hyV3.parts,
      router: qwenMoe.parts.router,
      routerCorrection: `${layer}.mlp.e_score_correction_bias`,
      ...sharedNames(`${layer}.mlp.shared_experts`),
    },
    experts: moduleExperts(ossExperts),
  },
  ernie4_5_moe: {
    parts: { ...ernie45Moe.parts, routerCorrection: `${layer}.mlp.gate.moe_statics.e_score_correction_bias` },
    experts: moduleExperts(ossExperts),
  },
  lfm2_moe: { experts: moduleExperts(`${lfm2Ffn}.experts`) },
  ...Object.fromEntries(
    (
      [
        "qwen2_moe",
        "qwen3_moe",
        "olmoe",
        "flex_olmo",
        "mellum",
        "dots1",
        "glm4_moe",
        "solar_open",
        "hunyuan_v1_moe",
        "deepseek_v3",
      ] satisfies Family[]
    ).map((family) => [family, { experts: moduleExperts(ossExperts) }]),
  ),
};

/** A slot with its names. */
export interface NamedSlot {
  readonly slot: Slot;
  /** Names of the stored tensors that hold it: one, or several one after the other. */
  readonly names: readonly string[];
}

/** DeepSeek-V3 without a query latent has queries under their usual name. */
const directQueries: NameTable = { ...deepseekV3, parts: { ...deepseekV3.parts, q: llamaParts.q } };

/** The names that a family's files use. */
function filesTable({ family, attn, block }: DecoderSpec): NameTable {
  if (family === "deepseek_v3" && attn.latent?.queryRank === null) return directQueries;
  return family === "falcon" && block === "parallel" ? falconTwoNorms : tables[family];
}

function tableOf(spec: DecoderSpec, form: NameForm): NameTable {
  const table = filesTable(spec);
  return form === "files" ? table : { ...table, ...modules[spec.family] };
}

/**
 * The Hugging Face names of the tensors that hold one slot, in the order of its rows; nearly always one. Asking for a
 * part that the family does not have is a defect of the caller.
 */
export function tensorNames(spec: DecoderSpec, at: SlotAt, form: NameForm = "files"): string[] {
  const table = tableOf(spec, form);
  const template = at.expert === undefined ? table.parts[at.part] : table.experts?.[at.part as ExpertPart];
  if (template === null || template === undefined)
    throw new Error(`${spec.family} has no name for ${JSON.stringify(at)}`);
  const name = template.replace("{layer}", String(at.layer)).replace("{expert}", String(at.expert));
  if (!name.includes("{head}")) return [name];
  const { heads, kvHeads } = spec.attn;
  return Array.from({ length: at.part === "kNorm" ? kvHeads : heads }, (_, head) =>
    name.replace("{head}", String(head)),
  );
}

/** Every slot of a decoder with its names, in write order. */
export function namedSlots(spec: DecoderSpec, form: NameForm = "files"): NamedSlot[] {
  return slotsOf(spec).map((slot) => ({ slot, names: tensorNames(spec, slot.at, form) }));
}

/** Whether transformers 5's modules hold all experts of a layer in two tensors where the family's files do not. */
export function packsInModules({ family }: DecoderSpec): boolean {
  return modules[family]?.experts != null;
}

/** Whether the family's modules have other names than its files. */
export function hasModuleNames({ family }: DecoderSpec): boolean {
  return modules[family] !== undefined;
}

/**
 * Buffers that old checkpoints store although they are computed from the config (rope's, and the causal masks of
 * GPT-NeoX and GPT-2): nobody reads them, nobody misses them.
 */
export function isComputedBuffer(name: string): boolean {
  return /\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$|\.(attention|attn)\.(bias|masked_bias)$/.test(name);
}
