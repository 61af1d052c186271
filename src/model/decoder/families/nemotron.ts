/**
 * Nemotron 3 and 4, Minitron: LayerNorm with 1 + weight and bias, squared ReLU without a gate, rope over half of each
 * head (transformers, configuration_nemotron.py and modeling_nemotron.py).
 */
import type { Defaults, Dialect } from "./common.js";
import { readUngated, writeUngated } from "./ungated.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  normKey: "norm_eps",
  norm: { kind: "layer", weight: "one-plus", bias: true },
  activation: "relu2",
  ropeTheta: 10_000,
  partialRotary: 0.5,
  bos: 2,
  eos: 3,
  initStd: 0.0134,
};

/** The config dialect of Nemotron. */
export const nemotron: Dialect = {
  family: "nemotron",
  architecture: "NemotronForCausalLM",
  defaults,
  read: (config) => readUngated(config, "nemotron", defaults, false),
  write: writeUngated,
};
