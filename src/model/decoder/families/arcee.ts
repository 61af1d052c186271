/**
 * Arcee's AFM: llama whose FFN has no gate and squares its ReLU (transformers: models/arcee/modular_arcee.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  activation: "relu2",
  ropeTheta: 10_000,
  bos: 128_000,
  eos: 128_001,
};

/** The config dialect of AFM. */
export const arcee: Dialect = {
  family: "arcee",
  architecture: "ArceeForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "arcee", defaults);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", false), gated: false };
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    if (ffn.gated) throw refuse(spec, "an FFN with a gate");
    // transformers 5 validates this even though head_dim is given.
    if (spec.hidden % spec.attn.heads !== 0)
      throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
    return { intermediate_size: ffn.ffnDim, attention_bias: sharedAttentionBias(spec), mlp_bias: ffn.bias };
  },
};
