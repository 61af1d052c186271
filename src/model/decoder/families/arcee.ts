/**
 * Arcee's AFM: llama whose FFN has no gate and squares its ReLU (transformers: models/arcee/modular_arcee.py).
 */
import type { Defaults, Dialect } from "./common.js";
import { readUngated, writeUngatedSquare } from "./ungated.js";

const defaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 4096,
  normEps: 1e-5,
  activation: "relu2",
  ropeTheta: 10_000,
  bos: 128_000,
  eos: 128_001,
};

/** The config dialect of AFM. */
export const arcee: Dialect = {
  family: "arcee",
  architecture: "ArceeForCausalLM",
  defaults,
  read: (config) => readUngated(config, "arcee", defaults, false),
  write: writeUngatedSquare,
};
