/** Tensor names of dense families whose files are laid out as Llama's. */
import { attention, layer, llamaParts, type NameTable } from "./name-table.js";

export const dense: NameTable = { parts: llamaParts, experts: null };

export const layerNormBiases = {
  inputNormBias: `${layer}.input_layernorm.bias`,
  ffnNormBias: `${layer}.post_attention_layernorm.bias`,
  finalNormBias: "model.norm.bias",
};

export const nemotron: NameTable = {
  parts: { ...llamaParts, ...layerNormBiases, gate: null, gateBias: null },
  experts: null,
};

/** Norms on queries and keys are a tensor for each head. */
export const stablelm: NameTable = {
  parts: {
    ...llamaParts,
    ...layerNormBiases,
    qNorm: `${attention}.q_layernorm.norms.{head}.weight`,
    kNorm: `${attention}.k_layernorm.norms.{head}.weight`,
  },
  experts: null,
};

export const starcoder2: NameTable = {
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
export const postNorms: NameTable = {
  parts: {
    ...llamaParts,
    postAttentionNorm: `${layer}.post_attention_layernorm.weight`,
    ffnNorm: `${layer}.pre_feedforward_layernorm.weight`,
    postFfnNorm: `${layer}.post_feedforward_layernorm.weight`,
  },
  experts: null,
};

/** Fused: `placement.ts` says which rows are whose. */
export const phi3: NameTable = {
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
export const glm: NameTable = {
  parts: { ...llamaParts, gate: `${layer}.mlp.gate_up_proj.weight`, up: `${layer}.mlp.gate_up_proj.weight` },
  experts: null,
};

export const glm4: NameTable = {
  parts: {
    ...glm.parts,
    postAttentionNorm: `${layer}.post_self_attn_layernorm.weight`,
    postFfnNorm: `${layer}.post_mlp_layernorm.weight`,
  },
  experts: null,
};

export const hunyuanNorms = {
  qNorm: `${attention}.query_layernorm.weight`,
  kNorm: `${attention}.key_layernorm.weight`,
};

export const hunyuanV1Dense: NameTable = { parts: { ...llamaParts, ...hunyuanNorms }, experts: null };

export const hyperclovax: NameTable = {
  parts: {
    ...llamaParts,
    postAttentionNorm: `${layer}.post_norm1.weight`,
    postFfnNorm: `${layer}.post_norm2.weight`,
  },
  experts: null,
};

export const vaultgemma: NameTable = { parts: { ...llamaParts, ffnNorm: postNorms.parts.ffnNorm }, experts: null };

const xielu = `${layer}.mlp.act_fn`;

export const apertus: NameTable = {
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
