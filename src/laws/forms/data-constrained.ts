/**
 * Training on repeated data (Muennighoff et al. 2023): repeated tokens, and parameters beyond what they call for,
 * count less and less.
 */
import { columnD, columnN } from "./parts.js";
import { namedLaw } from "./expression-law.js";
import type { Column, Law, Parameter } from "./types.js";

const columnU: Column = { name: "U", meaning: "unique training tokens", unit: "tokens" };

const reuse: readonly Omit<Parameter, "role">[] = [
  { name: "R_D", meaning: "repetitions after which further ones are worth little", unit: "1" },
  {
    name: "R_N",
    meaning: "multiples of the best size for the unique tokens after which more is worth little",
    unit: "1",
  },
];

/** Effective data and parameters; `size` is the best size for the unique tokens by the law of unique data. */
function effective(a: string, b: string, e: string, alpha: string, beta: string): string {
  const g = `(((${alpha})*(${a})/((${beta})*(${b})))^(1/((${alpha})+(${beta}))))`;
  const size = `min(N,${g}*(${g}*min(U,D))^((${beta})/(${alpha})))`;
  const parameters = `(${size}*(1+R_N*(1-exp(-max(N/${size}-1,0)/R_N))))`;
  const data = `(min(U,D)*(1+R_D*(1-exp(-max(D/min(U,D)-1,0)/R_D))))`;
  return `(${e}) + (${a})*${parameters}^-(${alpha}) + (${b})*${data}^-(${beta})`;
}

const formula =
  "L(N, D, U) = A N'^-alpha + B D'^-beta + E, D' = U (1 + R_D (1 - exp(-(D/U - 1)/R_D))), N' alike " +
  "with R_N and with the size that is best for U tokens in place of U";
const source = "Muennighoff et al. 2023 (arXiv 2305.16264), equations 5 and 6";

/** The coefficients of unique data that its authors fitted to C4, with alpha = beta. */
const c4 = { a: 6.255414, b: 7.3049974, e: 0.6254804, alpha: 0.3526596 };

/** All seven parameters. */
export const dataConstrained: Law = namedLaw(
  effective("A", "B", "E", "alpha", "beta"),
  {
    id: "data-constrained",
    title: "repeated data",
    formula,
    source,
    columns: [columnN, columnD, columnU],
    parameters: [
      { name: "A", meaning: "size coefficient", unit: "nats/token * parameters^alpha" },
      { name: "B", meaning: "data coefficient", unit: "nats/token * tokens^beta" },
      { name: "E", meaning: "irreducible loss", unit: "nats/token" },
      { name: "alpha", meaning: "exponent of model size", unit: "1" },
      { name: "beta", meaning: "exponent of training tokens", unit: "1" },
      ...reuse,
    ],
  },
  {
    start: { A: 500, B: 1500, alpha: 0.35, beta: 0.35, R_D: 15, R_N: 5 },
    bounds: {
      ...{ A: [0, Infinity], B: [0, Infinity], E: [0, Infinity], alpha: [0.01, 2], beta: [0.01, 2] },
      ...{ R_D: [1e-3, 1e4], R_N: [1e-3, 1e4] },
    },
  },
);

/** What repetition is worth, with the law of unique data as its authors fitted it. */
export const dataConstrainedReuse: Law = namedLaw(
  effective(
    ...([c4.a, c4.b, c4.e].map((value) => `exp(${value})`) as [string, string, string]),
    `${c4.alpha}`,
    `${c4.alpha}`,
  ),
  {
    id: "data-constrained-reuse",
    title: "repeated data, on C4's law of unique data",
    formula: `${formula}; A = e^${c4.a}, B = e^${c4.b}, E = e^${c4.e}, alpha = beta = ${c4.alpha}`,
    source: `${source}; coefficients of unique data from its notebook parametric_fit.ipynb`,
    columns: [columnN, columnD, columnU],
    parameters: reuse,
    note: "the published values, R_D 15.387756 and R_N 5.309743, are no minimum of the objective on its 182 runs",
  },
  { start: { R_D: 15, R_N: 5 }, bounds: { R_D: [1e-3, 1e4], R_N: [1e-3, 1e4] } },
);
