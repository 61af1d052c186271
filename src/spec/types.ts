/**
 * `DecoderSpec` says everything about a decoder that its mathematics needs, as plain JSON-able data.
 * Tensor names, network, cost and checkpoint configs are interpreters of it; none of them adds knowledge.
 */

export const families = [
  "llama", "mistral", "qwen2", "qwen3", "nemotron", "starcoder2", "stablelm", "cohere", "phi3", "gpt_neox", "gemma", "gemma2", "gemma3_text", "granite",
  "smollm3", "olmo2", "olmo3", "olmo", "mixtral", "qwen2_moe", "qwen3_moe",
] as const;
/** Hugging Face `model_type`: chooses a naming table and a config dialect, nothing else. */
export type Family = (typeof families)[number];

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
    };

export interface Rope {
  readonly theta: number;
  readonly scaling: RopeScaling;
  /** How many of each head's first elements turn. */
  readonly rotary: number;
  /** Pairs are neighbours (2i, 2i + 1) instead of halves (i, i + rotary / 2). */
  readonly interleaved: boolean;
}

export interface NormSpec {
  /** `rms`: x / rms(x); `layer`: (x - mean) / std. */
  readonly kind: "rms" | "layer";
  /** How the stored weight acts: as it is, as 1 + weight (Gemma), or there is none (OLMo). */
  readonly weight: "scale" | "one-plus" | "none";
  readonly bias: boolean;
  readonly eps: number;
}

/** Norm on queries and keys: over each head (Qwen3) or over all heads together (OLMo 2), before rope. */
export interface QkNorm {
  readonly span: "head" | "full";
  readonly norm: NormSpec;
}

export type ActivationKind = "silu" | "gelu" | "geluTanh" | "relu" | "relu2";

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
  /** Projected queries, keys and values are limited to [-clip, clip]. */
  readonly clip: number | null;
}

/**
 * `softmax-topk`: softmax over all experts, keep the top k, not renormalised.
 * `topk-softmax`: softmax over the kept logits (equal to renormalising after the first order).
 */
export type RouterOrder = "softmax-topk" | "topk-softmax";

export interface DenseFfn {
  readonly kind: "dense";
  /** FFN hidden size. */
  readonly inner: number;
  readonly bias: boolean;
  readonly activation: ActivationKind;
  /** Gated: down(act(gate x) * up x); else down(act(up x)). */
  readonly gated: boolean;
}

export interface MoeFfn {
  readonly kind: "moe";
  /** Hidden size of one expert. Experts and shared expert are gated and have no biases. */
  readonly inner: number;
  readonly activation: ActivationKind;
  /** Number of routed experts (E*G). */
  readonly experts: number;
  /** Experts per token (T). */
  readonly topK: number;
  readonly order: RouterOrder;
  /** Always-on expert; `gated` multiplies its output by the sigmoid of a learnt linear gate (Qwen2-MoE). */
  readonly shared: { readonly inner: number; readonly gated: boolean } | null;
}

export type Ffn = DenseFfn | MoeFfn;

export interface LayerSpec {
  /** Sliding-window size in tokens (a query sees itself and `window - 1` tokens before it), or null for full attention. */
  readonly window: number | null;
  /** Null: this layer's attention knows no positions. */
  readonly rope: Rope | null;
  readonly ffn: Ffn;
}

/**
 * Where norms stand. `pre`: x += f(norm(x)). `post`: x += norm(f(x)) (OLMo 2). `sandwich`: x += norm(f(norm(x))) (Gemma 2).
 * `parallel`: x += attention(norm(x)) + ffn(norm'(x)) (GPT-NeoX); `parallel-shared`: both read one norm (Cohere).
 */
export type BlockKind = "pre" | "post" | "sandwich" | "parallel" | "parallel-shared";

/** Constant factors, 1 where a family has none. */
export interface Multipliers {
  /** On the embeddings' output. */
  readonly embedding: number;
  /** On what attention and FFN add to the residual stream. */
  readonly residual: number;
  /** On the logits. */
  readonly logits: number;
}

export interface SpecialTokens {
  readonly bos: number | null;
  readonly eos: readonly number[];
  readonly pad: number | null;
}

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

/** What most families share: pre-norm blocks, no multipliers, no caps, no learnt positions. */
export const plainBlocks = {
  block: "pre",
  multipliers: { embedding: 1, residual: 1, logits: 1 },
  logitSoftcap: null,
  learnedPositions: false,
} as const satisfies Partial<DecoderSpec>;

/** True if any block is a mixture of experts. */
export function isMoe(spec: DecoderSpec): boolean {
  return spec.layers.some((layer) => layer.ffn.kind === "moe");
}
