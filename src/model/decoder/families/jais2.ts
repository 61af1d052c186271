/**
 * Jais 2: llama with LayerNorm and biases, whose FFN has no gate and squares its ReLU (transformers:
 * models/jais2/modular_jais2.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, sharedAttentionBias, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 8192,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "relu2",
  ropeTheta: 10_000,
  bos: 0,
  eos: 150_024,
};

/** The config dialect of Jais 2. */
export const jais2: Dialect = {
  family: "jais2",
  architecture: "Jais2ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "jais2", defaults);
    const bias = config.bool("attention_bias", true);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: config.bool("mlp_bias", true), gated: false };
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
