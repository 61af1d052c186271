/** Tensor names of families with experts. */
import { attention, layer, llamaParts, type NameTable } from "./name-table.js";
import { hunyuanNorms, layerNormBiases, postNorms } from "./names-dense.js";

export const mixtral: NameTable = {
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

export const blockSparse = `${layer}.block_sparse_moe`;

const noDenseFfn = { gate: null, gateBias: null, up: null, upBias: null, down: null, downBias: null };

/** Fused: `placement.ts` says which part of the tensor is whose. */
export const graniteMoe: NameTable = {
  parts: { ...llamaParts, ...noDenseFfn, router: `${blockSparse}.router.layer.weight` },
  experts: {
    gate: `${blockSparse}.input_linear.weight`,
    up: `${blockSparse}.input_linear.weight`,
    down: `${blockSparse}.output_linear.weight`,
  },
};

/** Fused: `placement.ts` says which part of the tensor is whose. */
export const graniteMoeSwa: NameTable = {
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

export const phimoe: NameTable = {
  parts: { ...mixtral.parts, ...layerNormBiases, headBias: "lm_head.bias" },
  experts: mixtral.experts,
};

export const qwenMoe: NameTable = {
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

export const flexOlmo: NameTable = {
  parts: { ...postNorms.parts, router: qwenMoe.parts.router },
  experts: qwenMoe.experts,
};

/** Our own format has a name for every part. */
export const upcycle: NameTable = {
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

export const ernie45Moe: NameTable = {
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

export const lfm2Ffn = `${layer}.feed_forward`;

export const lfm2Moe: NameTable = {
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

export const ossExperts = `${layer}.mlp.experts`;

/** Fused: `placement.ts` says which part of the tensor is whose. */
export const gptOss: NameTable = {
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

export const sharedNames = (
  prefix: string,
): Pick<NameTable["parts"], "sharedGate" | "sharedUp" | "sharedDown" | "sharedRouter"> => ({
  sharedGate: `${prefix}.gate_proj.weight`,
  sharedUp: `${prefix}.up_proj.weight`,
  sharedDown: `${prefix}.down_proj.weight`,
  sharedRouter: null,
});

/** DeepSeek-V3's experts. */
export const routed: NameTable = {
  parts: {
    ...qwenMoe.parts,
    routerCorrection: `${layer}.mlp.gate.e_score_correction_bias`,
    ...sharedNames(`${layer}.mlp.shared_experts`),
  },
  experts: qwenMoe.experts,
};

/** `placement.ts` says which rows are whose. */
export const deepseekV3: NameTable = {
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

export const hyV3: NameTable = {
  parts: {
    ...routed.parts,
    router: `${layer}.mlp.router.gate.weight`,
    routerCorrection: `${layer}.mlp.expert_bias`,
    ...sharedNames(`${layer}.mlp.shared_mlp`),
  },
  experts: routed.experts,
};

export const hunyuanV1Moe: NameTable = {
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
export const dbrx: NameTable = {
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
