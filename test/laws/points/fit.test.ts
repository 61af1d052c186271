import { describe, expect, it } from "vitest";
import { runFit, type FitRequest } from "../../../src/laws/points/fit.js";
import { openPool } from "../../../src/laws/points/pool.js";
import { gridOf, law, publishedParams, simulated, spaced, together } from "../data.js";
import { at, valueAt } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

const points = simulated(
  law("chinchilla"),
  publishedParams("hoffmann"),
  gridOf({ N: spaced(1e8, 1e10, 6), D: spaced(1e9, 1e11, 6) }),
  0.005,
  1,
);
const request: FitRequest = {
  law: { id: "chinchilla" },
  points,
  loss: { name: "huber", delta: 1e-3 },
  starts: "projection",
  bootstrap: 200,
  profile: true,
  level: 0.9,
  seed: 3,
  threads: 1,
  compare: [{ id: "kaplan" }],
  predict: [{ columns: { N: 1e11, D: 1e12 } }],
};

describe("a whole fit", () => {
  it("is the same on any number of threads", async () => {
    const [one, three] = await Promise.all([runFit(request), runFit({ ...request, threads: 3 })]);
    expect(three.fit.theta).toEqual(one.fit.theta);
    expect(three.draws).toEqual(one.draws);
    expect(three.predictions).toEqual(one.predictions);
    expect(one.draws.A).toHaveLength(200);
    const [prediction] = one.predictions;
    expect(present(prediction).loss).toBeGreaterThan(present(present(prediction).profile).low);
    expect(present(prediction).loss).toBeLessThan(present(present(prediction).bootstrap).high);
    expect(present(prediction).warnings.map(({ kind }) => kind)).toEqual(["extrapolation", "extrapolation"]);
    expect(one.comparison.map((entry) => entry.law)).toEqual(["chinchilla", "kaplan"]);
    expect(at(one.comparison, 0).aic).toBeLessThan(at(one.comparison, 1).aic);
  });

  it("runs a grid over threads and tells how far it is", async () => {
    const steps: string[] = [];
    const small = {
      ...request,
      starts: "grid" as const,
      bootstrap: 0,
      profile: false,
      compare: [],
      predict: [],
      law: { id: "upcycling-data" },
    };
    const places = gridOf({ D1: spaced(2e9, 7e10, 4), D2: spaced(1e9, 4e10, 4) });
    const points = simulated(law("upcycling-data"), { A: 12, alpha1: 0.05, alpha2: 0.1, alpha3: 8e-4, E: 1.2 }, places);
    const { fit } = await runFit({ ...small, points: points, threads: 2 }, ({ what, done, total }) =>
      steps.push(`${what} ${done}/${total}`),
    );
    expect(fit.params.alpha3).toBeCloseTo(8e-4, 10);
    expect(fit.starts.share).toBeGreaterThan(0.5);
    expect(steps.at(-1)).toMatch(/^starts (\d+)\/\1$/);
  });

  it("takes formulas to threads", async () => {
    const formula = { formula: "A * N^-a + B * D^-b + C", columns: [], start: {} };
    const [byId, byFormula] = await Promise.all([
      runFit({ ...request, compare: [] }),
      runFit({ ...request, law: formula, threads: 2, compare: [] }),
    ]);
    expect(byFormula.fit.objective).toBeCloseTo(byId.fit.objective, 12);
    expect(byFormula.fit.params.a).toBeCloseTo(valueAt(byId.fit.params, "alpha"), 6);
  });

  it("says when too few runs are resampled", async () => {
    const cluster = Array.from({ length: points.n }, (_, i) => String(i % 4));
    const { notes } = await runFit({
      ...request,
      points: { ...points, cluster },
      bootstrap: 5,
      profile: false,
      compare: [],
      predict: [],
    });
    expect(notes).toEqual(["Only 4 runs to resample: bootstrap intervals will be too narrow."]);
  });

  it("predicts with each of several laws fitted together", async () => {
    const groups = {
      ...request,
      law: { id: "upcycling-shared" },
      points: together(0.003),
      compare: [],
      bootstrap: 40,
      loss: { name: "mse", delta: 0 } as const,
    };
    const { predictions } = await runFit({
      ...groups,
      predict: [
        { columns: { N: 7e9, D1: 1e11, D2: 5e10 }, group: "upcycled" },
        { columns: { N: 5e8, D: 2e10 }, group: "moe" },
        { columns: { N: 5e8, D: 2e10 }, group: "dense" },
      ],
    });
    const truth = [
      16.3 * 1e11 ** -0.043 * 5e10 ** (-0.085 + 7.98e-4 * Math.log(1e11)) + 8.53 * 7e9 ** -0.112 + 0.165,
      32 * 2e10 ** -0.161 + 7.05 * 5e8 ** -0.08 + 0.165,
      8.83 * 2e10 ** -0.088 + 12.3 * 5e8 ** -0.116 + 0.165,
    ];
    expect(predictions.map(({ group }) => group)).toEqual(["upcycled", "moe", "dense"]);
    predictions.forEach(({ loss, profile, bootstrap }, i) => {
      expect(Math.abs(loss / at(truth, i) - 1)).toBeLessThan(0.01);
      expect(
        present(profile).low < loss && loss < present(profile).high && present(bootstrap).low < present(bootstrap).high,
      ).toBe(true);
    });
    expect(predictions.map(({ warnings }) => warnings.length)).toEqual([3, 0, 0]);
    const refuses = (predict: FitRequest["predict"], line: string): Promise<void> =>
      expect(runFit({ ...groups, bootstrap: 0, predict })).rejects.toThrow(line);
    await refuses([{ columns: { N: 1e9, D: 1e9 } }], "the law upcycling-shared is several laws: which one?");
    await refuses([{ columns: { N: 1e9, D: 1e9 }, group: "mixture" }], '"mixture" is no group of upcycling-shared');
    await refuses([{ columns: { N: 1e9, D: 1e9 }, group: "upcycled" }], "a prediction of upcycling-shared needs D1");
    await expect(runFit({ ...request, predict: [{ columns: { N: 1e9, D: 1e9 }, group: "dense" }] })).rejects.toThrow(
      "the law chinchilla has no groups",
    );
  });

  it("refuses points that a law to compare with cannot take before anything is fitted", async () => {
    const steps: string[] = [];
    const fit = runFit({ ...request, where: "runs.csv", compare: [{ id: "upcycling" }] }, ({ what }) =>
      steps.push(what),
    );
    await expect(fit).rejects.toMatchObject({
      kind: "input",
      where: "runs.csv",
      message: expect.stringContaining("the law upcycling needs a column D1") as string,
    });
    expect(steps).toEqual([]);
  });

  it("refuses a formula that is finite nowhere as bad input, also one to compare with", async () => {
    const formula = { formula: "E+A/(N-N)", columns: [], start: {} };
    const refuses = { kind: "input", message: expect.stringContaining('"A/(N-N)" is not a finite number') as string };
    await expect(runFit({ ...request, law: formula, compare: [] })).rejects.toMatchObject(refuses);
    await expect(runFit({ ...request, bootstrap: 0, profile: false, compare: [formula] })).rejects.toMatchObject(
      refuses,
    );
  });

  it("predicts where columns are given that the law does not know, whatever they are called", async () => {
    const { predictions } = await runFit({
      ...request,
      bootstrap: 0,
      profile: false,
      compare: [],
      predict: [{ columns: { N: 1e11, D: 1e12, constructor: 1 } }],
    });
    expect(at(predictions, 0).warnings).toHaveLength(2);
  });

  it("refuses what cannot be fitted", async () => {
    await expect(runFit({ ...request, points: { ...points, n: 3, loss: points.loss.slice(0, 3) } })).rejects.toThrow(
      "3 points for a law with 5 parameters",
    );
    await expect(runFit({ ...request, predict: [{ columns: { N: 1e9 } }] })).rejects.toThrow(
      "a prediction of chinchilla needs D",
    );
  });
});

describe("a pool", () => {
  it("passes on what goes wrong in a thread", async () => {
    const pool = openPool({ law: { id: "chinchilla" }, points, loss: request.loss }, 2);
    await expect(
      pool.run([
        { type: "starts", starts: [null as unknown as Float64Array] },
        { type: "starts", starts: [] },
      ]),
    ).rejects.toThrow();
    await pool.close();
  });
});
