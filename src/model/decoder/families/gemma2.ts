/**
 * Gemma 2: Gemma with norms around attention and FFN, soft caps on scores and logits, and a sliding window on every
 * other layer (transformers: models/gemma2/modular_gemma2.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Common, Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import { embeddingFactor, gemmaDefaults, requireCausal } from "./gemma.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = {
  ...gemmaDefaults,
  kvHeads: 4,
};

/** What Gemma 2 and 3 add to the common part. */
export function sandwiched<T extends Omit<Common, "rope">>(
  config: ConfigReader,
  common: T,
  caps: { readonly scores: number | null; readonly logits: number | null },
): T {
  return {
    ...common,
    block: "sandwich",
    multipliers: { ...common.multipliers, embedding: embeddingFactor(config, common.hidden) },
    logitSoftcap: readCap(config, "final_logit_softcapping", caps.logits),
    attn: {
      ...common.attn,
      scale: config.positive("query_pre_attn_scalar", 256) ** -0.5,
      softcap: readCap(config, "attn_logit_softcapping", caps.scores),
    },
  };
}

function readCap(config: ConfigReader, key: string, fallback: number | null): number | null {
  return config.has(key) || (config.get(key) === undefined && fallback !== null)
    ? config.positive(key, fallback ?? undefined)
    : null;
}

/** The keys that Gemma 2 and 3 share. */
export function writeSandwiched(spec: DecoderSpec): Record<string, unknown> {
  if (spec.block !== "sandwich") throw refuse(spec, `${spec.block} blocks`);
  return writeCapped(spec);
}

/** The keys that Gemma 2, Gemma 3 and VaultGemma share, wherever their norms stand. */
export function writeCapped(spec: DecoderSpec): Record<string, unknown> {
  // transformers 5 validates this even though head_dim is given.
  if (spec.hidden % spec.attn.heads !== 0)
    throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
  return {
    intermediate_size: uniformDense(spec, false).ffnDim,
    attention_bias: sharedAttentionBias(spec),
    query_pre_attn_scalar: scoreDivisor(spec),
    attn_logit_softcapping: spec.attn.softcap,
    final_logit_softcapping: spec.logitSoftcap,
    ...writeLayerTypesSized(spec, 4096),
  };
}

/** `query_pre_attn_scalar` is an integer in transformers 5. */
function scoreDivisor(spec: DecoderSpec): number {
  const divisor = Math.round(spec.attn.scale ** -2);
  if (divisor < 1 || divisor ** -0.5 !== spec.attn.scale) {
    throw refuse(spec, `an attention scale of ${spec.attn.scale} (not one over the square root of an integer)`);
  }
  return divisor;
}

/** The config dialect of Gemma 2. */
export const gemma2: Dialect = {
  family: "gemma2",
  architecture: "Gemma2ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    requireCausal(config);
    const common = sandwiched(config, readCommon(config, "gemma2", defaults), { scores: 50, logits: 30 });
    const window = config.intOrNull("sliding_window", 4096);
    const windows = readLayerWindows(config, common.layerCount, (layer) => layer % 2 === 0, window);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, windows);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    return writeSandwiched(spec);
  },
};
