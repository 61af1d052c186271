/** Losses along a training, from its learning rates. */
import { namedLaw } from "./expression-law.js";
import type { Law } from "./types.js";

/** The loss at any step of any schedule (Tissue et al. 2024). */
export const learningRateAnnealing: Law = namedLaw(
  "L0 + A*S1^-alpha - C*S2",
  {
    id: "lr-annealing",
    title: "learning-rate annealing",
    formula: "L(S1, S2) = L0 + A S1^-alpha - C S2",
    source:
      "Tissue et al. 2024 (arXiv 2408.11029), equation 1; its coefficients were not read, so the law is fitted only",
    note:
      "with S2 the largest learning rate less the current one it is the start of the " +
      "multi-power law (Luo et al. 2025, " +
      "arXiv 2503.12811)",
    columns: [
      { name: "S1", meaning: "sum of learning rates over the steps so far", unit: "learning rate * steps" },
      {
        name: "S2",
        meaning: "annealing: how far learning rates have fallen, summed with a memory of one's choice",
        unit: "learning rate",
        range: { least: 0 },
      },
    ],
    parameters: [
      { name: "L0", meaning: "irreducible loss of this model size", unit: "nats/token" },
      { name: "A", meaning: "coefficient of progress", unit: "nats/token" },
      { name: "alpha", meaning: "exponent of progress", unit: "1" },
      { name: "C", meaning: "what annealing gains", unit: "nats/token" },
    ],
  },
  { bounds: { L0: [0, Infinity], A: [0, Infinity], alpha: [0, 5], C: [0, Infinity] } },
);
