/**
 * Command R, and R+ with its norms on queries and keys: LayerNorm without bias, a parallel block that shares one norm,
 * rope over neighbouring pairs, scaled logits (transformers, configuration_cohere.py and modeling_cohere.py).
 */
import type { DecoderSpec, Rope } from "../types.js";
import type { AttentionOptions, Common, Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** What both Command R classes assume. */
export const cohereDefaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 8192,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: false },
  activation: "silu",
  // transformers 4 assumes 10000, transformers 5 assumes 500000.
  ropeTheta: null,
  interleavedRope: true,
  bos: 5,
  eos: 255_001,
  pad: 0,
  tiedHead: true,
};

/** A decoder of either class; without `layers` all of them attend to all tokens and have the common rope. */
export function readParallel(
  config: ConfigReader,
  common: Common,
  qkNorm: AttentionOptions["qkNorm"],
  layers: { readonly windows?: readonly (number | null)[]; readonly ropes?: readonly (Rope | null)[] } = {},
): DecoderSpec {
  const bias = config.bool("attention_bias", false);
  const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
  const spec = denseSpec(common, { qkNorm, qkvBias: bias, outBias: bias }, ffn, layers.windows ?? [], layers.ropes);
  const multipliers = { ...spec.multipliers, logits: config.positive("logit_scale", 0.0625) };
  return { ...spec, block: "parallel-shared", multipliers };
}

/** The keys that both classes read. */
export function writeParallel(spec: DecoderSpec): Record<string, unknown> {
  return {
    intermediate_size: uniformDense(spec, false).ffnDim,
    attention_bias: sharedAttentionBias(spec),
    logit_scale: spec.multipliers.logits,
  };
}

/** The config dialect of Command R. */
export const cohere: Dialect = {
  family: "cohere",
  architecture: "CohereForCausalLM",
  defaults: cohereDefaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "cohere", cohereDefaults);
    return readParallel(config, common, config.bool("use_qk_norm", false) && "own-head");
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const qkNorm = spec.attn.qkNorm !== null;
    requireAttention(spec, { qkNorm, qkvBias: "any", outBias: "any" });
    return { ...writeParallel(spec), use_qk_norm: qkNorm };
  },
};
