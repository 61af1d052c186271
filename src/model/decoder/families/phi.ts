/**
 * Phi-1, Phi-1.5 and Phi-2: attention and FFN side by side behind one LayerNorm, rope over a part of each head, biases
 * everywhere, also on the logits (transformers: models/phi/configuration_phi.py and modeling_phi.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, requireKeys, uniformDense } from "./common.js";
import { requireSquareHeads } from "./learnt.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "geluTanh",
  ropeTheta: 10_000,
  partialRotary: 0.5,
  bos: 1,
  eos: 2,
};

/** The config dialect of Phi-1 and Phi-2. */
export const phi: Dialect = {
  family: "phi",
  architecture: "PhiForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    // Its norms on queries and keys have biases, which a spec cannot say.
    requireKeys(config, { qk_layernorm: false });
    const common = readCommon(config, "phi", defaults);
    requireSquareHeads(config, common, "num_attention_heads", "hidden_size");
    const ffn = { ffnDim: config.int("intermediate_size"), bias: true, gated: false };
    const spec = denseSpec(common, { qkNorm: false, qkvBias: true, outBias: true }, ffn, []);
    return { ...spec, block: "parallel-shared", headBias: true };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: true, outBias: true });
    if (!spec.headBias) throw refuse(spec, "logits without a bias");
    const { ffnDim, bias, gated, activation } = uniformDense(spec, true);
    if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
    return {
      // The usual name of this activation in this family's files.
      ...(activation === "geluTanh" ? { hidden_act: "gelu_new" } : {}),
      intermediate_size: ffnDim,
      qk_layernorm: false,
    };
  },
};
