/**
 * FlexOlmo: OLMo 2's attention and norms, every layer a mixture of experts (transformers:
 * models/flex_olmo/modular_flex_olmo.py).
 */
import type { DecoderSpec } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { readCommon, refuse } from "./common.js";
import { moeSpec, readAuxLossCoef } from "./experts.js";
import { postNormed } from "./olmo2.js";
import { readOlmoExperts, writeOlmoExperts } from "./olmoe.js";
import type { ConfigReader } from "./reader.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-6,
  ropeTheta: 500_000,
  bos: null,
  eos: 100_257,
  pad: 100_277,
};

/** The config dialect of FlexOlmo. */
export const flexOlmo: Dialect = {
  family: "flex_olmo",
  architecture: "FlexOlmoForCausalLM",
  defaults,
  read(config: ConfigReader): DecoderSpec {
    const common = { ...readCommon(config, "flex_olmo", defaults), ...postNormed };
    const bias = config.bool("attention_bias", false);
    const moe = readOlmoExperts(config, { experts: 7, topK: 5 });
    const sparse = Array<boolean>(common.layerCount).fill(true);
    return moeSpec(
      common,
      { qkNorm: "full", qkvBias: bias, outBias: bias },
      { moe, dense: null, sparse },
      [],
      readAuxLossCoef(config, 0.01),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    if (spec.block !== "post") throw refuse(spec, `${spec.block} blocks`);
    return writeOlmoExperts(spec);
  },
};
