/**
 * Laws of upcycled models: D1 tokens trained the dense parent, D2 the MoE made of it, N is the parent's size. The
 * logarithm in the interaction is natural and sizes are raw counts; other readings give impossible losses. Each form
 * stands with a term of size, and without one for points of one size.
 */
import { coefficient, exponent, fall, interaction, irreducible, ofInteraction, ofSize, term } from "./parts.js";
import { powerSumLaw, type PowerSum } from "./power-sum.js";
import type { Column, Law } from "./types.js";

const columnN: Column = { name: "N", meaning: "parameters of the dense parent", unit: "parameters" };
const columnD1: Column = { name: "D1", meaning: "tokens the dense parent had seen", unit: "tokens" };
const columnD2: Column = {
  name: "D2",
  meaning: "tokens the upcycled model was trained on since",
  unit: "tokens",
};

const alpha1 = exponent("alpha1", "exponent of the parent's tokens");
const alpha2 = exponent("alpha2", "exponent of upcycled tokens");
const alpha3 = exponent("alpha3", "interaction: how much the gain from D2 shrinks as ln D1 grows", "1 per ln token");
const dataCoefficient = coefficient("A", "data coefficient", "nats/token");

/** How tokens enter a form: the part of a law beside its size and its irreducible loss. */
interface TokenForm extends Pick<PowerSum, "parameters" | "terms" | "derived" | "bounds" | "scan"> {
  /** Added to the ids of the laws. */
  readonly suffix: string;
  /** What sets it apart, in the titles of the laws; empty for the upcycling law itself. */
  readonly variant: string;
  readonly formula: string;
  /** Where the law with size and the one of one size are from. */
  readonly sources: readonly [withSize: string, oneSize: string];
  readonly note?: string;
}

/** The laws of one form: with size, and for one size. */
function lawsOf({ suffix, variant, formula, sources, note, ...form }: TokenForm): readonly [Law, Law] {
  const words = (...parts: readonly string[]): string => parts.filter((part) => part !== "").join(", ");
  return [
    powerSumLaw({
      ...form,
      id: `upcycling${suffix}`,
      title: words("upcycling", variant),
      formula: `L(D1, D2, N) = ${formula} + B N^-beta + E`,
      source: sources[0],
      columns: [columnN, columnD1, columnD2],
      parameters: [...form.parameters, ...ofSize("B", "beta"), irreducible()],
      terms: [...form.terms, term("B", fall("beta", "N")), term("E")],
      ...(note !== undefined && { note }),
    }),
    powerSumLaw({
      ...form,
      id: `upcycling-data${suffix}`,
      title: words("upcycling, data only", variant),
      formula: `L(D1, D2) = ${formula} + E`,
      source: sources[1],
      columns: [columnD1, columnD2],
      parameters: [...form.parameters, irreducible()],
      terms: [...form.terms, term("E")],
      note: "for one model size",
    }),
  ];
}

/** Of a form that is ours, for comparison. */
const ours = (what: string): readonly [string, string] => [
  `${what}: our definition, for comparison`,
  `${what}, for one model size: our definition, for comparison`,
];

/** The upcycling law, with the interaction of the parent's tokens and the later ones; and for one model size. */
export const [upcyclingLaw, upcyclingData] = lawsOf({
  suffix: "",
  variant: "",
  formula: "A D1^-alpha1 D2^(-alpha2 + alpha3 ln D1)",
  sources: [
    "Liew, Kato, Takase 2025 (arXiv 2502.03009), equation 12 as quoted in secondary sources",
    "Liew and Kato 2025 (arXiv 2510.06548), as quoted by reviewers",
  ],
  parameters: [dataCoefficient, alpha1, alpha2, alpha3],
  terms: [term("A", fall("alpha1", "D1"), fall("alpha2", "D2"), interaction("alpha3", "D1", "D2"))],
  ...ofInteraction("alpha3"),
  note: "for one MoE architecture; at small D2 it predicts a loss above the parent's, where it does not hold",
});

/** The upcycling law without its interaction; and for one model size. */
export const [upcyclingNoInteraction, upcyclingDataNoInteraction] = lawsOf({
  suffix: "-no-interaction",
  variant: "without interaction",
  formula: "A D1^-alpha1 D2^-alpha2",
  sources: ours("the upcycling law with alpha3 = 0"),
  parameters: [dataCoefficient, alpha1, alpha2],
  terms: [term("A", fall("alpha1", "D1"), fall("alpha2", "D2"))],
});

/** Both stages of training as terms of their own; and for one model size. */
export const [upcyclingAdditive, upcyclingDataAdditive] = lawsOf({
  suffix: "-additive",
  variant: "additive",
  formula: "A1 D1^-alpha1 + A2 D2^-alpha2",
  sources: ours("an additive alternative to the upcycling law"),
  parameters: [
    coefficient("A1", "coefficient of the parent's tokens", "nats/token"),
    alpha1,
    coefficient("A2", "coefficient of upcycled tokens", "nats/token"),
    alpha2,
  ],
  terms: [term("A1", fall("alpha1", "D1")), term("A2", fall("alpha2", "D2"))],
});

/** All tokens count alike; and for one model size. */
export const [upcyclingTotal, upcyclingDataTotal] = lawsOf({
  suffix: "-total",
  variant: "all tokens alike",
  formula: "A (D1 + D2)^-alpha",
  sources: ours("what remains if a parent's tokens are worth as much as later ones"),
  parameters: [
    coefficient("A", "data coefficient", "nats/token * tokens^alpha"),
    exponent("alpha", "exponent of all tokens"),
  ],
  terms: [term("A", fall("alpha", "D1 + D2"))],
  derived: { "D1 + D2": (column) => column("D1") + column("D2") },
});
