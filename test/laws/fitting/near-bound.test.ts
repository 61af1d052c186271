import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { problemOf } from "../../../src/laws/fitting/fit.js";
import { likelihoodRatioQuantile } from "../../../src/laws/fitting/near-bound.js";
import { profileParameter } from "../../../src/laws/fitting/profile.js";
import { fitNear, law, publishedParams, simulated, upcyclingGrid } from "../data.js";

/** The quantile of the ratio by simulation: noise, projected onto the half plane and onto its part of the line. */
function simulatedQuantile(level: number, distance: number, correlation: number): number {
  const n = 100_000;
  const noise = new Float64Array(2 * n);
  randomStream(3, "half plane").normals(noise, 0, 0, 1);
  const [cosine, sine] = [Math.abs(correlation), Math.sqrt(1 - correlation ** 2)];
  const ratios = Float64Array.from({ length: n }, (_, i) => {
    const [x, y] = [at(noise, 2 * i), at(noise, 2 * i + 1)];
    const outside = Math.max(0, -distance - y);
    // Along the line, no further than where it meets the bound.
    const along = Math.max(x * cosine + y * sine, sine === 0 ? -Infinity : -distance / sine);
    return (x - along * cosine) ** 2 + (y - along * sine) ** 2 - outside ** 2;
  });
  return at(ratios.sort(), Math.floor(level * n));
}

describe("the likelihood ratio near a bound", () => {
  it.each([
    [0, 1],
    [0.4, 1],
    [1, 1],
    [0, 0.995],
    [0.4, 0.995],
    [0.4, 0.8],
    [1, -0.97],
    [0.2, 0],
  ])("has the quantile of a simulation (distance %d, correlation %d)", (distance, correlation) => {
    const found = likelihoodRatioQuantile(0.9, { distance, correlation });
    expect(found / simulatedQuantile(0.9, distance, correlation)).toBeCloseTo(1, 1);
  });

  it("has the published quantiles of a parameter with a bound, and chi-squared's far away", () => {
    // Feldman and Cousins 1998: a mean that may not be negative. At the bound one side is all of the distribution.
    expect(likelihoodRatioQuantile(0.9, { distance: 0, correlation: 1 })).toBeCloseTo(1.2816 ** 2, 3);
    expect(likelihoodRatioQuantile(0.9, { distance: 10, correlation: 1 })).toBeCloseTo(2.7055, 3);
    expect(likelihoodRatioQuantile(0.95, { distance: Infinity, correlation: 0 })).toBeCloseTo(3.8415, 3);
    expect(likelihoodRatioQuantile(0.9, { distance: 0.3, correlation: 0 })).toBeCloseTo(2.7055, 2);
  });
});

describe("profiles near a bound", () => {
  it("cover a parameter that goes together with the bounded one as often as they say", () => {
    // E is half a standard error above zero, and beta goes together with it.
    const truth = publishedParams("liew-upcycled");
    const beta = law("upcycling").parameters.findIndex(({ name }) => name === "beta");
    const loss = { name: "mse", delta: 0 } as const;
    const studies = 40;
    const covered = Array.from({ length: studies }, (_, seed) => {
      const points = simulated(law("upcycling"), truth, upcyclingGrid, 0.005, seed);
      const fit = fitNear(law("upcycling"), points, truth, loss);
      const { low, high } = profileParameter(fit, problemOf(fit.bound, points, loss), beta, { level: 0.9 });
      return low <= (truth.beta ?? NaN) && (truth.beta ?? NaN) <= high;
    }).filter(Boolean).length;
    // 98 of 100 series of 40 studies at 90 % lie between these; the seeds are fixed. bench/laws-coverage.mjs has 1,000.
    expect(covered).toBeGreaterThanOrEqual(31);
    expect(covered).toBeLessThan(40);
  });
});
