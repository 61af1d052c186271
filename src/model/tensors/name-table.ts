/** What a table of tensor names is, and the names of Llama, from which most other families depart. */
import type { SlotPart } from "./slots.js";

/** A matrix or bias of an expert. */
export type ExpertPart = "gate" | "gateBias" | "up" | "upBias" | "down" | "downBias";

/** The names of one family. */
export interface NameTable {
  /** Null for parts the family does not have. */
  readonly parts: Readonly<Record<SlotPart, string | null>>;
  /** Names of the routed experts' tensors. */
  readonly experts: Readonly<Partial<Record<ExpertPart, string>>> | null;
}

export const layer = "model.layers.{layer}";

export const attention = `${layer}.self_attn`;

export const llamaParts: NameTable["parts"] = {
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
