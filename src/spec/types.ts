/**
 * `DecoderSpec` says everything about a decoder that its mathematics needs, as plain JSON-able data.
 * Tensor names, network, cost and checkpoint configs are interpreters of it; none of them adds knowledge.
 */

export const families = ["llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen2_moe", "qwen3_moe"] as const;
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
}

export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** RMSNorm over each head's query and key before rope (Qwen3). */
  readonly qkNorm: boolean;
  /** Biases on the query, key and value projections. */
  readonly qkvBias: boolean;
  /** Bias on the output projection. */
  readonly outBias: boolean;
  readonly rope: Rope;
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
}

export interface MoeFfn {
  readonly kind: "moe";
  /** Hidden size of one expert. */
  readonly inner: number;
  /** Number of routed experts (E*G). */
  readonly experts: number;
  /** Experts per token (T). */
  readonly topK: number;
  readonly order: RouterOrder;
  /** Always-on expert; `gated` multiplies its output by the sigmoid of a learnt linear gate (Qwen2-MoE). */
  readonly shared: { readonly inner: number; readonly gated: boolean } | null;
}

/** All FFNs here are gated with SiLU (SwiGLU): down(silu(gate x) * up x). */
export type Ffn = DenseFfn | MoeFfn;

export interface LayerSpec {
  /** Sliding-window size in tokens (a query sees itself and `window - 1` tokens before it), or null for full attention. */
  readonly window: number | null;
  readonly ffn: Ffn;
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
  readonly normEps: number;
  readonly maxPositions: number;
  readonly attn: AttentionSpec;
  /** One entry per block: dense and MoE may mix. */
  readonly layers: readonly LayerSpec[];
  readonly tokens: SpecialTokens;
  /** Standard deviation for freshly drawn weights (`initializer_range`). */
  readonly initStd: number;
  /** Coefficient of the load-balancing auxiliary loss; 0 for dense models. */
  readonly auxLossCoef: number;
}

/** True if any block is a mixture of experts. */
export function isMoe(spec: DecoderSpec): boolean {
  return spec.layers.some((layer) => layer.ffn.kind === "moe");
}
