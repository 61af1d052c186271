import { describe, expect, it } from "vitest";
import {
  holm,
  noncentralT,
  pairedTest,
  pairsNeeded,
  powerOf,
  smallestDetectable,
} from "../../../src/report/study/paired.js";

describe("a paired t-test", () => {
  it("gives the p-value and the interval of scipy.stats.ttest_1samp", () => {
    const { n, mean, low, high, p } = pairedTest([-0.031, -0.028, -0.035, -0.02, -0.04]);
    expect([n, mean]).toEqual([5, expect.closeTo(-0.0308, 12)]);
    expect(p).toBeCloseTo(0.0007931097259714704, 12);
    expect(low).toBeCloseTo(-0.04014965570315211, 10);
    expect(high).toBeCloseTo(-0.02145034429684789, 10);
  });

  it("of one pair says nothing, of equal differences that they are no chance, of none that there is none", () => {
    expect(pairedTest([0.5])).toEqual({ n: 1, mean: 0.5, deviation: NaN, low: NaN, high: NaN, p: NaN });
    expect(pairedTest([0.5, 0.5])).toMatchObject({ deviation: 0, low: 0.5, high: 0.5, p: 0 });
    expect(pairedTest([0, 0])).toMatchObject({ p: 1 });
    expect(pairedTest([])).toMatchObject({ n: 0, p: NaN });
  });
});

describe("power", () => {
  it("rests on the noncentral t distribution of scipy.stats.nct", () => {
    for (const [t, freedom, shift, probability] of [
      [2.776, 4, 1, 0.8805016859707714],
      [12.706, 1, 3, 0.8138890000171254],
      [-2, 4, 1.5, 0.001992435784272664],
      [2, 29, 0.5, 0.9243556801853199],
      [1.98, 100, 2.8, 0.20696260793230187],
    ] as const)
      expect(noncentralT(t, freedom, shift), `${t} ${freedom} ${shift}`).toBeCloseTo(probability, 8);
  });

  it("gives the smallest detectable difference and the pairs that scipy's noncentral t gives", () => {
    for (const [n, alpha, effect] of [
      [2, 0.05, 11.549888435882343],
      [5, 0.05, 1.6819969659555558],
      [5, 0.05 / 3, 2.2916492050677837],
      [20, 0.05, 0.6604416546229736],
    ] as const) {
      expect(smallestDetectable(n, alpha)).toBeCloseTo(effect, 5);
      expect(powerOf(effect, n, alpha)).toBeCloseTo(0.8, 6);
    }
    expect([0.1, 0.5, 1, 2].map((effect) => pairsNeeded(effect))).toEqual([787, 34, 10, 5]);
    expect(pairsNeeded(-1)).toBe(10);
    expect([pairsNeeded(0), pairsNeeded(NaN), pairsNeeded(1e-6)]).toEqual([null, null, null]);
  });
});

describe("Holm's correction", () => {
  it("is that of R's p.adjust and statsmodels", () => {
    // p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    expect(holm([0.01, 0.04, 0.03, 0.005])).toEqual([0.03, 0.06, 0.06, 0.02]);
    expect(holm([0.5, 0.9])).toEqual([1, 1]);
  });

  it("leaves out tests that could not be made", () => {
    expect(holm([NaN, 0.02, 0.03])).toEqual([NaN, 0.04, 0.04]);
    expect(holm([])).toEqual([]);
  });
});
