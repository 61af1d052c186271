/** Kaplan's law: one power of a sum of two. */
import { at, valueAt } from "../../base/at.js";
import { meanOf } from "../../base/mean.js";
import { generalLaw, meanLog } from "./general.js";
import { product } from "./starts.js";
import type { Law } from "./types.js";
import { columnD } from "./parts.js";

/**
 * Kaplan's law (Kaplan et al. 2020). Internal parameters: t_N = (alphaN / alphaD)(ln Nc - mean ln N) and
 * t_D = ln Dc - mean ln D, each term's logarithm in the middle of the data; rho = alphaN / alphaD and alphaD as
 * logarithms. Then ln L = alphaD lse(t_N - rho u, t_D - v) with u, v the centred logs.
 */
export const kaplan: Law = generalLaw({
  id: "kaplan",
  title: "Kaplan",
  formula: "L(N, D) = ((Nc / N)^(alphaN / alphaD) + Dc / D)^alphaD",
  source: "Kaplan et al. 2020 (arXiv 2001.08361), equation 1.5",
  columns: [{ name: "N", meaning: "parameters without embeddings", unit: "parameters" }, columnD],
  parameters: [
    { name: "Nc", meaning: "size at which size alone would give a loss of 1", unit: "parameters", role: "coefficient" },
    { name: "alphaN", meaning: "exponent of model size", unit: "1", role: "exponent" },
    { name: "Dc", meaning: "tokens at which data alone would give a loss of 1", unit: "tokens", role: "coefficient" },
    { name: "alphaD", meaning: "exponent of training tokens", unit: "1", role: "exponent" },
  ],
  note: "no irreducible loss: it falls to zero",
  center: (points) => [meanLog(points, "N"), meanLog(points, "D")],
  place: ([n = NaN, d = NaN], places, row) => {
    const u = Math.log(at(valueAt(places.columns, "N"), row)) - n;
    const v = Math.log(at(valueAt(places.columns, "D"), row)) - d;
    return (theta, slopes) => {
      const rho = Math.exp(at(theta, 1));
      const alpha = Math.exp(at(theta, 3));
      const z1 = at(theta, 0) - rho * u;
      const z2 = at(theta, 2) - v;
      const top = Math.max(z1, z2);
      const [e1, e2] = [Math.exp(z1 - top), Math.exp(z2 - top)];
      const lse = top + Math.log(e1 + e2);
      const share = e1 / (e1 + e2);
      slopes[0] = alpha * share;
      slopes[1] = -alpha * share * rho * u;
      slopes[2] = alpha * (1 - share);
      slopes[3] = alpha * lse;
      return alpha * lse;
    };
  },
  natural: (theta, [n = NaN, d = NaN]) => {
    const rho = Math.exp(at(theta, 1));
    const alpha = Math.exp(at(theta, 3));
    return Float64Array.of(Math.exp(n + at(theta, 0) / rho), rho * alpha, Math.exp(d + at(theta, 2)), alpha);
  },
  internal: ([nc = NaN, alphaN = NaN, dc = NaN, alphaD = NaN], [n = NaN, d = NaN]) => {
    const rho = alphaN / alphaD;
    return Float64Array.of(rho * (Math.log(nc) - n), Math.log(rho), Math.log(dc) - d, Math.log(alphaD));
  },
  lower: [-60, -5, -60, -7],
  upper: [200, 5, 200, 2],
  candidates: (points) => {
    // In the middle both terms share the loss: alphaD (t + ln 2) = mean ln L.
    const middle = meanOf(points.loss.map(Math.log));
    return product([
      [-1, -0.3, 0, 0.5],
      [0.03, 0.06, 0.1, 0.2, 0.4],
      [-3, 0, 3],
    ]).map(([logRho = NaN, alpha = NaN, tilt = NaN]) =>
      Float64Array.of(middle / alpha - Math.LN2 + tilt, logRho, middle / alpha - Math.LN2 - tilt, Math.log(alpha)),
    );
  },
});
