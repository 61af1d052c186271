/** Laws of mixtures trained from scratch whose terms are products of powers. */
import { coefficient, columnD, exponent, fall, irreducible, ofData, ofSize, term } from "./parts.js";
import { powerSumLaw } from "./power-sum.js";
import type { Law } from "./types.js";

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
    ...ofSize("a", "alpha"),
    ...ofData("b", "beta"),
    coefficient("g", "granularity coefficient", "nats/token * parameters^alpha"),
    exponent("gamma", "exponent of granularity"),
    irreducible("c"),
  ],
  terms: [
    term("g", fall("gamma", "G"), fall("alpha", "N")),
    term("a", fall("alpha", "N")),
    term("b", fall("beta", "D")),
    term("c"),
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
    ...ofSize("a", "alpha"),
    ...ofData("b", "beta"),
    coefficient("c", "sparsity coefficient", "nats/token"),
    exponent("lambda", "exponent of the active share"),
    coefficient("d", "coefficient of sparsity with size", "nats/token * parameters^gamma"),
    exponent("delta", "exponent of the active share, with size"),
    exponent("gamma", "exponent of size, with sparsity"),
    irreducible("e"),
  ],
  terms: [
    term("a", fall("alpha", "N")),
    term("b", fall("beta", "D")),
    term("c", fall("lambda", "1 - S")),
    term("d", fall("delta", "1 - S"), fall("gamma", "N")),
    term("e"),
  ],
  derived: { "1 - S": (column) => 1 - column("S") },
  bounds: { lambda: [-5, 5], delta: [-5, 5] },
  scan: { alpha: [0.1, 0.3, 0.6], beta: [0.1, 0.3, 0.6], lambda: [-0.3, 0.3], delta: [0.1, 0.5], gamma: [0.1, 0.3] },
  note: "ten parameters: its authors report R2 of 99 % on the points fitted and 68 % on points held out",
});
