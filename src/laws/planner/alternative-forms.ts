/**
 * Other forms that an upcycling law may have. Which form is right is not known: an interaction of D1 and D2 fits best
 * where it was tried (Liew and Kato 2025, arXiv 2510.06548), and no theory demands it. Each alternative touches the law
 * in the middle of the fitted tokens, in value and in both slopes, so inside of them all are alike and outside they
 * part: their spread is the error of the form.
 */
import type { Params } from "../forms/types.js";

/** The form of the data term. `interaction` is the law itself. */
export const upcyclingForms = ["interaction", "no-interaction", "additive"] as const;
/** One of `upcyclingForms`. */
export type UpcyclingForm = (typeof upcyclingForms)[number];

/** What each form is called. */
export const formNames: Readonly<Record<UpcyclingForm, string>> = {
  interaction: "with interaction",
  "no-interaction": "without interaction",
  additive: "additive",
};

/** Loss in nats per token: N parameters of the parent, D1 and D2 tokens. */
type UpcycledLoss = (size: number, seen: number, tokens: number) => number;

/**
 * The law A D1^-a1 D2^(-a2 + a3 ln D1) + B N^-b + E in another form that touches it at ln D1 = ln D2 = `centre`.
 *
 * With u, v the deviations of ln D1, ln D2 from the centre, the data term is T exp(-p u - q v + a3 u v). Without
 * interaction the last product is left out. Additive, the term is split into T p / (p + q) for D1 and T q / (p + q) for
 * D2, both of which fall with the exponent p + q: the one split with a common exponent that keeps value and slopes.
 */
export function alternativeForm(form: UpcyclingForm, params: Params, centre: number): UpcycledLoss {
  const value = (name: string): number => params[name] ?? NaN;
  const [a3, b, constant] = [value("alpha3"), value("beta"), value("E")];
  const p = value("alpha1") - a3 * centre;
  const q = value("alpha2") - a3 * centre;
  const term = value("A") * Math.exp(-(value("alpha1") + value("alpha2")) * centre + a3 * centre * centre);
  const data = (u: number, v: number): number => {
    switch (form) {
      case "interaction":
        return term * Math.exp(-p * u - q * v + a3 * u * v);
      case "no-interaction":
        return term * Math.exp(-p * u - q * v);
      case "additive":
        return (term * (p * Math.exp(-(p + q) * u) + q * Math.exp(-(p + q) * v))) / (p + q);
    }
  };
  return (size, seen, tokens) =>
    data(Math.log(seen) - centre, Math.log(tokens) - centre) + value("B") * size ** -b + constant;
}

/**
 * Share of the gain from further tokens that is left to a dense model which has seen D1 tokens, over what a model at
 * the smallest fitted D1 gains. The exponent of D2 falls with ln D1 for continued training too (Liew and Kato 2025,
 * arXiv 2510.06548, whose coefficients we could not read); here it falls as in the law of upcycled models.
 */
export function reuseShare(params: Params, smallestSeen: number, seen: number): number {
  const { alpha2 = NaN, alpha3 = NaN } = params;
  const exponent = (tokens: number): number => alpha2 - alpha3 * Math.log(tokens);
  return Math.min(1, Math.max(0, exponent(seen) / exponent(smallestSeen)));
}
