/** Joint law of mixtures in active size, tokens and experts. */
import { generalLaw, meanLog } from "./general.js";
import { product } from "./starts.js";
import type { Law } from "./types.js";
import { columnD } from "./chinchilla.js";
import { effectiveExperts } from "./effective-experts.js";

/**
 * Internal: ln a' = ln a + delta m_E + alpha m_N + gamma m_N m_E (the size term in the middle of the data), alpha' =
 * alpha + gamma m_E, delta' = delta + gamma m_N, gamma, likewise for the data term; ln c; ln Es and ln(Em / Es - 1).
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
  place: ([mN, mD, mE], places, row) => {
    const u = Math.log(places.columns.N![row]!) - mN!;
    const v = Math.log(places.columns.D![row]!) - mD!;
    const experts = places.columns.E![row]!;
    return (t, slopes) => {
      const start = Math.exp(t[9]!);
      const ratio = Math.exp(t[10]!);
      const { logEhat, dLogStart, dLogMax } = effectiveExperts(experts, start, start * (1 + ratio));
      const w = logEhat - mE!;
      const size = Math.exp(t[0]! + t[1]! * u + t[2]! * w + t[3]! * u * w);
      const data = Math.exp(t[4]! + t[5]! * v + t[6]! * w + t[7]! * v * w);
      const rest = Math.exp(t[8]!);
      const total = size + data + rest;
      const [s, d] = [size / total, data / total];
      const dw = s * (t[2]! + t[3]! * u) + d * (t[6]! + t[7]! * v);
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
  natural: (t, [mN, mD, mE]) => {
    const [alpha, delta, beta, omega] = [
      t[1]! - t[3]! * mE!,
      t[2]! - t[3]! * mN!,
      t[5]! - t[7]! * mE!,
      t[6]! - t[7]! * mD!,
    ];
    const start = Math.exp(t[9]!);
    return Float64Array.of(
      Math.exp(t[0]! - alpha * mN! - delta * mE! - t[3]! * mN! * mE!),
      alpha,
      delta,
      t[3]!,
      Math.exp(t[4]! - beta * mD! - omega * mE! - t[7]! * mD! * mE!),
      beta,
      omega,
      t[7]!,
      Math.exp(t[8]!),
      start,
      start * (1 + Math.exp(t[10]!)),
    );
  },
  internal: ([a, alpha, delta, gamma, b, beta, omega, zeta, c, start, max], [mN, mD, mE]) =>
    Float64Array.of(
      Math.log(a!) + alpha! * mN! + delta! * mE! + gamma! * mN! * mE!,
      alpha! + gamma! * mE!,
      delta! + gamma! * mN!,
      gamma!,
      Math.log(b!) + beta! * mD! + omega! * mE! + zeta! * mD! * mE!,
      beta! + zeta! * mE!,
      omega! + zeta! * mD!,
      zeta!,
      Math.log(c!),
      Math.log(start!),
      Math.log(max! / start! - 1),
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
    ]).map(([size, alpha, data, beta, rest, start, ratio]) =>
      Float64Array.of(
        middle + size!,
        alpha!,
        -0.05,
        0,
        middle + data!,
        beta!,
        0,
        0,
        middle + rest!,
        Math.log(start!),
        Math.log(ratio!),
      ),
    );
  },
});
