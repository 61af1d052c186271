/**
 * OLMo 3: OLMo 2 with a sliding window on three layers of four; only layers with full attention scale their rope
 * (transformers: models/olmo3/modular_olmo3.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readBase, refuse } from "./common.js";
import { olmoDefaults, postNormed, writePostNormed } from "./olmo2.js";
import type { ConfigReader } from "./reader.js";
import { readRopesByType, ropesByTypeOf, writeRopesByType } from "./rope.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = { ...olmoDefaults, ropeTheta: 500_000 };

const ropes = { full: 500_000, sliding: 500_000, slidingKey: "rope_theta" } as const;

/** The config dialect of OLMo 3. */
export const olmo3: Dialect = {
  family: "olmo3",
  architecture: "Olmo3ForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = { ...readBase(config, "olmo3", defaults), ...postNormed };
    const window = config.intOrNull("sliding_window", 4096);
    const windows = readLayerWindows(config, common.layerCount, (layer) => (layer + 1) % 4 !== 0, window);
    const { full, sliding } = readRopesByType(config, common.attn.headDim, ropes);
    const bias = config.bool("attention_bias", false);
    const ffn = { ffnDim: config.int("intermediate_size"), bias: false };
    const attn = { qkNorm: "full", qkvBias: bias, outBias: bias } as const;
    const each = windows.map((size) => (size === null ? full : sliding));
    return denseSpec({ ...common, rope: full }, attn, ffn, windows, each);
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const ropesByType = ropesByTypeOf(spec, ropes);
    if (ropesByType === null) throw refuse(spec, "layers without rope");
    return { ...writePostNormed(spec), ...writeLayerTypesSized(spec, 4096), ...writeRopesByType(ropesByType, ropes) };
  },
};
