/**
 * Phi-3 and Phi-4: llama with fused tensors, optionally a sliding window over every layer, rope over a part of each
 * head, and LongRoPE (transformers, configuration_phi3.py and modeling_phi3.py). Early files call it "su".
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { requireLongrope } from "./rope.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 10_000,
  partialRotary: 1,
  originalMaxPositions: 4096,
  bos: 1,
  eos: 32_000,
  pad: 32_000,
};

/** The config dialect of Phi-3 and Phi-4. */
export const phi3: Dialect = {
  family: "phi3",
  architecture: "Phi3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "phi3", defaults);
    requireLongrope(config, common.rope);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const window = config.intOrNull("sliding_window", null);
    return denseSpec(
      common,
      { qkNorm: false, qkvBias: false, outBias: false },
      ffn,
      Array(common.layerCount).fill(window),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const scaling = spec.layers[0]?.rope?.scaling ?? { kind: "none" };
    // The class validates its rope: default or longrope, with a factor for each rotated pair of a head of the usual
    // size.
    if (scaling.kind !== "none" && scaling.kind !== "longrope") throw refuse(spec, `${scaling.kind} rope scaling`);
    const { heads, headDim } = spec.attn;
    if (scaling.kind === "longrope" && heads * headDim !== spec.hidden)
      throw refuse(spec, `LongRoPE with heads of ${headDim}, other than hidden_size / num_attention_heads`);
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      sliding_window: uniformWindow(spec),
      // Has the last word on the length, and a default.
      ...(scaling.kind === "longrope" ? { original_max_position_embeddings: scaling.originalMaxPositions } : {}),
    };
  },
};
