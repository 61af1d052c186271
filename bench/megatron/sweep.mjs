// The models and the batch of the sweep of layouts (arguments.mjs, planner.mjs). Needs no GPU.

const common = (tiny) => ({
  num_hidden_layers: tiny ? 4 : 8,
  vocab_size: tiny ? 512 : 32000,
  max_position_embeddings: tiny ? 64 : 2048,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  hidden_act: "silu",
});
const sized = (tiny, hidden, inner, heads, groups) => ({
  hidden_size: tiny ? 64 : hidden,
  intermediate_size: tiny ? 96 : inner,
  num_attention_heads: tiny ? 4 : heads,
  num_key_value_heads: tiny ? 2 : groups,
});

/**
 * A model of 2.4B parameters with experts and a dense one of 1.7B (`tiny`: ones that processors train). Megatron-LM
 * trains experts with tensor parallelism only with Transformer Engine.
 */
export const modelsOfSweep = (tiny = false) => ({
  moe: {
    layers: tiny ? 4 : 8,
    experts: 8,
    config: {
      model_type: "mixtral",
      architectures: ["MixtralForCausalLM"],
      ...sized(tiny, 2048, 5632, 16, 8),
      num_local_experts: 8,
      num_experts_per_tok: 2,
      ...common(tiny),
    },
  },
  dense: {
    layers: tiny ? 4 : 8,
    experts: 0,
    config: {
      model_type: "llama",
      architectures: ["LlamaForCausalLM"],
      ...sized(tiny, 4096, 11008, 32, 8),
      ...common(tiny),
    },
  },
});

/** The models as GPUs train them. */
export const sweepModels = modelsOfSweep();
/** Tokens of a sequence. */
export const sweepSequence = 2048;
/** Sequences of a step. */
export const sweepBatch = 16;
