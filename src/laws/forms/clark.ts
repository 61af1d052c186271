/** Routed language models: bilinear in the logs of size and effective experts. */
import { at, valueAt } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { generalLaw, meanLog } from "./general.js";
import { solve } from "../../base/linear-algebra.js";
import { addScaled, zeros } from "../../base/vectors.js";
import { product } from "./starts.js";
import type { Law, Points } from "./types.js";
import { effectiveExperts } from "./effective-experts.js";

/**
 * Routed language models (Clark et al. 2022). Internal parameters: a' = a + c m_E, b' = b + c m_N and
 * d' = d + a m_N + b m_E + c m_N m_E are slopes and value in the middle of the data, with m_N the mean of log10 N and
 * m_E that of log10 E; then ln Es, and ln(Em / Es - 1), so that Em stays above Es.
 */
export const clark: Law = generalLaw({
  id: "clark",
  title: "routed language models",
  formula:
    "log10 L(N, E) = a log10 N + b log10 Ehat + c log10 N log10 Ehat + d, 1/Ehat = 1/(E - 1 + 1/(1/Es - 1/Em)) + 1/Em",
  source: "Clark et al. 2022 (arXiv 2202.01169), equation 8 with the saturation of section 4",
  columns: [
    { name: "N", meaning: "parameters of the dense model before routing", unit: "parameters" },
    { name: "E", meaning: "experts, 1 for a dense model", unit: "experts" },
  ],
  parameters: [
    { name: "a", meaning: "slope in log10 N", unit: "1", role: "exponent" },
    { name: "b", meaning: "slope in log10 Ehat", unit: "1", role: "exponent" },
    { name: "c", meaning: "interaction of size and experts", unit: "1 per decade", role: "exponent" },
    { name: "d", meaning: "offset", unit: "log10(nats/token)", role: "shape" },
    { name: "Es", meaning: "what one expert counts as", unit: "experts", role: "coefficient" },
    { name: "Em", meaning: "what infinitely many experts count as", unit: "experts", role: "coefficient" },
  ],
  note: "fitted by its authors with squared errors of log10 L",
  center: (points) => [meanLog(points, "N") / Math.LN10, meanLog(points, "E") / Math.LN10],
  place: ([mN = NaN, mE = NaN], places, row) => {
    const u = Math.log10(at(valueAt(places.columns, "N"), row)) - mN;
    const experts = at(valueAt(places.columns, "E"), row);
    return (theta, slopes) => {
      const start = Math.exp(at(theta, 4));
      const ratio = Math.exp(at(theta, 5));
      const { logEhat, dLogStart, dLogMax } = effectiveExperts(experts, start, start * (1 + ratio));
      const v = logEhat / Math.LN10 - mE;
      const dv = at(theta, 1) + at(theta, 2) * u;
      slopes[0] = u * Math.LN10;
      slopes[1] = v * Math.LN10;
      slopes[2] = u * v * Math.LN10;
      slopes[3] = Math.LN10;
      slopes[4] = dv * (dLogStart + dLogMax);
      slopes[5] = (dv * dLogMax * ratio) / (1 + ratio);
      return (at(theta, 0) * u + dv * v + at(theta, 3)) * Math.LN10;
    };
  },
  natural: ([a = NaN, b = NaN, c = NaN, d = NaN, logStart = NaN, logRatio = NaN], [mN = NaN, mE = NaN]) => {
    const [slopeN, slopeE] = [a - c * mE, b - c * mN];
    const start = Math.exp(logStart);
    return Float64Array.of(
      slopeN,
      slopeE,
      c,
      d - slopeN * mN - slopeE * mE - c * mN * mE,
      start,
      start * (1 + Math.exp(logRatio)),
    );
  },
  internal: ([a = NaN, b = NaN, c = NaN, d = NaN, start = NaN, max = NaN], [mN = NaN, mE = NaN]) =>
    Float64Array.of(
      a + c * mE,
      b + c * mN,
      c,
      d + a * mN + b * mE + c * mN * mE,
      Math.log(start),
      Math.log(max / start - 1),
    ),
  lower: [-2, -2, -1, -5, -3, -4],
  upper: [2, 2, 1, 5, 6, 12],
  candidates: (points, center) =>
    product([
      [1.2, 2, 4, 8],
      [10, 50, 200, 800, 3000],
    ]).map(([start = NaN, ratio = NaN]) => linearStart(points, center, start, ratio)),
});

/** For given Es and Em the rest is linear least squares. */
function linearStart(
  points: Points,
  [mN = NaN, mE = NaN]: readonly number[],
  start: number,
  ratio: number,
): Float64Array {
  const rows = Array.from({ length: points.n }, (_, i) => {
    const u = Math.log10(at(valueAt(points.columns, "N"), i)) - mN;
    const v =
      effectiveExperts(at(valueAt(points.columns, "E"), i), start, start * (1 + ratio)).logEhat / Math.LN10 - mE;
    return Float64Array.of(u, v, u * v, 1);
  });
  const logs = points.loss.map(Math.log10);
  const gram = zeros(4, 4);
  const products = new Float64Array(4);
  for (const [i, row] of rows.entries()) {
    addScaled(products, at(logs, i), row);
    for (const [j, value] of row.entries()) {
      const gramRow = at(gram.rows, j);
      for (const [k, other] of row.entries()) gramRow[k] = at(gramRow, k) + (value * other + (j === k ? 1e-12 : 0));
    }
  }
  const [a = NaN, b = NaN, c = NaN, d = NaN] = solve(gram.values, 4, products) ?? [0, 0, 0, meanOf(logs)];
  return Float64Array.of(a, b, c, d, Math.log(start), Math.log(ratio));
}
