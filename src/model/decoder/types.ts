/**
 * `DecoderSpec` says everything about a decoder that its mathematics needs, as plain JSON-able data.
 * Tensor names, network, cost and checkpoint configs are interpreters of it; none of them adds knowledge.
 */

/** Every family that can be read and written. */
export const families = [
  "upcycle",
  "llama",
  "mistral",
  "qwen2",
  "qwen3",
  "nemotron",
  "starcoder2",
  "stablelm",
  "cohere",
  "phi3",
  "gpt_neox",
  "gemma",
  "gemma2",
  "gemma3_text",
  "granite",
  "smollm3",
  "glm",
  "glm4",
  "seed_oss",
  "arcee",
  "exaone4",
  "cohere2",
  "ernie4_5",
  "hunyuan_v1_dense",
  "helium",
  "ministral",
  "ministral3",
  "apertus",
  "cwm",
  "jais2",
  "hyperclovax",
  "vaultgemma",
  "falcon",
  "opt",
  "mpt",
  "gptj",
  "codegen",
  "phi",
  "gpt_neo",
  "gpt_bigcode",
  "olmo2",
  "olmo3",
  "olmo",
  "mixtral",
  "qwen2_moe",
  "qwen3_moe",
  "olmoe",
  "flex_olmo",
  "mellum",
  "dots1",
  "glm4_moe",
  "solar_open",
  "hy_v3",
  "hunyuan_v1_moe",
  "deepseek_v3",
  "granitemoe",
  "granitemoe_swa",
  "phimoe",
  "ernie4_5_moe",
  "lfm2_moe",
  "gpt_oss",
  "dbrx",
  "gpt2",
] as const;
/**
 * Hugging Face `model_type`, or `upcycle`, our own format: chooses a naming table and a config dialect, nothing else.
 */
export type Family = (typeof families)[number];

/** Our own format, which holds every decoder description and which nothing but this project loads. */
export const ownFamily = "upcycle" satisfies Family;

/** How rotary frequencies are scaled for long contexts. */
export type RopeScaling =
  | { readonly kind: "none" }
  | { readonly kind: "linear"; readonly factor: number }
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    }
  /** YaRN (Peng et al. 2023, arXiv 2309.00071): interpolates slow waves, keeps fast ones. */
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly originalMaxPositions: number;
      /** The ramp's ends are rounded to whole dimensions. */
      readonly truncate: boolean;
      /** Factor on cos and sin. */
      readonly attentionFactor: number;
    }
  /** LongRoPE (Ding et al. 2024, arXiv 2402.13753): every frequency is divided by a factor of its own. */
  | {
      readonly kind: "longrope";
      /** [rotary / 2] each; `long` where the sequence is longer than `originalMaxPositions`. */
      readonly short: readonly number[];
      readonly long: readonly number[];
      readonly originalMaxPositions: number;
      /** Factor on cos and sin. */
      readonly attentionFactor: number;
    };

/** Rotary position embedding of one layer. */
export interface Rope {
  readonly theta: number;
  readonly scaling: RopeScaling;
  /** How many of each head's first elements turn. */
  readonly rotary: number;
  /** Pairs are neighbours (2i, 2i + 1) instead of halves (i, i + rotary / 2). */
  readonly interleaved: boolean;
}

/** A norm over the hidden size, a head, or all heads. */
export interface NormSpec {
  /** `rms`: x / rms(x); `layer`: (x - mean) / std. */
  readonly kind: "rms" | "layer";
  /** How the stored weight acts: as it is, as 1 + weight (Gemma), or there is none (OLMo). */
  readonly weight: "scale" | "one-plus" | "none";
  readonly bias: boolean;
  readonly eps: number;
}

/**
 * Norm on queries and keys. `head`: over each head, all heads share the weight (Qwen3); `own-head`: over each head with
 * a weight of its own (StableLM 2 12B, Cohere); `full`: over all heads together (OLMo 2).
 */
export interface QkNorm {
  readonly span: "head" | "own-head" | "full";
  readonly norm: NormSpec;
  /** Behind rope instead of before it (HunYuan). */
  readonly afterRope: boolean;
}

/**
 * Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values come from a normalised
 * latent of `kvRank`, queries from one of `queryRank` (null: straight from the hidden states). Each head's query and
 * key are `headDim - ropeDim` elements without positions, then `ropeDim` with rope; the latter are one key for all
 * heads.
 */
export interface LatentAttention {
  readonly queryRank: number | null;
  readonly kvRank: number;
  readonly ropeDim: number;
  /** Size of a head's value. */
  readonly valueDim: number;
  /** Norm of both latents. */
  readonly norm: NormSpec;
}

/**
 * Activation functions by their usual names; `geluTanh` is the approximation by tanh, `relu2` the square of ReLU.
 * `xielu` (Huang and Schlag 2024, arXiv 2411.13010) has three learnt or stored numbers in each layer, which all of a
 * layer's experts share: p = softplus(alphaP), n = beta + softplus(alphaN); for x > 0 p x^2 + beta x, else
 * n (expm1(x) - x) + beta x.
 */
export type ActivationKind = "silu" | "gelu" | "geluTanh" | "relu" | "relu2" | "xielu";

/**
 * Attention with linear biases (Press et al. 2021, arXiv 2108.12409): each head adds slope * (position of the key) to
 * its scores, which is a slope times the distance up to a constant that the softmax takes away.
 */
export interface Alibi {
  /** By head. */
  readonly slopes: readonly number[];
  /**
   * Slopes and their products with positions are rounded to bfloat16, so that biases depend on where a text stands
   * (Falcon). Each key has one head of queries.
   */
  readonly rounded: boolean;
  /** Biases are multiplied by the attention's scale as the scores are (Falcon). */
  readonly scaled: boolean;
}

/**
 * Queries are multiplied by 1 + beta * ln(1 + floor(position / originalMaxPositions)), so that long texts do not level
 * the softmax (Llama 4, Ministral 3).
 */
export interface LengthScale {
  readonly beta: number;
  readonly originalMaxPositions: number;
}

/** Attention, the same in every layer but for window and rope. */
export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly qkNorm: QkNorm | null;
  /** Biases on the query, key and value projections. */
  readonly qkvBias: boolean;
  /** Bias on the output projection. */
  readonly outBias: boolean;
  /** Factor on the scores, usually headDim^-0.5. */
  readonly scale: number;
  /** Scores become softcap * tanh(score / softcap). */
  readonly softcap: number | null;
  /**
   * Queries and keys (before rope; behind a `qkNorm` that stands before rope) and values are limited to [-clip, clip].
   */
  readonly clip: number | null;
  /** Null: scores do not depend on positions but by rope. */
  readonly alibi: Alibi | null;
  /** Null: queries are the same at every position. */
  readonly lengthScale: LengthScale | null;
  /** Each head's softmax has one more, learnt logit, whose share of the probability is dropped (gpt-oss). */
  readonly sinks: boolean;
  /**
   * Null: queries, keys and values are projected from the hidden states. With it `kvHeads` is `heads`, and there are no
   * biases and no `qkNorm`.
   */
  readonly latent: LatentAttention | null;
}

/**
 * `softmax-topk`: softmax over all experts, keep the top k, not renormalised.
 * `topk-softmax`: softmax over the kept logits (equal to renormalising after the first order).
 */
export type RouterOrder = "softmax-topk" | "topk-softmax";

/** The FFN of a dense layer. */
export interface DenseFfn {
  readonly kind: "dense";
  /** FFN hidden size. */
  readonly ffnDim: number;
  readonly bias: boolean;
  readonly activation: ActivationKind;
  /** Gated: down(act(gate x) * up x); else down(act(up x)). */
  readonly gated: boolean;
}

/**
 * From router logits to chosen experts and their weights: scores = `score`(logits); choice = scores + correction bias,
 * limited to the best groups; the top T by choice are kept; weights = their scores (without the bias), renormalised if
 * asked for, times `scaling`.
 */
export interface RouterSpec {
  /**
   * `sparsemixer` (Phi-3.5-MoE; Liu et al. 2024, arXiv 2409.12136, as transformers evaluates it): T is 2; the two
   * largest logits in turn, each weighted by the softmax over the logits within 2 * `jitter` of it.
   */
  readonly score: "softmax" | "sigmoid" | "sparsemixer";
  /** Parameter of `sparsemixer`, see there; 0 for other scores. */
  readonly jitter: number;
  /** Kept weights are divided by max(their sum + `plus`, `atLeast`); null: they stay. */
  readonly renormalise: { readonly plus: number; readonly atLeast: number } | null;
  /**
   * Experts in `count` equal groups, ranked by the sum of their two best choices; only the best `kept` groups may be
   * chosen from (DeepSeek-V3).
   */
  readonly groups: { readonly count: number; readonly kept: number } | null;
  /**
   * A stored vector [E] is added to the scores for the choice only (Wang et al. 2024, arXiv 2408.15664). No gradient
   * reaches it.
   */
  readonly correctionBias: boolean;
  /** Factor on the weights (`routed_scaling_factor`). */
  readonly scaling: number;
  /** The router's linear layer has a bias (gpt-oss). */
  readonly bias: boolean;
}

/**
 * Inputs of the gated unit are limited and its pieces changed (gpt-oss): gate' = min(gate, limit), up' = clamp(up,
 * +-limit); gate' sigmoid(alpha gate') (up' + 1).
 */
export interface ClampedGlu {
  readonly alpha: number;
  readonly limit: number;
}

/** The FFN of a mixture-of-experts layer. */
export interface MoeFfn {
  readonly kind: "moe";
  /** Hidden size of one expert. */
  readonly ffnDim: number;
  readonly activation: ActivationKind;
  /** Experts and shared expert: down(act(gate x) * up x); else down(act(up x)). */
  readonly gated: boolean;
  /** Routed experts have biases. The shared expert has none. */
  readonly bias: boolean;
  /** If set, it takes the place of `activation` in routed experts. */
  readonly clampedGlu: ClampedGlu | null;
  /** Number of routed experts (E*G). */
  readonly experts: number;
  /** Experts per token (T). */
  readonly topK: number;
  readonly router: RouterSpec;
  /** Always-on expert; `gated` multiplies its output by the sigmoid of a learnt linear gate (Qwen2-MoE). */
  readonly shared: { readonly ffnDim: number; readonly gated: boolean } | null;
}

/** The FFN of one layer. */
export type Ffn = DenseFfn | MoeFfn;

/** What a layer has of its own. */
export interface LayerSpec {
  /**
   * Sliding-window size in tokens (a query sees itself and `window - 1` tokens before it), or null for full attention.
   */
  readonly window: number | null;
  /** Null: this layer's attention knows no positions. */
  readonly rope: Rope | null;
  readonly ffn: Ffn;
}

/**
 * Where norms stand. `pre`: x += f(norm(x)). `post`: x += norm(f(x)) (OLMo 2). `sandwich`: x += norm(f(norm(x))) (Gemma
 * 2). `parallel`: x += attention(norm(x)) + ffn(norm'(x)) (GPT-NeoX); `parallel-shared`: both read one norm (Cohere).
 */
export type BlockKind = "pre" | "post" | "sandwich" | "parallel" | "parallel-shared";

/** Constant factors, 1 where a family has none. */
interface Multipliers {
  /** Factor on the embeddings' output. */
  readonly embedding: number;
  /** Factor on what attention and FFN add to the residual stream. */
  readonly residual: number;
  /** Factor on the logits. */
  readonly logits: number;
}

/** Token ids with a meaning; null where there is none. */
export interface SpecialTokens {
  readonly bos: number | null;
  readonly eos: readonly number[];
  readonly pad: number | null;
}

/** A decoder, dense or MoE. Serialised, the hidden size of an FFN is called `inner` (`record.ts`). */
export interface DecoderSpec {
  readonly family: Family;
  readonly vocab: number;
  readonly hidden: number;
  /** The output head is the embedding matrix. */
  readonly tiedHead: boolean;
  readonly norm: NormSpec;
  readonly block: BlockKind;
  readonly multipliers: Multipliers;
  /** Logits become softcap * tanh(logit / softcap). */
  readonly logitSoftcap: number | null;
  readonly maxPositions: number;
  /** A learnt vector for each of `maxPositions` positions is added to the embeddings (GPT-2). */
  readonly learnedPositions: boolean;
  /** Rows in front of the first position's vector that nobody reads (2 in OPT). */
  readonly positionsOffset: number;
  /** A learnt number for each token is added to the logits (GPT-J, Phi). */
  readonly headBias: boolean;
  readonly attn: AttentionSpec;
  /** One entry per block: dense and MoE may mix. */
  readonly layers: readonly LayerSpec[];
  readonly tokens: SpecialTokens;
  /** Standard deviation for freshly drawn weights (`initializer_range`). */
  readonly initStd: number;
  /** Coefficient of the load-balancing auxiliary loss; 0 for dense models. */
  readonly auxLossCoef: number;
}

/** RMSNorm with a plain weight, as Llama has it. */
export function rmsNorm(eps: number): NormSpec {
  return { kind: "rms", weight: "scale", bias: false, eps };
}

/**
 * A softmax router of either order: `renormalise` set is `topk-softmax` (Mixtral), null is `softmax-topk` (Qwen2-MoE as
 * released). Which of them a checkpoint has, its family's dialect reads from config.json (`families/experts.ts`,
 * `readSoftmaxRouter`).
 */
export function softmaxRouter(order: RouterOrder): RouterSpec {
  const renormalise = order === "topk-softmax" ? { plus: 0, atLeast: 0 } : null;
  return { score: "softmax", jitter: 0, renormalise, groups: null, correctionBias: false, scaling: 1, bias: false };
}

/**
 * The router of DeepSeek-V3 (arXiv 2412.19437, equations 13-16): sigmoid scores, a correction bias, weights
 * renormalised (plus 1e-20) and scaled.
 */
export function sigmoidRouter({
  groups,
  renormalised,
  scaling,
}: {
  groups: RouterSpec["groups"];
  renormalised: boolean;
  scaling: number;
}): RouterSpec {
  const renormalise = renormalised ? { plus: 1e-20, atLeast: 0 } : null;
  return { score: "sigmoid", jitter: 0, renormalise, groups, correctionBias: true, scaling, bias: false };
}

/**
 * The order of a router, the inverse of `softmaxRouter`: renormalised weights are `topk-softmax`, since for softmax
 * scores that is the softmax over the chosen logits.
 */
export function routerOrder(router: RouterSpec): RouterOrder {
  return router.renormalise === null ? "softmax-topk" : "topk-softmax";
}

/** Experts like a Llama-like FFN: gated, without biases. */
export const plainExperts = { gated: true, bias: false, clampedGlu: null } as const satisfies Partial<MoeFfn>;

/** What most families share: pre-norm blocks, no multipliers, no caps, no learnt positions. */
export const plainBlocks = {
  block: "pre",
  multipliers: { embedding: 1, residual: 1, logits: 1 },
  logitSoftcap: null,
  learnedPositions: false,
  positionsOffset: 0,
  headBias: false,
} as const satisfies Partial<DecoderSpec>;

/** True if any block is a mixture of experts. */
export function isMoe(spec: Pick<DecoderSpec, "layers">): boolean {
  return spec.layers.some((layer) => layer.ffn.kind === "moe");
}
