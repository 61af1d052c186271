/** L = A N^-alpha + B D^-beta + E, in the two ways it is written. */
import { columnD, columnN, fall, irreducible, ofData, ofSize, term } from "./parts.js";
import { powerSumLaw } from "./power-sum.js";
import type { Law } from "./types.js";

/** Hoffmann et al. 2022, appendix D.2: the 4,500 starts. Coefficients and E as logarithms. */
const hoffmannGrid = {
  A: [0, 5, 10, 15, 20, 25],
  B: [0, 5, 10, 15, 20, 25],
  E: [-1, -0.5, 0, 0.5, 1],
  alpha: [0, 0.5, 1, 1.5, 2],
  beta: [0, 0.5, 1, 1.5, 2],
};

const [[sizeFactor, sizePower], [dataFactor, dataPower]] = [ofSize("A", "alpha"), ofData("B", "beta")];

/** The law with the letters of Hoffmann et al. */
export const chinchilla: Law = powerSumLaw({
  id: "chinchilla",
  title: "Chinchilla",
  formula: "L(N, D) = A N^-alpha + B D^-beta + E",
  source: "Hoffmann et al. 2022 (arXiv 2203.15556), equation 2 and appendix D.2",
  columns: [columnN, columnD],
  parameters: [sizeFactor, dataFactor, irreducible(), sizePower, dataPower],
  terms: [term("A", fall("alpha", "N")), term("B", fall("beta", "D")), term("E")],
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
  parameters: [...ofData("A", "alpha"), ...ofSize("B", "beta"), irreducible()],
  terms: [term("A", fall("alpha", "D")), term("B", fall("beta", "N")), term("E")],
  grid: { A: hoffmannGrid.B, alpha: hoffmannGrid.beta, B: hoffmannGrid.A, beta: hoffmannGrid.alpha, E: hoffmannGrid.E },
  note: "N of a mixture is whatever the points use (Liew et al. fit MoE models with the size of their dense parent)",
});
