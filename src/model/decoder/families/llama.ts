/** Llama 2/3, TinyLlama, SmolLM2 and everything else that says `model_type: llama`. */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

/** The config dialect of Llama. */
export const llama: Dialect = {
  family: "llama",
  architecture: "LlamaForCausalLM",
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "llama", defaults);
    const bias = config.bool("attention_bias", false);
    const ffn = {
      kind: "dense",
      ffnDim: config.int("intermediate_size"),
      bias: config.bool("mlp_bias", false),
    } as const;
    return denseSpec(common, { qkNorm: false, qkvBias: bias, outBias: bias }, ffn, []);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: "any", outBias: "any" });
    const ffn = uniformDense(spec, true);
    if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
    // transformers 5 validates this even though head_dim is given.
    if (spec.hidden % spec.attn.heads !== 0)
      throw refuse(spec, `hidden size ${spec.hidden} with ${spec.attn.heads} heads (not a multiple)`);
    return { intermediate_size: ffn.ffnDim, attention_bias: sharedAttentionBias(spec), mlp_bias: ffn.bias };
  },
};
