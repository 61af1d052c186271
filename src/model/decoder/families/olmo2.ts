/**
 * OLMo 2: no norms before attention and FFN but after them, and a norm over all queries and all keys together
 * (transformers: models/olmo2/modular_olmo2.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Common, Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** Shared by all OLMos. */
export const olmoDefaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  ropeTheta: 10_000,
  bos: null,
  eos: 50_279,
  pad: 1,
} as const satisfies Defaults;

/** What OLMo 2 and 3 have beyond the common part. */
export const postNormed = { block: "post" } as const satisfies Partial<Common>;

/** The config dialect of OLMo 2. */
export const olmo2: Dialect = {
  family: "olmo2",
  architecture: "Olmo2ForCausalLM",
  defaults: olmoDefaults,
  read(config: ConfigReader): DecoderSpec {
    const common = { ...readCommon(config, "olmo2", olmoDefaults), ...postNormed };
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    return denseSpec(common, { qkNorm: "full", qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    return writePostNormed(spec);
  },
};

/** The keys that OLMo 2 and 3 share. */
export function writePostNormed(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: true, qkvBias: "any", outBias: "any" });
  if (spec.block !== "post") throw refuse(spec, `${spec.block} blocks`);
  return { intermediate_size: uniformDense(spec, false).ffnDim, attention_bias: sharedAttentionBias(spec) };
}
