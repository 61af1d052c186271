/**
 * EXAONE 4: norms behind attention and FFN only, a norm over each query and key head, and in models with a sliding
 * window no rope on the layers without it (transformers: models/exaone4/modular_exaone4.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import { postNormed } from "./olmo2.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, slidingRopes, writeSlidingRopes } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 32,
  headDim: "derived",
  maxPositions: 2048,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 10_000,
  bos: 0,
  eos: 2,
};

/** Every n-th layer attends to all tokens; a pattern of letters needs `layer_types` beside it. */
function readPattern(config: ConfigReader): number {
  if (typeof config.get("sliding_window_pattern") === "string")
    throw config.fail(
      "sliding_window_pattern",
      "a number of layers (or layer_types beside it, which has the last word)",
    );
  return config.int("sliding_window_pattern", 4);
}

/** The config dialect of EXAONE 4. */
export const exaone4: Dialect = {
  family: "exaone4",
  architecture: "Exaone4ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = { ...readCommon(config, "exaone4", defaults), ...postNormed };
    const window = config.intOrNull("sliding_window", 4096);
    const pattern = window === null || config.has("layer_types") ? 1 : readPattern(config);
    const windows = readLayerWindows(config, common.layerCount, (layer) => (layer + 1) % pattern !== 0, window);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const attn = { qkNorm: true, qkvBias: false, outBias: false };
    const ropes = window === null ? undefined : slidingRopes(windows, common.rope);
    return denseSpec(common, attn, ffn, windows, ropes);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: true, qkvBias: false, outBias: false });
    if (spec.block !== "post") throw refuse(spec, `${spec.block} blocks`);
    const everywhere = spec.layers.every(({ window, rope }) => window === null && rope !== null);
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      ...writeSlidingRopes(spec, everywhere),
      sliding_window_pattern: null,
    };
  },
};
