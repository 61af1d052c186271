/**
 * Gemma 1: llama with norms of weight 1 + w, embeddings times the square root of the hidden size, and a tanh GELU
 * (transformers: models/gemma/modular_gemma.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** Shared by all Gemmas. */
export const gemmaDefaults = {
  headDim: 256,
  maxPositions: 8192,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 2,
  eos: 1,
  pad: 0,
  tiedHead: true,
  norm: { kind: "rms", weight: "one-plus", bias: false },
  activation: "geluTanh",
  activationKeys: ["hidden_activation", "hidden_act"],
} as const satisfies Partial<Defaults>;

const defaults: Defaults = { ...gemmaDefaults, kvHeads: 16 };

/** Refuses bidirectional attention: a decoder sees no token after its own. */
export function requireCausal(config: ConfigReader): void {
  if (config.has("use_bidirectional_attention") && config.get("use_bidirectional_attention") !== false) {
    throw config.fail("use_bidirectional_attention", "false or null");
  }
}

/**
 * The square root of the hidden size, rounded to float32 and then to the type of the weights
 * (`GemmaTextScaledWordEmbedding`).
 */
export function embeddingFactor(config: ConfigReader, hidden: number): number {
  const single = Math.fround(Math.sqrt(hidden));
  switch (config.get("dtype") ?? config.get("torch_dtype")) {
    case "bfloat16":
      return roundedTo(single, 8);
    case "float16":
      return roundedTo(single, 11);
    default:
      return single;
  }
}

/** To the nearest number with so many significant bits, ties to even. */
function roundedTo(value: number, bits: number): number {
  const unit = 2 ** (Math.floor(Math.log2(value)) + 1 - bits);
  const units = value / unit;
  const below = Math.floor(units);
  const up = units - below > 0.5 || (units - below === 0.5 && below % 2 === 1);
  return (up ? below + 1 : below) * unit;
}

/** The config dialect of Gemma. */
export const gemma: Dialect = {
  family: "gemma",
  architecture: "GemmaForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireCausal(config);
    if (!config.has("hidden_activation") && config.get("hidden_act") === "gelu") {
      const hint =
        'older Gemma files say "gelu" and mean "gelu_pytorch_tanh"; set hidden_activation to the one that is meant';
      throw config.fail("hidden_act", '"gelu_pytorch_tanh"', hint);
    }
    const common = readCommon(config, "gemma", defaults);
    const multipliers = { ...common.multipliers, embedding: embeddingFactor(config, common.hidden) };
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    return denseSpec({ ...common, multipliers }, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return { intermediate_size: uniformDense(spec, false).ffnDim, attention_bias: sharedAttentionBias(spec) };
  },
};
