/**
 * Phi-3 and Phi-4 with plain rope: llama with fused tensors, optionally a sliding window over every layer and rope over a part
 * of each head (transformers, configuration_phi3.py and modeling_phi3.py). `longrope` is not supported.
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 10_000,
  partialRotary: 1,
  bos: 1,
  eos: 32_000,
  pad: 32_000,
};

export const phi3: Dialect = {
  family: "phi3",
  architecture: "Phi3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "phi3", defaults);
    const ffn = { inner: config.int("intermediate_size"), bias: false };
    const window = config.intOrNull("sliding_window", null);
    return denseSpec(common, { qkNorm: false, qkvBias: false, outBias: false }, ffn, Array(common.layerCount).fill(window));
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    // The class validates its rope: default or longrope.
    const scaled = spec.layers.find(({ rope }) => rope !== null && rope.scaling.kind !== "none")?.rope?.scaling;
    if (scaled !== undefined) throw refuse(spec, `${scaled.kind} rope scaling`);
    return { intermediate_size: uniformDense(spec, false).inner, sliding_window: uniformWindow(spec) };
  },
};
