/**
 * GLM-4 as released in 2024 (`model_type: glm`): llama with gate and up in one tensor, rope over neighbouring pairs of
 * a part of each head, and biases on queries, keys and values (transformers: models/glm/configuration_glm.py and
 * modeling_glm.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** What both GLM classes assume. */
export const glmDefaults: Defaults = {
  kvHeads: 2,
  headDim: 128,
  maxPositions: 131_072,
  normEps: 1.5625e-7,
  activation: "silu",
  ropeTheta: 10_000,
  partialRotary: 0.5,
  interleavedRope: true,
  bos: null,
  // The classes list three tokens.
  eos: null,
  pad: 151_329,
};

const eosTokens = [151_329, 151_336, 151_338] as const;

/** A GLM of either class, its blocks in sequence. */
export function readGlm(config: ConfigReader, family: "glm" | "glm4"): DecoderSpec {
  const common = readCommon(config, family, glmDefaults);
  const attn = { qkNorm: false, qkvBias: config.bool("attention_bias", true), outBias: false };
  const spec = denseSpec(common, attn, { ffnDim: config.int("intermediate_size"), bias: false }, []);
  return config.has("eos_token_id") ? spec : { ...spec, tokens: { ...spec.tokens, eos: [...eosTokens] } };
}

/** The keys that both classes read. */
export function writeGlm(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: false });
  return {
    intermediate_size: uniformDense(spec, false).ffnDim,
    attention_bias: spec.attn.qkvBias,
    // Null would be read as the class's own three.
    ...(spec.tokens.eos.length === 0 ? { eos_token_id: [] } : {}),
  };
}

/** The config dialect of GLM-4 (2024). */
export const glm: Dialect = {
  family: "glm",
  architecture: "GlmForCausalLM",
  defaults: glmDefaults,
  read: (config) => readGlm(config, "glm"),
  write: writeGlm,
};
