/** The models, layouts and batches of the sweep (`sweep.mjs`), and of the earlier one on two GPUs. Needs no GPU. */

const common = {
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  hidden_act: "silu",
  vocab_size: 32000,
};
const llama = { model_type: "llama", architectures: ["LlamaForCausalLM"], ...common };
const mixtral = { model_type: "mixtral", architectures: ["MixtralForCausalLM"], ...common };

/** Tokens of a sequence, and sequences of a step. */
export const batchOf = (tiny) => (tiny ? { sequence: 64, sequences: 16 } : { sequence: 2048, sequences: 16 });

/**
 * A dense model of 1.0B parameters, and what `upcycle convert` makes of it: 5.9B parameters each. `tiny`: ones that
 * processors train.
 */
export function modelsOf(tiny) {
  const sizes = tiny
    ? { hidden_size: 64, num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 512 }
    : { hidden_size: 2048, num_hidden_layers: 14, num_attention_heads: 32, num_key_value_heads: 8 };
  const inner = tiny ? 128 : 8192;
  const upcycled = (experts, topK, size) => ({
    ...mixtral,
    ...sizes,
    ...(tiny ? { max_position_embeddings: 64 } : {}),
    intermediate_size: size,
    num_local_experts: experts,
    num_experts_per_tok: topK,
  });
  return {
    dense: { ...llama, ...sizes, ...(tiny ? { max_position_embeddings: 64 } : {}), intermediate_size: inner },
    e8g1t2: upcycled(8, 2, inner),
    e8g8t8: upcycled(64, 8, inner / 8),
  };
}

/** The recipes of the forms, as `upcycle convert` takes them. */
export const recipes = { e8g1t2: "E8G1T2", e8g8t8: "E8G8T8" };

/** The layouts that the forms start at, by the number of GPUs. */
export const layoutsOn = {
  2: { ep2: { ep: 2 }, pp2: { pp: 2 }, tp2: { tp: 2, etp: 1, ep: 2 }, etp2: { etp: 2 } },
  4: {
    ep4: { ep: 4 },
    tp2ep4: { tp: 2, ep: 4, etp: 1 },
    tp2pp2ep2: { tp: 2, pp: 2, ep: 2, etp: 1 },
    etp2: { ep: 2, etp: 2 },
  },
  8: {
    ep4: { ep: 4 },
    ep8: { ep: 8 },
    tp2ep4: { tp: 2, ep: 4, etp: 1 },
    tp2pp2ep2: { tp: 2, pp: 2, ep: 2, etp: 1 },
    etp2: { ep: 4, etp: 2 },
  },
};

/** The models of bench/results/2026-11-30-megatron-two.json, whose runs are named `moe-2ep2mb4`. */
export const earlierModels = {
  moe: {
    ...mixtral,
    ...{ hidden_size: 2048, intermediate_size: 5632, num_attention_heads: 16, num_key_value_heads: 8 },
    ...{ num_hidden_layers: 8, num_local_experts: 8, num_experts_per_tok: 2 },
  },
  dense: {
    ...llama,
    ...{ hidden_size: 4096, intermediate_size: 11008, num_attention_heads: 32, num_key_value_heads: 8 },
    num_hidden_layers: 8,
  },
};
