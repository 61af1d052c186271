/**
 * Which families Megatron-Core can compute, as data for the documentation: what stands in the way of each is found from
 * its description (`megatron.ts`), and a test holds this table to that.
 */
import type { Family, ownFamily } from "./types.js";

interface FamilySupport {
  /** Why a usual model of the family cannot be held; null: it can. */
  readonly obstacle: string | null;
  /** What else a user should know. */
  readonly note: string;
}

const plain: FamilySupport = { obstacle: null, note: "weights come back byte for byte" };
const cannot = (obstacle: string): FamilySupport => ({ obstacle, note: "" });

const sideBySide = "it has attention and FFN side by side, Megatron-Core's GPT has norms before each part alone";
const behindOne =
  "it has attention and FFN side by side behind one norm, Megatron-Core's GPT has norms before each part alone";
const postNorm = "it has norms behind attention and FFN, Megatron-Core's GPT has norms before each part alone";
const bothSides =
  "it has norms before and behind attention and FFN, Megatron-Core's GPT has norms before each part alone";
const multiplied = "what layers add is multiplied by 0.22, which no setting says";
const otherActivation = (words: string): string =>
  `its FFN is ${words}, Megatron-Core's arguments know SwiGLU gated, and GELU, tanh GELU and squared ReLU not gated`;

/** Factors are those of the small models in `test/golden`. */
export const megatronFamilies: Readonly<Record<Exclude<Family, typeof ownFamily>, FamilySupport>> = {
  llama: { ...plain, note: "Llama 3's rope scaling too, over 8192 positions with factors 1 and 4" },
  mistral: plain,
  qwen2: plain,
  qwen3: plain,
  nemotron: { ...plain, note: "norms of the form 1 + weight need Transformer Engine (not run)" },
  starcoder2: plain,
  stablelm: { ...plain, note: "not with parallel blocks or norms for each head" },
  cohere: cannot(behindOne),
  phi3: { ...plain, note: "not with LongRoPE" },
  gpt_neox: cannot(sideBySide),
  gemma: cannot(otherActivation("a gated unit with geluTanh")),
  gemma2: cannot(bothSides),
  gemma3_text: cannot(bothSides),
  granite: cannot(multiplied),
  smollm3: { ...plain, note: "layers without positions by --no-rope-freq" },
  glm: { ...plain, note: "rope over neighbouring pairs by --rotary-interleaved" },
  glm4: cannot(bothSides),
  seed_oss: plain,
  arcee: plain,
  exaone4: cannot(postNorm),
  cohere2: cannot(behindOne),
  ernie4_5: plain,
  hunyuan_v1_dense: cannot("the norm of queries and keys stands behind rope"),
  helium: plain,
  ministral: plain,
  ministral3: cannot("queries are scaled by their position, which no setting says"),
  cwm: plain,
  jais2: plain,
  hyperclovax: cannot(bothSides),
  vaultgemma: cannot("its logits have a soft cap, which no setting says"),
  apertus: cannot(otherActivation("not gated with xielu")),
  falcon: cannot(sideBySide),
  opt: cannot("its learnt positions begin at row 2, Megatron-Core's at 0"),
  mpt: cannot("its LayerNorm has no bias, Megatron-Core's always has"),
  gptj: cannot(behindOne),
  codegen: cannot(behindOne),
  phi: cannot(behindOne),
  gpt_neo: cannot("some of its linear layers have biases and others have none"),
  gpt_bigcode: { ...plain, note: "tanh GELU by the fused kernel, which is the default" },
  olmo2: cannot(postNorm),
  olmo3: cannot(postNorm),
  olmo: cannot("its norms have no weights, Megatron-Core's always have"),
  mixtral: plain,
  qwen2_moe: plain,
  qwen3_moe: plain,
  olmoe: cannot("the norm of queries and keys is not one for each head alike"),
  flex_olmo: cannot(postNorm),
  mellum: plain,
  dots1: plain,
  glm4_moe: plain,
  solar_open: plain,
  hy_v3: plain,
  hunyuan_v1_moe: cannot("the norm of queries and keys stands behind rope"),
  deepseek_v3: {
    ...plain,
    note:
      "by --multi-latent-attention, which needs Transformer Engine (not run with it); YaRN over 4096 positions with " +
      "beta 32 and 1",
  },
  granitemoe: cannot(multiplied),
  granitemoe_swa: cannot(multiplied),
  phimoe: cannot("its router is a sparsemixer"),
  ernie4_5_moe: cannot("softmax scores have no expert bias in Megatron-Core"),
  lfm2_moe: cannot("Megatron-Core always divides sigmoid weights by their sum plus 1e-20"),
  gpt_oss: { ...plain, note: "sinks by --softmax-type learnable, the clamped unit by --quick-geglu; core 0.20" },
  dbrx: cannot("its LayerNorm has no bias, Megatron-Core's always has"),
  gpt2: { ...plain, note: "tanh GELU by the fused kernel, which is the default" },
};
