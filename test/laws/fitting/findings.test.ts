/** What a fit says against itself: runs, patterns, outliers, duplicates, rivals, new runs. */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { runFit, type FitReport } from "../../../src/laws/points/fit.js";
import type { Points } from "../../../src/laws/forms/types.js";
import { gridOf, law, publishedParams, simulated, spaced, upcyclingGrid } from "../data.js";

const options = {
  loss: { name: "mse", delta: 0 },
  starts: "projection",
  bootstrap: 0,
  profile: false,
  level: 0.9,
  seed: 0,
  threads: 1,
  compare: [],
  predict: [],
} as const;
const chinchilla = publishedParams("besiroglu");
const grid = gridOf({ N: spaced(5e7, 1.2e10, 6), D: spaced(1e9, 3e11, 6) });
const report = (points: Points, id = "chinchilla", more: object = {}): Promise<FitReport> =>
  runFit({ ...options, law: { id }, points, ...more });
const kinds = ({ warnings }: FitReport): string[] => warnings.map(({ kind }) => kind);

/** Nine runs with four checkpoints each; runs differ by more than evaluations of one run. */
function runs(seed: number): Points {
  const sizes = spaced(5e7, 1.2e10, 9);
  const places = gridOf({ N: sizes, D: spaced(3e9, 3e11, 4) });
  const deviates = new Float64Array(9);
  randomStream(seed, "runs").normals(deviates, 0, 0, 0.006);
  const points = simulated(law("chinchilla"), chinchilla, places, 0.0015, seed);
  return {
    ...points,
    loss: points.loss.map((value, i) => value * Math.exp(at(deviates, Math.floor(i / 4)))),
    cluster: Array.from({ length: 36 }, (_, i) => `run ${Math.floor(i / 4)}`),
  };
}

describe("fits", () => {
  it("notice checkpoints that nobody named, and ask for the column", async () => {
    const { cluster, ...points } = runs(1);
    const found = await report(points);
    expect(kinds(found)).toContain("clustered");
    expect(found.warnings.find(({ kind }) => kind === "clustered")?.text).toMatch(
      /same N have residuals that go together \(9 groups, correlation 0\.\d+\).*--cluster run, or --cluster N/,
    );
    expect(kinds(found)).not.toContain("misfit");
    const named = await report({ ...points, cluster: cluster ?? [] });
    expect(kinds(named)).not.toContain("clustered");
    expect(named.noise.runs).toBe(9);
    expect(named.noise.correlation).toBeGreaterThan(0.5);
  });

  it("have wider profiles where points come from runs", async () => {
    const { cluster, ...points } = runs(2);
    const [alone, together] = [
      await report(points, "chinchilla", { profile: true }),
      await report({ ...points, cluster: cluster ?? [] }, "chinchilla", { profile: true }),
    ];
    const width = ({ profiles }: FitReport): number => (profiles.alpha?.high ?? NaN) - (profiles.alpha?.low ?? NaN);
    expect(width(together)).toBeGreaterThan(1.5 * width(alone));
    expect(together.fit.params).toEqual(alone.fit.params);
  });

  it("name outliers by line and duplicates by both", async () => {
    const points = simulated(law("chinchilla"), chinchilla, grid, 0.003, 3);
    const loss = points.loss.slice();
    loss[10] = at(loss, 10) * 1.06;
    const twice = (values: Float64Array): Float64Array => Float64Array.of(...values, at(values, 5));
    const copied = {
      n: 37,
      columns: { N: twice(points.columns.N ?? loss), D: twice(points.columns.D ?? loss) },
      loss: twice(loss),
    };
    for (const name of ["mse", "huber"] as const) {
      const delta = name === "huber" ? 1e-3 : 0;
      const lines = Array.from({ length: 37 }, (_, i) => i + 2);
      const found = await report(copied, "chinchilla", { lines, loss: { name, delta } });
      expect(found.outliers.map(({ line }) => line)).toEqual([12]);
      expect(found.warnings.find(({ kind }) => kind === "duplicates")?.text).toMatch(
        /^1 row is .*\(line 38 as line 7\)/,
      );
    }
  });

  it("flag a form that the points depart from, by patterns or by replicates", async () => {
    const { columns, n } = grid;
    const points = simulated(law("chinchilla"), chinchilla, grid, 0.002, 4);
    const bent = points.loss.map(
      (value, i) =>
        value * Math.exp(0.01 * Math.log(at(columns.N ?? [], i) / 1e9) * Math.log(at(columns.D ?? [], i) / 2e10)),
    );
    expect((await report({ ...points, loss: bent })).misfit).toMatchObject({ isFlagged: true, by: "patterns" });
    expect((await report(points)).misfit?.isFlagged).toBe(false);
    // Every other place off: no smooth pattern, but points at one place agree far better.
    const seeds = simulated(law("chinchilla"), chinchilla, grid, 0.0005, 5);
    const jagged = (loss: Float64Array): Float64Array =>
      loss.map((value, i) => value * (i % 2 === Math.floor(i / 6) % 2 ? 1.004 : 0.996));
    const double = (values: Float64Array): Float64Array => Float64Array.of(...values, ...values);
    const replicated = {
      n: 2 * n,
      columns: { N: double(columns.N ?? bent), D: double(columns.D ?? bent) },
      loss: Float64Array.of(
        ...jagged(points.loss.map((_, i) => at(seeds.loss, i))),
        ...jagged(simulated(law("chinchilla"), chinchilla, grid, 0.0005, 6).loss),
      ),
    };
    expect((await report(replicated)).misfit).toMatchObject({ isFlagged: true, by: "replicates" });
  });

  it("say which rivals the points cannot tell apart", async () => {
    const truth = publishedParams("liew-upcycled");
    const rivals = async (noise: number): Promise<Record<string, string>> => {
      const { rivals: found } = await report(simulated(law("upcycling"), truth, upcyclingGrid, noise, 7), "upcycling");
      return Object.fromEntries(found.map(({ law: id, verdict }) => [id, verdict]));
    };
    expect(await rivals(0.01)).toMatchObject({ "upcycling-no-interaction": "cannot tell", "upcycling-total": "worse" });
    expect(await rivals(1e-5)).toEqual({
      "upcycling-no-interaction": "worse",
      "upcycling-additive": "worse",
      "upcycling-total": "worse",
    });
  });

  it("tell the interval of a new run from that of the law", async () => {
    const points = simulated(law("chinchilla"), chinchilla, grid, 0.006, 8);
    const predict = [{ columns: { N: 1e9, D: 2e10 } }];
    for (const profile of [true, false]) {
      const { predictions, noise } = await report(points, "chinchilla", { predict, profile });
      const { newRun, loss, profile: own } = predictions[0] ?? at(predictions, 0);
      expect(noise.ofOnePoint).toBeCloseTo(0.006, 2);
      const half = Math.log(newRun.high / loss);
      expect(half).toBeGreaterThan(1.69 * noise.ofOnePoint);
      if (own !== null) expect(half).toBeCloseTo(Math.hypot(Math.log(own.high / loss), 1.6955 * noise.ofOnePoint), 4);
    }
  });
});
