/**
 * Rotary settings. transformers 4 writes flat `rope_theta` and `rope_scaling`, transformers 5 nested
 * `rope_parameters`; both forms are read, and both are written because vLLM and transformers 4 read only the flat one.
 */
import { inputError } from "../../base/errors.js";
import type { Rope, RopeScaling } from "../types.js";
import type { ConfigReader } from "./reader.js";

/** Throws inputError if a form asks for more than default, linear or llama3 rope, or if the forms disagree. */
export function readRope(config: ConfigReader, defaultTheta: number, headDim: number): Rope {
  const nested = config.object("rope_parameters");
  const flat = config.object("rope_scaling");
  const dicts = [nested, flat].filter((keys) => keys !== null);
  for (const keys of [config, ...dicts]) requireFullRotation(keys);
  for (const type of ["full_attention", "sliding_attention"]) {
    if (nested?.has(type)) throw nested.fail(type, "one rope for all layers");
  }
  const thetas = [config, ...dicts].filter((keys) => keys.has("rope_theta")).map((keys) => keys.positive("rope_theta"));
  if (new Set(thetas).size > 1) {
    throw inputError(`rope_theta is given as ${thetas.join(" and as ")}`, {
      where: config.where,
      hint: "keep the right one",
    });
  }
  const scalings = dicts.map((keys) => readScaling(keys, config));
  if (new Set(scalings.map((scaling) => JSON.stringify(scaling))).size > 1) {
    throw inputError("rope_scaling and rope_parameters disagree", { where: config.where, hint: "remove the wrong one" });
  }
  return { theta: thetas[0] ?? defaultTheta, scaling: scalings[0] ?? { kind: "none" }, rotary: headDim, interleaved: false };
}

function requireFullRotation(config: ConfigReader): void {
  if (config.has("partial_rotary_factor") && config.get("partial_rotary_factor") !== 1) {
    throw config.fail("partial_rotary_factor", "1 (rotary embedding over the whole head)");
  }
}

/** `keys` is `rope_scaling` or `rope_parameters`; older files say `type` for `rope_type`. */
function readScaling(keys: ConfigReader, config: ConfigReader): RopeScaling {
  const key = keys.has("rope_type") || !keys.has("type") ? "rope_type" : "type";
  const kind = keys.get(key) ?? "default";
  switch (kind) {
    case "default":
      return { kind: "none" };
    case "linear":
      return { kind: "linear", factor: keys.positive("factor") };
    case "llama3": {
      // transformers 5 also accepts the original length beside the nested object.
      const owner = keys.has("original_max_position_embeddings") ? keys : config;
      return {
        kind: "llama3",
        factor: keys.positive("factor"),
        lowFreqFactor: keys.positive("low_freq_factor"),
        highFreqFactor: keys.positive("high_freq_factor"),
        originalMaxPositions: owner.int("original_max_position_embeddings"),
      };
    }
    default:
      throw keys.fail(key, 'one of "default", "linear", "llama3"');
  }
}

/** Flat and nested keys with the same values. */
export function writeRope(rope: Rope): Record<string, unknown> {
  const scaling = writeScaling(rope.scaling);
  return {
    rope_theta: rope.theta,
    rope_scaling: scaling,
    rope_parameters: { rope_type: "default", ...scaling, rope_theta: rope.theta },
  };
}

function writeScaling(scaling: RopeScaling): Record<string, unknown> | null {
  switch (scaling.kind) {
    case "none":
      return null;
    case "linear":
      return { rope_type: "linear", factor: scaling.factor };
    case "llama3":
      return {
        rope_type: "llama3",
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalMaxPositions,
      };
  }
}
