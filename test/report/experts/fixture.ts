/** A made-up report of experts: many of them, a hostile name, one that no token chose. */
import { coactivationOf } from "../../../src/experts/measures/coactivation.js";
import { loadOf, sharesOf } from "../../../src/experts/measures/load.js";
import { tokenClasses } from "../../../src/experts/measures/token-class.js";
import type { ExpertLayer, ExpertsReport } from "../../../src/model/results/experts.js";

const tokens = 4096;
const hostile = '<img src=x onerror="alert(1)">.txt';

/** A layer of `experts`, of which the last is never chosen and expert 1 prefers digits. */
function layerOf(layer: number, experts: number): ExpertLayer {
  const counts = Array.from({ length: experts }, (_, e) =>
    e === experts - 1 ? 0 : 100 + ((e * 37 + layer * 11) % 50),
  );
  const matrix = (value: (a: number, b: number) => number): number[][] =>
    counts.map((_, a) => counts.map((__, b) => (a === b ? 1 : value(Math.min(a, b), Math.max(a, b)))));
  const digits = counts.map((count, e) => (e === 1 ? 5 * count : count));
  const certain = { bits: 0.3, byChance: 0.01, excess: 0.29, p: 0.01, most: 2 };
  return {
    layer,
    experts,
    topK: 2,
    load: loadOf(counts, tokens),
    byText: [sharesOf(counts), sharesOf(counts)],
    byClass: tokenClasses.map((name) => (name === "special" ? null : sharesOf(name === "digits" ? digits : counts))),
    specialisation: { text: { ...certain, excess: -0.001, p: 0.6 }, tokenClass: certain },
    router: { entropy: 1, relativeEntropy: 0.5, mass: 0.7, margin: 0.02, margins: [0.001, 0.01, 0.05] },
    coactivation: coactivationOf(matrix((a, b) => (a + b) % 7).map((row, a) => row.map((v, b) => (a === b ? 50 : v)))),
    similarity: {
      weights: matrix((a, b) => (a === 2 && b === 3 ? 0.97 : 0.1)),
      matrices: {},
      outputs: matrix(() => 0.5),
      inputs: 256,
      parent: null,
    },
    contribution: counts.map(() => 1 / experts),
  };
}

/** A report of two layers of so many experts. */
export const expertsReport = (experts: number): ExpertsReport => ({
  version: 1,
  model: "/models/moe",
  family: "mixtral",
  parent: null,
  texts: [
    { name: hostile, observed: 8, heldOut: 8 },
    { name: "prose.txt", observed: 8, heldOut: 8 },
  ],
  sequence: 256,
  tokens,
  heldOutTokens: 4096,
  classes: tokenClasses.map((name) => ({ name, tokens: name === "special" ? 0 : 600 })),
  seed: 0,
  layers: [0, 1].map((layer) => layerOf(layer, experts)),
  loss: 3,
  costs: [
    {
      kind: "merged",
      groups: [{ layer: 0, experts: [2, 3] }],
      asked: false,
      expected: 0.01,
      loss: 3.001,
      difference: 0.001,
      error: 0.0004,
      interval: [0.0002, 0.0018],
      byText: [0.001, 0.001],
    },
  ],
});
