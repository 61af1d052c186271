/**
 * Laws of upcycled models: D1 tokens trained the dense parent, D2 the MoE made of it, N is the parent's size. The
 * logarithm in the interaction is natural and sizes are raw counts; other readings give impossible losses.
 */
import { powerSumLaw, type Power, type PowerTerm } from "./power-sum.js";
import type { Column, Law, Parameter } from "./types.js";
import { irreducible } from "./chinchilla.js";

const columnN: Column = { name: "N", meaning: "parameters of the dense parent", unit: "parameters" };
const columnD1: Column = { name: "D1", meaning: "tokens the dense parent had seen", unit: "tokens" };
const columnD2: Column = {
  name: "D2",
  meaning: "tokens the upcycled model was trained on since",
  unit: "tokens",
};

const dataCoefficient: Parameter = { name: "A", meaning: "data coefficient", unit: "nats/token", role: "coefficient" };
const alpha1: Parameter = { name: "alpha1", meaning: "exponent of the parent's tokens", unit: "1", role: "exponent" };
const alpha2: Parameter = { name: "alpha2", meaning: "exponent of upcycled tokens", unit: "1", role: "exponent" };
const alpha3: Parameter = {
  name: "alpha3",
  meaning: "interaction: how much the gain from D2 shrinks as ln D1 grows",
  unit: "1 per ln token",
  role: "exponent",
};
const sizeCoefficient: Parameter = {
  name: "B",
  meaning: "size coefficient",
  unit: "nats/token * parameters^beta",
  role: "coefficient",
};
const beta: Parameter = { name: "beta", meaning: "exponent of model size", unit: "1", role: "exponent" };

const fall = (exponent: string, name: string): Power => ({ exponent, sign: -1, logs: [name] });
const interaction: Power = { exponent: "alpha3", sign: 1, logs: ["D1", "D2"] };
const sizeTerm: PowerTerm = { coefficient: "B", powers: [fall("beta", "N")] };
const constantTerm: PowerTerm = { coefficient: "E", powers: [] };

/** Centred exponents are slopes in the middle of the data; the interaction may have either sign. */
const interactionBounds = { alpha3: [-0.5, 0.5] } as const;
const interactionScan = { alpha3: [-0.01, 0, 0.01] } as const;

/** The upcycling law, with the interaction of the parent's tokens and the later ones. */
export const upcyclingLaw: Law = powerSumLaw({
  id: "upcycling",
  title: "upcycling",
  formula: "L(D1, D2, N) = A D1^-alpha1 D2^(-alpha2 + alpha3 ln D1) + B N^-beta + E",
  source: "Liew, Kato, Takase 2025 (arXiv 2502.03009), equation 12 as quoted in secondary sources",
  columns: [columnN, columnD1, columnD2],
  parameters: [dataCoefficient, alpha1, alpha2, alpha3, sizeCoefficient, beta, irreducible],
  terms: [
    { coefficient: "A", powers: [fall("alpha1", "D1"), fall("alpha2", "D2"), interaction] },
    sizeTerm,
    constantTerm,
  ],
  bounds: interactionBounds,
  scan: interactionScan,
  note: "for one MoE architecture; at small D2 it predicts a loss above the parent's, where it does not hold",
});

/** The upcycling law for one model size. */
export const upcyclingData: Law = powerSumLaw({
  id: "upcycling-data",
  title: "upcycling, data only",
  formula: "L(D1, D2) = A D1^-alpha1 D2^(-alpha2 + alpha3 ln D1) + E",
  source: "Liew and Kato 2025 (arXiv 2510.06548), as quoted by reviewers",
  columns: [columnD1, columnD2],
  parameters: [dataCoefficient, alpha1, alpha2, alpha3, irreducible],
  terms: [{ coefficient: "A", powers: [fall("alpha1", "D1"), fall("alpha2", "D2"), interaction] }, constantTerm],
  bounds: interactionBounds,
  scan: interactionScan,
  note: "for one model size",
});

/** The upcycling law without its interaction. */
export const upcyclingNoInteraction: Law = powerSumLaw({
  id: "upcycling-no-interaction",
  title: "upcycling without interaction",
  formula: "L(D1, D2, N) = A D1^-alpha1 D2^-alpha2 + B N^-beta + E",
  source: "the upcycling law with alpha3 = 0: our definition, for comparison",
  columns: [columnN, columnD1, columnD2],
  parameters: [dataCoefficient, alpha1, alpha2, sizeCoefficient, beta, irreducible],
  terms: [{ coefficient: "A", powers: [fall("alpha1", "D1"), fall("alpha2", "D2")] }, sizeTerm, constantTerm],
});

/** Both stages of training as terms of their own. */
export const upcyclingAdditive: Law = powerSumLaw({
  id: "upcycling-additive",
  title: "upcycling, additive",
  formula: "L(D1, D2, N) = A1 D1^-alpha1 + A2 D2^-alpha2 + B N^-beta + E",
  source: "an additive alternative to the upcycling law: our definition, for comparison",
  columns: [columnN, columnD1, columnD2],
  parameters: [
    { ...dataCoefficient, name: "A1", meaning: "coefficient of the parent's tokens" },
    alpha1,
    { ...dataCoefficient, name: "A2", meaning: "coefficient of upcycled tokens" },
    alpha2,
    sizeCoefficient,
    beta,
    irreducible,
  ],
  terms: [
    { coefficient: "A1", powers: [fall("alpha1", "D1")] },
    { coefficient: "A2", powers: [fall("alpha2", "D2")] },
    sizeTerm,
    constantTerm,
  ],
});

/** All tokens count alike. */
export const upcyclingTotal: Law = powerSumLaw({
  id: "upcycling-total",
  title: "upcycling, all tokens alike",
  formula: "L(D1, D2, N) = A (D1 + D2)^-alpha + B N^-beta + E",
  source: "what remains if a parent's tokens are worth as much as later ones: our definition, for comparison",
  columns: [columnN, columnD1, columnD2],
  parameters: [
    { ...dataCoefficient, unit: "nats/token * tokens^alpha" },
    { name: "alpha", meaning: "exponent of all tokens", unit: "1", role: "exponent" },
    sizeCoefficient,
    beta,
    irreducible,
  ],
  terms: [{ coefficient: "A", powers: [fall("alpha", "D1 + D2")] }, sizeTerm, constantTerm],
  derived: { "D1 + D2": (column) => column("D1") + column("D2") },
});

/** The upcycling law for one model size, without its interaction. */
export const upcyclingDataNoInteraction: Law = powerSumLaw({
  id: "upcycling-data-no-interaction",
  title: "upcycling, data only, without interaction",
  formula: "L(D1, D2) = A D1^-alpha1 D2^-alpha2 + E",
  source: "the upcycling law for one model size with alpha3 = 0: our definition, for comparison",
  columns: [columnD1, columnD2],
  parameters: [dataCoefficient, alpha1, alpha2, irreducible],
  terms: [{ coefficient: "A", powers: [fall("alpha1", "D1"), fall("alpha2", "D2")] }, constantTerm],
});

/** Both stages of training as terms of their own, for one model size. */
export const upcyclingDataAdditive: Law = powerSumLaw({
  id: "upcycling-data-additive",
  title: "upcycling, data only, additive",
  formula: "L(D1, D2) = A1 D1^-alpha1 + A2 D2^-alpha2 + E",
  source: "an additive alternative for one model size: our definition, for comparison",
  columns: [columnD1, columnD2],
  parameters: [
    { ...dataCoefficient, name: "A1", meaning: "coefficient of the parent's tokens" },
    alpha1,
    { ...dataCoefficient, name: "A2", meaning: "coefficient of upcycled tokens" },
    alpha2,
    irreducible,
  ],
  terms: [
    { coefficient: "A1", powers: [fall("alpha1", "D1")] },
    { coefficient: "A2", powers: [fall("alpha2", "D2")] },
    constantTerm,
  ],
});

/** All tokens count alike, for one model size. */
export const upcyclingDataTotal: Law = powerSumLaw({
  id: "upcycling-data-total",
  title: "upcycling, data only, all tokens alike",
  formula: "L(D1, D2) = A (D1 + D2)^-alpha + E",
  source: "what remains if a parent's tokens are worth as much as later ones: our definition, for comparison",
  columns: [columnD1, columnD2],
  parameters: [
    { ...dataCoefficient, unit: "nats/token * tokens^alpha" },
    { name: "alpha", meaning: "exponent of all tokens", unit: "1", role: "exponent" },
    irreducible,
  ],
  terms: [{ coefficient: "A", powers: [fall("alpha", "D1 + D2")] }, constantTerm],
  derived: { "D1 + D2": (column) => column("D1") + column("D2") },
});
