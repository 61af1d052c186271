/**
 * Published coefficients, with where each was read. `read`: in the paper or computed from its data; `secondary`: in
 * notes about the paper, so say so wherever it is shown.
 */
import type { Params } from "./types.js";

/** Coefficients of one law. */
interface PublishedCoefficients {
  readonly id: string;
  /** A law of the catalogue. */
  readonly law: string;
  readonly params: Params;
  readonly source: string;
  readonly provenance: "read" | "secondary";
  /**
   * The last printed digits, as half a unit in the last place, by parameter: rounding alone moves predictions by this
   * much.
   */
  readonly rounding?: Params;
}

const liew = "Liew, Kato, Takase 2025 (arXiv 2502.03009), Table 2, from an extract in notes about the paper";

/** All of them. */
export const published: readonly PublishedCoefficients[] = [
  {
    id: "liew-dense",
    law: "joint",
    source: liew,
    provenance: "secondary",
    params: { A: 8.83, alpha: 0.088, B: 12.3, beta: 0.116, E: 0.165 },
    rounding: { A: 0.005, alpha: 0.0005, B: 0.05, beta: 0.0005, E: 0.0005 },
  },
  {
    // Fitted with the size of the dense parent, "for comparison conveniences".
    id: "liew-moe",
    law: "joint",
    source: liew,
    provenance: "secondary",
    params: { A: 32.0, alpha: 0.161, B: 7.05, beta: 0.08, E: 0.165 },
    rounding: { A: 0.05, alpha: 0.0005, B: 0.005, beta: 0.0005, E: 0.0005 },
  },
  {
    id: "liew-upcycled",
    law: "upcycling",
    source: liew,
    provenance: "secondary",
    params: { A: 16.3, alpha1: 0.043, alpha2: 0.085, alpha3: 7.98e-4, B: 8.53, beta: 0.112, E: 0.165 },
    rounding: { A: 0.05, alpha1: 0.0005, alpha2: 0.0005, alpha3: 5e-7, B: 0.005, beta: 0.0005, E: 0.0005 },
  },
  {
    id: "hoffmann",
    law: "chinchilla",
    source: "Hoffmann et al. 2022 (arXiv 2203.15556), as rounded in later papers",
    provenance: "secondary",
    params: { A: 406.4, B: 410.7, E: 1.69, alpha: 0.34, beta: 0.28 },
    rounding: { A: 0.05, B: 0.05, E: 0.005, alpha: 0.005, beta: 0.005 },
  },
  {
    id: "besiroglu",
    law: "chinchilla",
    provenance: "read",
    source:
      "Besiroglu et al. 2024 (arXiv 2404.10102), unrounded from its notebook; minimises sum |r|, not Huber's loss",
    params: { A: 482.00572, B: 2085.4342, E: 1.81686, alpha: 0.34781, beta: 0.36585 },
    rounding: { A: 5e-6, B: 5e-6, E: 5e-6, alpha: 5e-6, beta: 5e-6 },
  },
  {
    id: "ludziejewski",
    law: "ludziejewski",
    source: "Ludziejewski et al. 2025 (arXiv 2502.05172), Table 3",
    provenance: "read",
    params: {
      a: 35.91,
      alpha: -0.1889,
      delta: -0.2285,
      gamma: 0.0098,
      b: 35.98,
      beta: -0.1775,
      omega: 0.5529,
      zeta: -0.0259,
      c: 1.3637,
      Es: 2.0732,
      Em: 290.4521,
    },
  },
  {
    id: "krajewski",
    law: "krajewski",
    source: "Krajewski et al. 2024 (arXiv 2402.07871), from notes about the paper",
    provenance: "secondary",
    params: { a: 18.1, alpha: 0.115, b: 30.8, beta: 0.147, g: 2.1, gamma: 0.58, c: 0.47 },
  },
  {
    id: "abnar",
    law: "abnar",
    source: "Abnar et al. 2025 (arXiv 2501.12370), from notes about the paper",
    provenance: "secondary",
    params: {
      a: 16612.5,
      alpha: 0.5962,
      b: 5455.67,
      beta: 0.3954,
      c: 0.4598,
      lambda: -0.1666,
      d: 17.26,
      delta: 0.1603,
      gamma: 0.1595,
      e: 0.94,
    },
  },
  {
    id: "muennighoff",
    law: "data-constrained-reuse",
    source: "Muennighoff et al. 2023 (arXiv 2305.16264), unrounded from its notebook; not the minimum of its objective",
    provenance: "read",
    params: { R_D: 15.387756, R_N: 5.309743 },
  },
  {
    id: "ling",
    law: "efficiency-leverage",
    source: "Tian et al. 2025 (arXiv 2507.17702), Table 2, read in a full-text copy",
    provenance: "read",
    params: { a: 1.23, d: -0.0761, gamma: 0.0167, beta: -0.117, A_start: 0.0163, A_max: 5.28e16 },
    rounding: { a: 0.005, d: 5e-5, gamma: 5e-5, beta: 5e-4, A_start: 5e-5, A_max: 5e13 },
  },
  ...(
    [
      ["s-base", { a: -0.082, b: -0.108, c: 0.009, d: 1.104, Es: 1.847, Em: 314.478 }],
      ["rl-r", { a: -0.083, b: -0.126, c: 0.012, d: 1.111, Es: 1.88, Em: 469.982 }],
      ["hash", { a: -0.087, b: -0.136, c: 0.012, d: 1.157, Es: 4.175, Em: 477.741 }],
    ] as const
  ).map(([router, params]): PublishedCoefficients => ({
    id: `clark-${router}`,
    law: "clark",
    params,
    provenance: "secondary",
    source: "Clark et al. 2022 (arXiv 2202.01169), Table 3, from notes about the paper",
  })),
];

/** The coefficients called `id`; undefined: there are none. */
export function publishedById(id: string): PublishedCoefficients | undefined {
  return published.find((coefficients) => coefficients.id === id);
}
