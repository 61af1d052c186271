/** Mistral 7B and its kin: llama with a sliding window over every layer. */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: "derived",
  maxPositions: 131_072,
  normEps: 1e-6,
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
};

/** The config dialect of Mistral. */
export const mistral: Dialect = {
  family: "mistral",
  architecture: "MistralForCausalLM",
  read(config: ConfigReader): DecoderSpec {
    const common = readCommon(config, "mistral", defaults);
    const ffn = { kind: "dense", ffnDim: config.int("intermediate_size"), bias: false } as const;
    // The class default is a window, so an absent key and null mean different models.
    const window = config.intOrNull("sliding_window", 4096);
    return denseSpec(
      common,
      { qkNorm: false, qkvBias: false, outBias: false },
      ffn,
      Array(common.layerCount).fill(window),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    return { intermediate_size: uniformDense(spec, false).ffnDim, sliding_window: uniformWindow(spec) };
  },
};
