/** Laws of mixtures trained from scratch whose terms are products of powers. */
import { powerSumLaw } from "./power-sum.js";
import type { Law } from "./types.js";
import { columnD } from "./chinchilla.js";

/** Fine-grained MoE models (Krajewski et al. 2024). */
export const krajewski: Law = powerSumLaw({
  id: "krajewski",
  title: "fine-grained MoE",
  formula: "L(N, D, G) = c + (g G^-gamma + a) N^-alpha + b D^-beta",
  source: "Krajewski et al. 2024 (arXiv 2402.07871), as in secondary sources",
  columns: [
    { name: "N", meaning: "active parameters without embeddings", unit: "parameters" },
    columnD,
    { name: "G", meaning: "granularity: how many times smaller an expert is than the dense FFN", unit: "1" },
  ],
  parameters: [
    { name: "a", meaning: "size coefficient", unit: "nats/token * parameters^alpha", role: "coefficient" },
    { name: "alpha", meaning: "exponent of model size", unit: "1", role: "exponent" },
    { name: "b", meaning: "data coefficient", unit: "nats/token * tokens^beta", role: "coefficient" },
    { name: "beta", meaning: "exponent of training tokens", unit: "1", role: "exponent" },
    { name: "g", meaning: "granularity coefficient", unit: "nats/token * parameters^alpha", role: "coefficient" },
    { name: "gamma", meaning: "exponent of granularity", unit: "1", role: "exponent" },
    { name: "c", meaning: "irreducible loss", unit: "nats/token", role: "constant" },
  ],
  terms: [
    {
      coefficient: "g",
      powers: [
        { exponent: "gamma", sign: -1, logs: ["G"] },
        { exponent: "alpha", sign: -1, logs: ["N"] },
      ],
    },
    { coefficient: "a", powers: [{ exponent: "alpha", sign: -1, logs: ["N"] }] },
    { coefficient: "b", powers: [{ exponent: "beta", sign: -1, logs: ["D"] }] },
    { coefficient: "c", powers: [] },
  ],
});

/** Sparsity and active parameters (Abnar et al. 2025). */
export const abnar: Law = powerSumLaw({
  id: "abnar",
  title: "sparsity and active parameters",
  formula: "L(N, D, S) = a N^-alpha + b D^-beta + c (1 - S)^-lambda + d (1 - S)^-delta N^-gamma + e",
  source: "Abnar et al. 2025 (arXiv 2501.12370), as in secondary sources",
  columns: [
    { name: "N", meaning: "total parameters", unit: "parameters" },
    columnD,
    {
      name: "S",
      meaning: "sparsity: share of inactive experts, from 0 to below 1",
      unit: "1",
      range: { least: 0, below: 1 },
    },
  ],
  parameters: [
    { name: "a", meaning: "size coefficient", unit: "nats/token * parameters^alpha", role: "coefficient" },
    { name: "alpha", meaning: "exponent of model size", unit: "1", role: "exponent" },
    { name: "b", meaning: "data coefficient", unit: "nats/token * tokens^beta", role: "coefficient" },
    { name: "beta", meaning: "exponent of training tokens", unit: "1", role: "exponent" },
    { name: "c", meaning: "sparsity coefficient", unit: "nats/token", role: "coefficient" },
    { name: "lambda", meaning: "exponent of the active share", unit: "1", role: "exponent" },
    {
      name: "d",
      meaning: "coefficient of sparsity with size",
      unit: "nats/token * parameters^gamma",
      role: "coefficient",
    },
    { name: "delta", meaning: "exponent of the active share, with size", unit: "1", role: "exponent" },
    { name: "gamma", meaning: "exponent of size, with sparsity", unit: "1", role: "exponent" },
    { name: "e", meaning: "irreducible loss", unit: "nats/token", role: "constant" },
  ],
  terms: [
    { coefficient: "a", powers: [{ exponent: "alpha", sign: -1, logs: ["N"] }] },
    { coefficient: "b", powers: [{ exponent: "beta", sign: -1, logs: ["D"] }] },
    { coefficient: "c", powers: [{ exponent: "lambda", sign: -1, logs: ["1 - S"] }] },
    {
      coefficient: "d",
      powers: [
        { exponent: "delta", sign: -1, logs: ["1 - S"] },
        { exponent: "gamma", sign: -1, logs: ["N"] },
      ],
    },
    { coefficient: "e", powers: [] },
  ],
  derived: { "1 - S": (column) => 1 - column("S") },
  bounds: { lambda: [-5, 5], delta: [-5, 5] },
  scan: { alpha: [0.1, 0.3, 0.6], beta: [0.1, 0.3, 0.6], lambda: [-0.3, 0.3], delta: [0.1, 0.5], gamma: [0.1, 0.3] },
  note: "ten parameters: its authors report R2 of 99 % on the points fitted and 68 % on points held out",
});
