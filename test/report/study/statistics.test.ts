import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { armCurve, balance, firstReach, lossAt, readAt, recipeShape } from "../../../src/report/study/statistics.js";
import { reportData, thinned } from "../../../src/report/study/view.js";
import { plainArm, study } from "../fixture.js";

describe("the curve of a run", () => {
  const { points } = at(plainArm("a", "dense", [[4, 3, 2]]).runs, 0);

  it("is read between its points and never outside of them", () => {
    expect(lossAt(points, "tokens", 50)).toBe(3.5);
    expect(lossAt(points, "tokens", 200)).toBe(2);
    expect(lossAt(points, "flops", 1500)).toBe(2.5);
    expect(lossAt(points, "tokens", 201)).toBeNull();
    expect(lossAt(points, "tokens", -1)).toBeNull();
    expect(lossAt([], "tokens", 0)).toBeNull();
  });

  it("is read at nothing beside a loss that is not finite, unless those are left out", () => {
    const [x, losses] = [
      [0, 100, 200, 300],
      [4, 3, NaN, 2],
    ];
    expect([-1, 0, 50, 100, 150, 200, 250, 300, 301].map((wanted) => readAt(x, losses, wanted))).toEqual([
      null,
      4,
      3.5,
      3,
      null,
      null,
      null,
      2,
      null,
    ]);
    const { points: gap } = at(plainArm("a", "dense", [losses]).runs, 0);
    expect(lossAt(gap, "tokens", 200)).toBe(2.5);
  });

  it("says where a loss is first reached, or that it never is", () => {
    expect(firstReach(points, "tokens", 2.5)).toBe(150);
    expect(firstReach(points, "tokens", 5)).toBe(0);
    expect(firstReach(points, "tokens", 1)).toBeNull();
  });
});

describe("the curve of an arm", () => {
  it("has mean and range over its seeds wherever all of them were measured", () => {
    const curve = armCurve(
      plainArm("a", "dense", [
        [4, 3, 2],
        [4, 3.5],
      ]),
    );
    expect(curve).toEqual({ tokens: [0, 100], flops: [0, 1000], mean: [4, 3.25], low: [4, 3], high: [4, 3.5] });
  });

  it("is empty for an arm without runs", () => {
    expect(armCurve(plainArm("a", "dense", [])).tokens).toEqual([]);
  });
});

describe("the load of experts", () => {
  it("is that of the busiest one against an equal share", () => {
    expect(balance([[0.5, 0.25, 0.25, 0]])).toEqual({ busiest: [2], dead: 1, experts: 4 });
  });

  it("is embedded in hundredths of an equal share, in few moments of a long run", () => {
    const { load } = at(reportData(study()).arms, 2);
    expect(load?.group).toBe(8);
    const layer = load?.runs[0]?.shares[0]?.[0] ?? [];
    expect(layer).toHaveLength(64);
    expect(layer.reduce((sum, share) => sum + share, 0) / 64).toBeCloseTo(100, 0);
    const numbers = Array.from({ length: 1000 }, (_, i) => i);
    expect(thinned(numbers, 25)).toHaveLength(25);
    expect([thinned(numbers, 25)[0], thinned(numbers, 25).at(-1)]).toEqual([0, 999]);
  });

  it("has its imbalance averaged over layers, with the range over seeds", () => {
    const base = study();
    const coarse = at(base.arms, 1);
    const loads = [
      [
        [0.75, 0.25],
        [0.5, 0.5],
      ],
      [
        [0.5, 0.5],
        [0.5, 0.5],
      ],
    ];
    const runs = coarse.runs.map((run, i) => ({ ...run, load: [{ step: 7, layers: at(loads, i) }] }));
    const { imbalance } = at(reportData({ ...base, arms: [{ ...coarse, runs }] }).arms, 0);
    expect(imbalance).toEqual({ steps: [7], mean: [1.125], low: [1], high: [1.25] });
  });
});

it("the shape of a recipe is read from its name, and is null for other words", () => {
  expect(recipeShape("E8G8T8")).toEqual({ expansion: 8, granularity: 8, topK: 8 });
  expect(recipeShape("drop")).toBeNull();
  expect(recipeShape(null)).toBeNull();
});
