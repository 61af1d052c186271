/**
 * Jais 2: llama with LayerNorm and biases, whose FFN has no gate and squares its ReLU (transformers:
 * models/jais2/modular_jais2.py).
 */
import type { Defaults, Dialect } from "./common.js";
import { readUngated, writeUngatedSquare } from "./ungated.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 8192,
  normEps: 1e-5,
  normKey: "layer_norm_eps",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "relu2",
  ropeTheta: 10_000,
  bos: 0,
  eos: 150_024,
};

/** The config dialect of Jais 2. */
export const jais2: Dialect = {
  family: "jais2",
  architecture: "Jais2ForCausalLM",
  defaults,
  read: (config) => readUngated(config, "jais2", defaults, true),
  write: writeUngatedSquare,
};
