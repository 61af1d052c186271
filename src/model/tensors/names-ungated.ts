/** Tensor names of dense families with a layout of their own: GPT-2, GPT-NeoX, Falcon, OPT, MPT, Phi and their kin. */
import { attention, layer, llamaParts, type NameTable } from "./name-table.js";
import { layerNormBiases } from "./names-dense.js";

const neoxLayer = "gpt_neox.layers.{layer}";

const neoxFused = `${neoxLayer}.attention.query_key_value`;

/** Fused: `placement.ts` says which rows are whose. */
export const gptNeox: NameTable = {
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

const gpt2Layer = "transformer.h.{layer}";

/** Stored [in, out], query, key and value in one: `placement.ts` says which columns are whose. */
export const gpt2: NameTable = {
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

const falconAttention = `${gpt2Layer}.self_attention`;

const falconFused = `${falconAttention}.query_key_value`;

/** Fused: `placement.ts` says which rows are whose. */
export const falcon: NameTable = {
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
export const falconTwoNorms: NameTable = {
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

export const opt: NameTable = {
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
export const mpt: NameTable = {
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

export const gptj: NameTable = {
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
export const codegen: NameTable = {
  parts: { ...gptj.parts, q: codegenFused, k: codegenFused, v: codegenFused },
  experts: null,
};

export const phi: NameTable = {
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

export const gptNeo: NameTable = {
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
