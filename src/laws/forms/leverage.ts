/**
 * What sparsity saves: a mixture's compute against that of a dense model of the same loss, and its loss by sparsity.
 */
import { namedLaw } from "./expression-law.js";
import {
  coefficient,
  columnD,
  columnN,
  exponent,
  fall,
  interaction,
  irreducible,
  ofInteraction,
  term,
} from "./parts.js";
import { powerSumLaw } from "./power-sum.js";
import type { Law } from "./types.js";

/**
 * Efficiency leverage (Tian et al. 2025): how many times the compute a dense model takes for the same loss. The paper
 * does not say to which bases its logarithms are. Its Table 2 fits its text with log10 C and log2 G only: then the best
 * granularity is 11.3, within the 8 to 12 that it finds, and the leverage is 7.24 at the place for which it says
 * "exceeding 7x" (A 3.1 %, G 12, C 1e22). With ln G the best granularity is 33 and the leverage 6.88, with log10 G they
 * are 3,200 and 5.4; with ln C the leverage is in the thousands.
 */
export const efficiencyLeverage: Law = namedLaw(
  "(1/(1/(A+1/(1/A_start-1/A_max))+1/A_max))^(a+d*log10(C)+gamma*(ln(G)/ln(2))^2+beta*ln(G)/ln(2))",
  {
    id: "efficiency-leverage",
    title: "efficiency leverage of mixtures",
    formula:
      "EL(A, G, C) = Ahat^(a + d log10 C + gamma (log2 G)^2 + beta log2 G), 1/Ahat = 1/(A + " +
      "1/(1/A_start - 1/A_max)) + 1/A_max",
    source: "Tian et al. 2025 (arXiv 2507.17702), equations 10 and 13",
    note: "predicts a ratio of computes, not a loss: map the column loss to it",
    columns: [
      { name: "A", meaning: "active experts over all experts", unit: "1" },
      { name: "G", meaning: "granularity: 2 d_model over the expert's hidden size", unit: "1" },
      { name: "C", meaning: "training compute", unit: "FLOP" },
    ],
    parameters: [
      { name: "A_start", meaning: "where fewer active experts stop to help", unit: "1" },
      { name: "A_max", meaning: "saturation at many active experts", unit: "1" },
      { name: "a", meaning: "exponent of the activation ratio", unit: "1" },
      { name: "d", meaning: "how the exponent grows with compute", unit: "1 per decade" },
      { name: "gamma", meaning: "curvature in log2 G", unit: "1" },
      { name: "beta", meaning: "slope in log2 G", unit: "1" },
    ],
  },
  {
    start: { A_start: 0.0163, A_max: 10, a: 1.23, d: -0.0761, gamma: 0.0167, beta: -0.117 },
    bounds: { A_start: [1e-6, 1], A_max: [1.001, 1e17] },
  },
);

/**
 * Loss by sparsity and active parameters. Liew et al. 2025, section 4.2, fit such a law; its formula and numbers
 * were not
 * available, so this is what its ansatz (a power law in each at the other fixed) allows, fitted only.
 */
export const sparsity: Law = powerSumLaw({
  id: "sparsity",
  title: "sparsity and active parameters of upcycled models",
  formula: "L(P, N) = A P^-alpha1 N^(-alpha2 + alpha3 ln P) + E",
  source:
    "the power-law ansatz of Liew, Kato, Takase 2025 (arXiv 2502.03009), section 4.2: our form, " +
    "because theirs was not " +
    "available; fitted only",
  columns: [
    { name: "P", meaning: "total over active parameters", unit: "1", range: { least: 1 } },
    { name: "N", meaning: "active parameters", unit: "parameters" },
  ],
  parameters: [
    coefficient("A", "coefficient", "nats/token"),
    exponent("alpha1", "exponent of sparsity"),
    exponent("alpha2", "exponent of active parameters"),
    exponent("alpha3", "interaction", "1 per ln"),
    irreducible(),
  ],
  terms: [term("A", fall("alpha1", "P"), fall("alpha2", "N"), interaction("alpha3", "P", "N")), term("E")],
  ...ofInteraction("alpha3"),
  note: "for one number of training tokens",
});

/** A law whose three parts all change with size (Li et al. 2025). */
export const farseer: Law = namedLaw(
  "exp(a3*N^gamma+b3) + exp(a2*N^beta+b2)*D^(-exp(a1*N^alpha+b1))",
  {
    id: "farseer",
    title: "Farseer",
    formula: "L(N, D) = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^(-exp(a1 N^alpha + b1))",
    source:
      "Li et al. 2025 (arXiv 2506.10972), as in secondary sources; its coefficients were not " +
      "read, so the law is fitted only",
    note: "nine parameters: fit it to many sizes and token counts only",
    columns: [columnN, columnD],
    parameters: [
      { name: "a3", meaning: "irreducible part: coefficient of size", unit: "1" },
      { name: "gamma", meaning: "irreducible part: exponent of size", unit: "1" },
      { name: "b3", meaning: "irreducible part: offset", unit: "ln(nats/token)" },
      { name: "a2", meaning: "data coefficient: coefficient of size", unit: "1" },
      { name: "beta", meaning: "data coefficient: exponent of size", unit: "1" },
      { name: "b2", meaning: "data coefficient: offset", unit: "1" },
      { name: "a1", meaning: "data exponent: coefficient of size", unit: "1" },
      { name: "alpha", meaning: "data exponent: exponent of size", unit: "1" },
      { name: "b1", meaning: "data exponent: offset", unit: "1" },
    ],
  },
  {
    start: { a3: -0.02, gamma: 0.17, b3: 0.5, a2: 90, beta: -0.1, b2: -6, a1: -0.12, alpha: 0.12, b1: 0.4 },
    bounds: { gamma: [-2, 2], beta: [-2, 2], alpha: [-2, 2] },
  },
);
