import { describe, expect, it } from "vitest";
import { fitLaw } from "../../src/laws/fitting/fit.js";
import type { Loss } from "../../src/laws/solvers/loss.js";
import { published } from "../../src/laws/forms/published.js";
import {
  chinchillaPoints,
  gemstones,
  gridOf,
  haveData,
  law,
  publishedParams,
  routed,
  simulated,
  spaced,
  upcyclingGrid,
} from "./data.js";
import { valueAt } from "../../src/base/at.js";
import { present } from "../support/present.js";

const huber = (delta: number): Loss => ({ name: "huber", delta });
const lad: Loss = { name: "lad", delta: 0 };
const mse: Loss = { name: "mse", delta: 0 };

describe.skipIf(!haveData)("Chinchilla on the 240 points of Epoch", () => {
  const points = haveData
    ? chinchillaPoints()
    : simulated(law("chinchilla"), publishedParams("hoffmann"), gridOf({ N: [1e8, 1e9], D: [1e9, 1e10] }));

  it("reaches the true minimum of Huber's loss", () => {
    expect(points.n).toBe(240);
    const { params, objective, status, gradientNorm, starts } = fitLaw(law("chinchilla"), points, {
      loss: huber(1e-3),
    });
    expect(objective).toBeLessThanOrEqual(0.00101827401781);
    expect(Math.abs(valueAt(params, "A") - 477.826)).toBeLessThanOrEqual(0.01);
    expect(Math.abs(valueAt(params, "B") - 2143.42)).toBeLessThanOrEqual(0.1);
    expect(Math.abs(valueAt(params, "E") - 1.817218)).toBeLessThanOrEqual(1e-5);
    expect(Math.abs(valueAt(params, "alpha") - 0.34731)).toBeLessThanOrEqual(1e-5);
    expect(Math.abs(valueAt(params, "beta") - 0.367172)).toBeLessThanOrEqual(1e-5);
    expect(status).toBe("converged");
    expect(gradientNorm).toBeLessThan(1e-5);
    expect(starts.share).toBe(1);
  });

  it("reaches the published values as the minimum of sum |r|", () => {
    const { params, objective, status, gradientNorm } = fitLaw(law("chinchilla"), points, { loss: lad });
    expect(objective).toBeLessThanOrEqual(1.1294948);
    expect(Math.abs(valueAt(params, "A") - 482.006)).toBeLessThanOrEqual(0.05);
    expect(Math.abs(valueAt(params, "B") - 2085.44)).toBeLessThanOrEqual(0.3);
    expect(Math.abs(valueAt(params, "alpha") - 0.347813)).toBeLessThanOrEqual(1e-5);
    expect(Math.abs(valueAt(params, "beta") - 0.365854)).toBeLessThanOrEqual(1e-5);
    // The multipliers of the points it passes through prove it optimal.
    expect([status, gradientNorm < 1e-9]).toEqual(["converged", true]);
  });

  it.each([
    [huber(1e-2), [538.8, 2905.6, 1.8381, 0.3544, 0.3815]],
    [huber(1e-4), [478.7, 2065.4, 1.8158, 0.3474, 0.3654]],
    [mse, [593.3, 4875.6, 1.8646, 0.3603, 0.4059]],
  ])("depends on the loss as known: %j", (loss, [A, B, E, alpha, beta]) => {
    const { params } = fitLaw(law("chinchilla"), points, { loss });
    expect(params.A).toBeCloseTo(present(A), 1);
    expect(params.B).toBeCloseTo(present(B), 0);
    expect(params.E).toBeCloseTo(present(E), 4);
    expect(params.alpha).toBeCloseTo(present(alpha), 4);
    expect(params.beta).toBeCloseTo(present(beta), 4);
  });
});

describe.skipIf(!haveData)("Gemstones", () => {
  // The reference prints its minima with six or seven digits: half a unit of the last is theirs.
  it.each([
    ["slim_chinchilla", 28, 1.30364e-5, 5e-11],
    ["hot_sampled_like_chinchilla", 24, 2.25719e-5, 5e-11],
    ["hot", 220, 2.075052e-4, 5e-11],
    ["cool_end", 199, 2.047791e-4, 5e-11],
  ])("%s: the minimum is at most the best one published", (name, n, best, digits) => {
    const points = gemstones(name);
    expect(points.n).toBe(n);
    const { objective, status } = fitLaw(law("chinchilla"), points, { loss: huber(1e-4) });
    expect(objective).toBeLessThanOrEqual(best + digits);
    expect(status).toBe("converged");
  });
});

describe.skipIf(!haveData)("routed language models", () => {
  it.each([
    ["S-Base", 58, [-0.08303, -0.11804, 0.00992, 1.11358], 0.003228],
    ["RL-R", 59, [-0.08273, -0.12342, 0.01123, 1.10701], 0.003229],
    ["Hash", 56, [-0.08736, -0.13836, 0.01264, 1.15953], 0.002982],
  ])("%s: within the tolerances of the published fit", (router, n, [a, b, c, d], rmse) => {
    const points = routed(router);
    const { params, objective } = fitLaw(law("clark"), points, { loss: mse });
    expect(points.n).toBe(n);
    const near = (name: string, expected: number, tolerance: number): void =>
      expect(Math.abs(valueAt(params, name) - expected), name).toBeLessThanOrEqual(tolerance);
    const theirs = publishedParams(`clark-${router.toLowerCase()}`);
    for (const [name, ours, tolerance] of [
      ["a", a, 0.002],
      ["b", b, 0.012],
      ["c", c, 0.0015],
      ["d", d, 0.01],
    ] as const) {
      near(name, valueAt(theirs, name), tolerance);
      near(name, present(ours), 1e-4);
    }
    expect(Math.sqrt(objective / n) / Math.LN10).toBeCloseTo(rmse, 5);
  });
});

describe("noiseless points give back the law they are from", () => {
  const values: Record<string, number[]> = {
    N: spaced(1e8, 1e9, 4),
    D: spaced(1e9, 1e11, 4),
    G: [1, 2, 4, 8, 16],
    S: [0, 0.5, 0.75, 0.9, 0.95],
    E: [1, 2, 4, 8, 16, 32, 64],
  };
  // Laws with columns of their own are fitted to published points (published.test.ts).
  const usual = published.filter(({ law: id }) =>
    law(id).columns.every(({ name }) => id === "upcycling" || name in values),
  );
  const cases = usual.flatMap((coefficients) =>
    [huber(1e-3), lad, mse].map((loss) => [coefficients.id, loss.name, coefficients, loss] as const),
  );

  it.each(cases)("%s: a fit by %s finds the parameters", (_, __, { law: id, params }, loss) => {
    const form = law(id);
    const places =
      id === "upcycling"
        ? upcyclingGrid
        : gridOf(Object.fromEntries(form.columns.map(({ name }) => [name, valueAt(values, name)])));
    const fit = fitLaw(form, simulated(form, params, places), { loss });
    for (const { name } of form.parameters)
      expect(Math.abs(valueAt(fit.params, name) / valueAt(params, name) - 1), name).toBeLessThan(1e-10);
    expect(fit.status).toBe("converged");
  });
});

describe("a fit that is no proper optimum", () => {
  it("ends at a bound and says so", () => {
    // Losses too low for any irreducible part: E falls as far as it may.
    const points = simulated(
      law("joint"),
      publishedParams("liew-dense"),
      gridOf({ D: spaced(1e9, 1e11, 4), N: spaced(1e8, 1e9, 4) }),
    );
    const { status, atBound, params } = fitLaw(
      law("joint"),
      { ...points, loss: points.loss.map((value) => value - 0.4) },
      { loss: mse },
    );
    expect([status, atBound]).toEqual(["at-bound", ["E"]]);
    expect(params.E).toBeLessThan(1e-6);
  });

  it("stops at the limit of iterations and says so", () => {
    const points = simulated(
      law("chinchilla"),
      publishedParams("hoffmann"),
      gridOf({ N: spaced(1e8, 1e10, 4), D: spaced(1e9, 1e11, 4) }),
      0.01,
    );
    expect(fitLaw(law("chinchilla"), points, { limits: { iterations: 1, tolerance: 0 } }).status).toBe(
      "iteration-limit",
    );
  });
});
