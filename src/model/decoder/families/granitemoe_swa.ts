/**
 * Granite MoE with sliding windows (transformers, configuration_granitemoe_swa.py and modeling_granitemoe_swa.py):
 * granitemoe with attention sinks, a window and a rope base of its own for each layer, and optionally a shared expert.
 */
import { at } from "../../../base/at.js";
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse } from "./common.js";
import { everyLayerMoe, moeSpec, readAuxLossCoef } from "./experts.js";
import { withGraniteFactors } from "./granite.js";
import { graniteMoeDefaults, readGraniteExperts, writeGraniteExperts } from "./granitemoe.js";
import type { ConfigReader } from "./reader.js";
import { readLayerWindows, writeLayerTypesSized } from "./windows.js";

const defaults: Defaults = graniteMoeDefaults;

const isTheta = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value) && value >= 0;

/** Each layer's rope base; 0 says that a layer knows no positions. */
function readThetas(config: ConfigReader, theta: number, layers: number): readonly number[] {
  const thetas = config.list("layer_rope_theta", isTheta, "a list of numbers from 0, one per layer");
  if (thetas === null) return Array<number>(layers).fill(theta);
  if (thetas.length !== layers)
    throw config.fail("layer_rope_theta", `${layers} entries, one per layer (found ${thetas.length})`);
  return thetas;
}

/** The config dialect of Granite with experts and sliding windows. */
export const graniteMoeSwa: Dialect = {
  family: "granitemoe_swa",
  architecture: "GraniteMoeSWAForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = withGraniteFactors(readCommon(config, "granitemoe_swa", defaults), config);
    const bias = config.bool("attention_bias", false);
    const ffnDim = config.int("shared_intermediate_size", 0, { min: 0 });
    const moe = { ...readGraniteExperts(config), shared: ffnDim === 0 ? null : { ffnDim, gated: false } };
    const sparse = Array<boolean>(common.layerCount).fill(true);
    // Without `layer_types` every fourth layer, from the first one on, has full attention.
    const windows = readLayerWindows(
      config,
      common.layerCount,
      (layer) => layer % 4 !== 0,
      config.intOrNull("sliding_window", 128),
    );
    const withSinks = { ...common, attn: { ...common.attn, sinks: true } };
    const attn = { qkNorm: false, qkvBias: bias, outBias: bias };
    const spec = moeSpec(withSinks, attn, { moe, dense: null, sparse }, windows, readAuxLossCoef(config));
    const thetas = readThetas(config, common.rope.theta, common.layerCount);
    const layers = spec.layers.map((layer, i) => {
      const theta = at(thetas, i);
      return { ...layer, rope: theta === 0 ? null : { ...common.rope, theta } };
    });
    return { ...spec, layers };
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    const { shared } = everyLayerMoe(spec);
    if (!spec.attn.sinks) throw refuse(spec, "no attention sinks");
    if (shared?.gated) throw refuse(spec, "a shared expert behind a gate");
    return {
      ...writeGraniteExperts(spec),
      shared_intermediate_size: shared?.ffnDim ?? 0,
      layer_rope_theta: spec.layers.map(({ rope }) => rope?.theta ?? 0),
      ...writeLayerTypesSized(spec, 128),
    };
  },
};
