/** L = A N^-alpha + B D^-beta + E, in the two ways it is written. */
import { powerSumLaw } from "./power-sum.js";
import type { Column, Law, Parameter } from "./types.js";

/** Size of the model. */
export const columnN: Column = {
  name: "N",
  meaning: "parameters of the model (say which: total, active, without embeddings)",
  unit: "parameters",
};
/** Tokens of its training. */
export const columnD: Column = { name: "D", meaning: "training tokens seen", unit: "tokens" };
/** The irreducible loss. */
export const irreducible: Parameter = {
  name: "E",
  meaning: "irreducible loss, left when size and data grow without limit",
  unit: "nats/token",
  role: "constant",
};

/** Hoffmann et al. 2022, appendix D.2: the 4,500 starts. Coefficients and E as logarithms. */
const hoffmannGrid = {
  A: [0, 5, 10, 15, 20, 25],
  B: [0, 5, 10, 15, 20, 25],
  E: [-1, -0.5, 0, 0.5, 1],
  alpha: [0, 0.5, 1, 1.5, 2],
  beta: [0, 0.5, 1, 1.5, 2],
};

/** The law with the letters of Hoffmann et al. */
export const chinchilla: Law = powerSumLaw({
  id: "chinchilla",
  title: "Chinchilla",
  formula: "L(N, D) = A N^-alpha + B D^-beta + E",
  source: "Hoffmann et al. 2022 (arXiv 2203.15556), equation 2 and appendix D.2",
  columns: [columnN, columnD],
  parameters: [
    { name: "A", meaning: "size coefficient", unit: "nats/token * parameters^alpha", role: "coefficient" },
    { name: "B", meaning: "data coefficient", unit: "nats/token * tokens^beta", role: "coefficient" },
    irreducible,
    { name: "alpha", meaning: "exponent of model size", unit: "1", role: "exponent" },
    { name: "beta", meaning: "exponent of training tokens", unit: "1", role: "exponent" },
  ],
  terms: [
    { coefficient: "A", powers: [{ exponent: "alpha", sign: -1, logs: ["N"] }] },
    { coefficient: "B", powers: [{ exponent: "beta", sign: -1, logs: ["D"] }] },
    { coefficient: "E", powers: [] },
  ],
  grid: hoffmannGrid,
});

/** The law with the letters of Liew et al. */
export const joint: Law = powerSumLaw({
  id: "joint",
  title: "joint law of one architecture, dense or MoE",
  formula: "L(D, N) = A D^-alpha + B N^-beta + E",
  source:
    "the Chinchilla form with the letters of Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2: A, alpha " +
    "belong to DATA here",
  columns: [columnD, columnN],
  parameters: [
    { name: "A", meaning: "data coefficient", unit: "nats/token * tokens^alpha", role: "coefficient" },
    { name: "alpha", meaning: "exponent of training tokens", unit: "1", role: "exponent" },
    { name: "B", meaning: "size coefficient", unit: "nats/token * parameters^beta", role: "coefficient" },
    { name: "beta", meaning: "exponent of model size", unit: "1", role: "exponent" },
    irreducible,
  ],
  terms: [
    { coefficient: "A", powers: [{ exponent: "alpha", sign: -1, logs: ["D"] }] },
    { coefficient: "B", powers: [{ exponent: "beta", sign: -1, logs: ["N"] }] },
    { coefficient: "E", powers: [] },
  ],
  grid: { A: hoffmannGrid.B, alpha: hoffmannGrid.beta, B: hoffmannGrid.A, beta: hoffmannGrid.alpha, E: hoffmannGrid.E },
  note: "N of a mixture is whatever the points use (Liew et al. fit MoE models with the size of their dense parent)",
});
