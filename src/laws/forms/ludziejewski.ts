/** Joint law of mixtures in active size, tokens and experts. */
import { at, valueAt } from "../../base/at.js";
import { generalLaw, meanLog } from "./general.js";
import { product } from "./starts.js";
import type { Law } from "./types.js";
import { columnD } from "./parts.js";
import { effectiveExperts } from "./effective-experts.js";

/**
 * Joint law of MoE models (Ludziejewski et al. 2025). m_N, m_D and m_E are the means of ln N, ln D and ln Ehat over the
 * points. Internal parameters, in this order: ln a' = ln a + delta m_E + alpha m_N + gamma m_N m_E,
 * alpha' = alpha + gamma m_E, delta' = delta + gamma m_N, gamma; then the same four of the data term (b, beta, omega,
 * zeta, with m_D in the place of m_N); then ln c, ln Es and ln(Em / Es - 1).
 */
export const ludziejewski: Law = generalLaw({
  id: "ludziejewski",
  title: "joint MoE",
  formula:
    "L(N, D, E) = a Ehat^delta N^(alpha + gamma ln Ehat) + b Ehat^omega D^(beta + zeta ln Ehat) + c, 1/Ehat = " +
    "1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em",
  source: "Ludziejewski et al. 2025 (arXiv 2502.05172), joint MoE law and its Table 3",
  columns: [
    { name: "N", meaning: "active parameters with embeddings", unit: "parameters" },
    columnD,
    { name: "E", meaning: "experts, 1 for a dense model", unit: "experts" },
  ],
  parameters: [
    { name: "a", meaning: "size coefficient", unit: "nats/token", role: "coefficient" },
    { name: "alpha", meaning: "exponent of model size (negative)", unit: "1", role: "exponent" },
    { name: "delta", meaning: "exponent of experts in the size term", unit: "1", role: "exponent" },
    { name: "gamma", meaning: "interaction of size and experts", unit: "1", role: "exponent" },
    { name: "b", meaning: "data coefficient", unit: "nats/token", role: "coefficient" },
    { name: "beta", meaning: "exponent of training tokens (negative)", unit: "1", role: "exponent" },
    { name: "omega", meaning: "exponent of experts in the data term", unit: "1", role: "exponent" },
    { name: "zeta", meaning: "interaction of data and experts", unit: "1", role: "exponent" },
    { name: "c", meaning: "irreducible loss", unit: "nats/token", role: "constant" },
    { name: "Es", meaning: "what one expert counts as", unit: "experts", role: "coefficient" },
    { name: "Em", meaning: "what infinitely many experts count as", unit: "experts", role: "coefficient" },
  ],
  note: "eleven parameters: needs many sizes, token counts and expert counts",
  center: (points) => ["N", "D", "E"].map((name) => meanLog(points, name)),
  place: ([mN = NaN, mD = NaN, mE = NaN], places, row) => {
    const u = Math.log(at(valueAt(places.columns, "N"), row)) - mN;
    const v = Math.log(at(valueAt(places.columns, "D"), row)) - mD;
    const experts = at(valueAt(places.columns, "E"), row);
    return (t, slopes) => {
      const start = Math.exp(at(t, 9));
      const ratio = Math.exp(at(t, 10));
      const { logEhat, dLogStart, dLogMax } = effectiveExperts(experts, start, start * (1 + ratio));
      const w = logEhat - mE;
      const size = Math.exp(at(t, 0) + at(t, 1) * u + at(t, 2) * w + at(t, 3) * u * w);
      const data = Math.exp(at(t, 4) + at(t, 5) * v + at(t, 6) * w + at(t, 7) * v * w);
      const rest = Math.exp(at(t, 8));
      const total = size + data + rest;
      const [s, d] = [size / total, data / total];
      const dw = s * (at(t, 2) + at(t, 3) * u) + d * (at(t, 6) + at(t, 7) * v);
      slopes.set([
        s,
        s * u,
        s * w,
        s * u * w,
        d,
        d * v,
        d * w,
        d * v * w,
        rest / total,
        dw * (dLogStart + dLogMax),
        (dw * dLogMax * ratio) / (1 + ratio),
      ]);
      return Math.log(total);
    };
  },
  natural: (t, [mN = NaN, mD = NaN, mE = NaN]) => {
    const [alpha, delta, beta, omega] = [
      at(t, 1) - at(t, 3) * mE,
      at(t, 2) - at(t, 3) * mN,
      at(t, 5) - at(t, 7) * mE,
      at(t, 6) - at(t, 7) * mD,
    ];
    const start = Math.exp(at(t, 9));
    return Float64Array.of(
      Math.exp(at(t, 0) - alpha * mN - delta * mE - at(t, 3) * mN * mE),
      alpha,
      delta,
      at(t, 3),
      Math.exp(at(t, 4) - beta * mD - omega * mE - at(t, 7) * mD * mE),
      beta,
      omega,
      at(t, 7),
      Math.exp(at(t, 8)),
      start,
      start * (1 + Math.exp(at(t, 10))),
    );
  },
  internal: (
    [
      a = NaN,
      alpha = NaN,
      delta = NaN,
      gamma = NaN,
      b = NaN,
      beta = NaN,
      omega = NaN,
      zeta = NaN,
      c = NaN,
      start = NaN,
      max = NaN,
    ],
    [mN = NaN, mD = NaN, mE = NaN],
  ) =>
    Float64Array.of(
      Math.log(a) + alpha * mN + delta * mE + gamma * mN * mE,
      alpha + gamma * mE,
      delta + gamma * mN,
      gamma,
      Math.log(b) + beta * mD + omega * mE + zeta * mD * mE,
      beta + zeta * mE,
      omega + zeta * mD,
      zeta,
      Math.log(c),
      Math.log(start),
      Math.log(max / start - 1),
    ),
  lower: [-20, -5, -5, -1, -20, -5, -5, -1, -20, -3, -4],
  upper: [40, 0, 5, 1, 40, 0, 5, 1, 40, 6, 12],
  candidates: (points) => {
    const middle = points.loss.reduce((sum, value) => sum + Math.log(value), 0) / points.n;
    return product([
      [-2, -1],
      [-0.3, -0.1],
      [-2, -1],
      [-0.3, -0.1],
      [-1.5, -0.5],
      [1.5, 4],
      [50, 300],
    ]).map(([size = NaN, alpha = NaN, data = NaN, beta = NaN, rest = NaN, start = NaN, ratio = NaN]) =>
      Float64Array.of(
        middle + size,
        alpha,
        -0.05,
        0,
        middle + data,
        beta,
        0,
        0,
        middle + rest,
        Math.log(start),
        Math.log(ratio),
      ),
    );
  },
});
