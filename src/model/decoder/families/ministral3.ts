/**
 * Ministral 3: Mistral with YaRN, whose queries grow with their position beyond the first training's length
 * (transformers: models/ministral3/configuration_ministral3.py and modular_ministral3.py). It is the text part of
 * Mistral 3 folders of the same release.
 */
import type { DecoderSpec, LengthScale } from "../types.js";
import type { Defaults, Dialect } from "./common.js";
import { denseSpec, readCommon, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { writeRope } from "./rope.js";
import { uniformWindow } from "./windows.js";

const defaults: Defaults = {
  kvHeads: 8,
  headDim: 128,
  maxPositions: 262_144,
  normEps: 1e-5,
  activation: "silu",
  ropeTheta: 10_000,
  bos: 1,
  eos: 2,
  pad: 11,
};

/** What the class takes where a file has no `rope_parameters`. */
const defaultRope = {
  rope_type: "yarn",
  rope_theta: 1_000_000,
  factor: 16,
  original_max_position_embeddings: 16_384,
  beta_fast: 32,
  beta_slow: 1,
  mscale: 1,
  mscale_all_dim: 1,
  llama_4_scaling_beta: 0.1,
};

/** The queries' factor. Both numbers must be there: the class computes with them, and fails without. */
function readLengthScale(config: ConfigReader): LengthScale | null {
  // The class takes the flat form where both are there.
  const keys = config.object("rope_scaling") ?? config.object("rope_parameters");
  if (keys === null) throw config.fail("rope_parameters", "an object with llama_4_scaling_beta");
  const beta = keys.positive("llama_4_scaling_beta", undefined, { zero: true });
  return beta === 0 ? null : { beta, originalMaxPositions: readOriginalLength(keys, config) };
}

/** Where the rope has an original length, the one beside the rope's keys comes first (`standardize_rope_params`). */
function readOriginalLength(keys: ConfigReader, config: ConfigReader): number {
  const key = "original_max_position_embeddings";
  const isMoved = ["llama3", "yarn", "longrope"].includes(String(keys.get("rope_type") ?? keys.get("type")));
  if (!isMoved) return keys.int(key);
  if (config.has(key)) return config.int(key);
  return keys.has(key) ? keys.int(key) : config.int("max_position_embeddings", defaults.maxPositions);
}

/** The config dialect of Ministral 3. */
export const ministral3: Dialect = {
  family: "ministral3",
  architecture: "Ministral3ForCausalLM",
  defaults,
  read(file: ConfigReader): DecoderSpec {
    const isBare = !file.has("rope_parameters") && !file.has("rope_scaling") && !file.has("rope_theta");
    const config = isBare ? file.with({ rope_parameters: defaultRope }) : file;
    const common = readCommon(config, "ministral3", defaults);
    const attn = { ...common.attn, lengthScale: readLengthScale(config) };
    const window = config.intOrNull("sliding_window", null);
    return denseSpec(
      { ...common, attn },
      { qkNorm: false, qkvBias: false, outBias: false },
      { ffnDim: config.int("intermediate_size"), bias: false },
      Array<number | null>(common.layerCount).fill(window),
    );
  },
  write(spec: DecoderSpec): Record<string, unknown> {
    requireAttention(spec, { qkNorm: false, qkvBias: false, outBias: false });
    const { lengthScale } = spec.attn;
    const rope = spec.layers[0]?.rope;
    if (rope === undefined || rope === null) throw refuse(spec, "layers without rope");
    const { scaling } = rope;
    if (scaling.kind === "longrope") throw refuse(spec, "longrope rope scaling");
    const original = "originalMaxPositions" in scaling ? scaling.originalMaxPositions : null;
    if (lengthScale !== null && original !== null && original !== lengthScale.originalMaxPositions)
      throw refuse(spec, "queries scaled by other lengths than rope");
    return {
      intermediate_size: uniformDense(spec, false).ffnDim,
      sliding_window: uniformWindow(spec),
      rope_parameters: {
        ...(writeRope(rope, null)["rope_parameters"] as Record<string, unknown>),
        llama_4_scaling_beta: lengthScale?.beta ?? 0,
        original_max_position_embeddings: lengthScale?.originalMaxPositions ?? original ?? spec.maxPositions,
      },
      // Flat keys cannot say the queries' factor.
      rope_scaling: undefined,
    };
  },
};
