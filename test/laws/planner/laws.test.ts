/** Crossings and optima against the reference's tables, and coefficients from fits. */
import { describe, expect, it } from "vitest";
import { laws, lawById } from "../../../src/laws/fitting/catalogue.js";
import { published } from "../../../src/laws/forms/published.js";
import { placesOf, predict } from "../../../src/laws/forms/types.js";
import {
  armKinds,
  curvesOf,
  fittedCoefficients,
  publishedCoefficients,
  type ArmKind,
  type FitDocument,
} from "../../../src/laws/planner/coefficients.js";
import { coefficientErrorsOnly, curveDraws } from "../../../src/laws/planner/law-draws.js";
import { catchUp, crossings, validFrom } from "../../../src/laws/planner/crossing.js";
import { bestShare, computeOptimal } from "../../../src/laws/planner/optimum.js";
import { lossFunction } from "../data.js";
import { at as elementAt } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

const table2 = publishedCoefficients();
const curves = curvesOf(table2.arms);
const largestFitted = present(table2.ranges.tokens)[1];
const within = (actual: number, expected: number, part = 0.002): void =>
  expect(Math.abs(actual / expected - 1), `${actual} for ${expected}`).toBeLessThan(part);

describe("a law as a function of its columns", () => {
  it.each(published.map((coefficients) => [coefficients.id, coefficients] as const))(
    "%s predicts as the law does",
    (_, { law: id, params }) => {
      const law = present(lawById(id));
      const at = { N: 3e9, D: 7e10, U: 3e10, D1: 2e11, D2: 3e10, E: 8, G: 4, S: 0.5, A: 0.1, C: 1e20 };
      const names = law.columns.map(({ name }) => name);
      const values = names.map((name) => at[name as keyof typeof at]) as [number, number, number];
      const places = placesOf(Object.fromEntries(names.map((name, i) => [name, [elementAt(values, i)]])));
      within(lossFunction(law, params, names)(...values), elementAt(predict(law, params, places), 0), 1e-12);
    },
  );

  it("takes the group of a law over groups", () => {
    const law = present(lawById("upcycling-shared"));
    const params = Object.fromEntries([
      ...armKinds.flatMap((kind) =>
        Object.entries(table2.arms[kind].params).map(([name, value]) => [
          name === "E" ? name : `${kind === "scratch" ? "moe" : kind}.${name}`,
          value,
        ]),
      ),
    ]) as Record<string, number>;
    within(
      lossFunction(law, params, ["N", "D1", "D2"], "upcycled")(1e9, 5e10, 1e10),
      curves.upcycled(1e9, 5e10, 1e10),
      1e-12,
    );
    within(lossFunction(law, params, ["N", "D"], "moe")(1e9, 1e10), curves.scratch(1e9, 1e10), 1e-12);
  });

  it("derives D1 + D2 where a law is in their sum", () => {
    const law = present(laws.find(({ id }) => id === "upcycling-total"));
    const params = { A: 12, alpha: 0.12, B: 8, beta: 0.11, E: 0.3 };
    within(
      lossFunction(law, params, ["D2", "N", "D1"])(1e10, 1e9, 5e10),
      12 * 6e10 ** -0.12 + 8 * 1e9 ** -0.11 + 0.3,
      1e-12,
    );
  });
});

describe("D*, the parent sunk", () => {
  const rows: [number, (number | null)[]][] = [
    [1e8, [1.38e9, 3.66e9, 1.33e10, 7.05e10, null]],
    [5e8, [3.13e9, 8.72e9, 3.55e10, 2.73e11, null]],
    [1e9, [4.28e9, 1.21e10, 5.06e10, 4.57e11, null]],
    [7e9, [9.02e9, 2.53e10, 1.07e11, 1.08e12, null]],
    [7e10, [1.72e10, 4.53e10, 1.68e11, 1.02e12, null]],
  ];
  it.each(rows)("of %d parameters is the reference's table", (size, row) => {
    [5, 20, 100, 500, 2000].forEach((ratio, i) => {
      const star = catchUp(curves, { size, seen: ratio * size, credit: 0, largestFitted });
      const printed = elementAt(row, i);
      if (printed === null) {
        expect(star).toMatchObject({ outcome: "always-ahead", tokens: null });
        return;
      }
      // The table prints three digits: half a unit of the last, and 0.2 %.
      const tolerance = 0.5 * 10 ** (Math.floor(Math.log10(printed)) - 2) + 0.002 * printed;
      expect(Math.abs(present(star.tokens) - printed)).toBeLessThan(tolerance);
    });
  });

  it("agrees with an independent root to 0.2 %", () => {
    // Values of a separate evaluation in Python, to four digits.
    within(present(catchUp(curves, { size: 1e9, seen: 2e10, credit: 0, largestFitted }).tokens), 1.206e10);
    within(present(catchUp(curves, { size: 7e9, seen: 7e11, credit: 0, largestFitted }).tokens), 1.072e11);
    within(present(catchUp(curves, { size: 7e10, seen: 7e12, credit: 0, largestFitted }).tokens), 1.682e11);
  });

  it("is the first of two crossings, the second is an artefact", () => {
    const star = catchUp(curves, { size: 1e9, seen: 2e10, credit: 0, largestFitted });
    expect(star.outcome).toBe("at");
    within(present(star.artefact), 2.222e14);
    expect(
      crossings((tokens) => curves.scratch(1e9, tokens) - curves.upcycled(1e9, 2e10, tokens)).map(({ to }) => to),
    ).toEqual(["behind", "ahead"]);
  });
});

describe("D*, the parent charged", () => {
  it.each([
    [1e8, 5],
    [1e8, 100],
    [1e9, 20],
    [1e9, 500],
    [7e9, 20],
    [7e9, 100],
  ])("is none for %d parameters and %d tokens each", (size, ratio) => {
    for (const credit of [1, 1.25, 1.5, 1.75]) {
      const star = catchUp(curves, { size, seen: ratio * size, credit: (ratio * size) / credit, largestFitted });
      expect(star).toMatchObject({ outcome: "never-ahead", tokens: null });
      expect(star.artefact).toBeGreaterThan(1e13);
    }
  });

  it("believes an overtaking within the fitted tokens", () => {
    const star = catchUp(
      { ...curves, upcycled: (_, __, tokens) => 4 - 0.1 * Math.log10(tokens), scratch: () => 2.95 },
      { size: 1e9, seen: 1e10, credit: 0, largestFitted: 1e12 },
    );
    expect(star).toEqual({ outcome: "always-ahead", tokens: null, artefact: null });
  });
});

describe("the clamp", () => {
  it.each([
    [1e9, 1e10, 2.35e9],
    [1e9, 5e10, 7.0e9],
    [1e9, 1e11, 1.12e10],
  ])("of %d parameters and %d tokens ends where the law passes the parent", (size, seen, tokens) => {
    within(present(validFrom(curves, size, seen)), tokens, 0.01);
  });
});

describe("where compute is best spent", () => {
  it.each([
    [1e11, 1e20, 1, 2.9762e9, 5.6e9, 2.18736],
    [1e11, 1e21, 1.75, 5.6373e9, 1.6894e10, 2.04773],
    [1e12, 1e22, 1.75, 2.0925e10, 4.5513e10, 1.82058],
  ])("with D1 = %d, C = %d, r = %d", (seen, compute, ratio, size, tokens, loss) => {
    const optimum = computeOptimal(table2.arms.upcycled, curves, { compute, seen, ratio });
    within(optimum.size, size);
    within(optimum.tokens, tokens);
    expect(optimum.loss).toBeCloseTo(loss, 5);
    // The search that other laws get finds the same.
    const searched = computeOptimal({ ...table2.arms.upcycled, law: "upcycling-additive" }, curves, {
      compute,
      seen,
      ratio,
    });
    within(searched.size, optimum.size, 1e-4);
  });

  it("gives a quarter of the tokens to the parent, and scratch is better still", () => {
    for (const size of [1e8, 1e9, 7e9]) {
      for (const total of [1e10, 1e11, 1e12]) {
        const { share, loss, scratch } = bestShare(curves, size, total);
        expect(share).toBeGreaterThan(0.245);
        expect(share).toBeLessThan(0.275);
        expect(scratch).toBeLessThan(loss);
      }
    }
  });
});

/** Coefficients without rounding. */
const noHalf = { dense: {}, scratch: {}, upcycled: {} };

describe("uncertainty", () => {
  it("of rounding spreads Table 2's prediction as computed in the reference", () => {
    const draws = curveDraws(table2, 4000, 1, coefficientErrorsOnly).map((one) => one.upcycled(1e9, 5e10, 1e10));
    const mean = draws.reduce((sum, value) => sum + value, 0) / draws.length;
    const deviation = Math.sqrt(draws.reduce((sum, value) => sum + (value - mean) ** 2, 0) / draws.length);
    expect(mean).toBeCloseTo(2.2577, 2);
    expect(deviation).toBeGreaterThan(0.011);
    expect(deviation).toBeLessThan(0.015);
    expect(Math.max(...draws.map((value) => Math.abs(value - 2.2577)))).toBeLessThan(0.045);
  });

  it("adds the error of the fit inside, and grows outside of the range", () => {
    const spread = (size: number, tokens: number): number => {
      const losses = curveDraws(table2, 2000, 1).map((one) => Math.log(one.dense(size, tokens)));
      const mean = losses.reduce((sum, value) => sum + value, 0) / losses.length;
      return Math.sqrt(losses.reduce((sum, value) => sum + (value - mean) ** 2, 0) / losses.length);
    };
    const rounding = (size: number, tokens: number): number => {
      const losses = curveDraws(table2, 2000, 1, coefficientErrorsOnly).map((one) => Math.log(one.dense(size, tokens)));
      const mean = losses.reduce((sum, value) => sum + value, 0) / losses.length;
      return Math.sqrt(losses.reduce((sum, value) => sum + (value - mean) ** 2, 0) / losses.length);
    };
    // Independent errors add as squares: 0.2 % inside, 0.75 % for every e-fold outside.
    within(Math.sqrt(spread(1e9, 1e11) ** 2 - rounding(1e9, 1e11) ** 2), 0.002, 0.25);
    const far = 3.68e11 * Math.exp(3);
    within(Math.sqrt(spread(1e9, far) ** 2 - rounding(1e9, far) ** 2), Math.hypot(0.002, 3 * 0.0075), 0.1);
  });

  it("varies the form of the upcycled law: alike in the middle of the fit, apart at its ends", () => {
    const centre = Math.sqrt(1e9 * 3.68e11);
    const [interaction, none, , additive] = curveDraws(
      { ...table2, uncertainty: { kind: "rounding", half: noHalf } },
      4,
      0,
      {
        fit: 0,
        growth: 0,
        forms: true,
      },
    ).map((one) => (seen: number, tokens: number) => one.upcycled(1e9, seen, tokens));
    for (const form of [none, additive]) {
      within(present(form)(centre, centre), present(interaction)(centre, centre), 1e-12);
      // Both slopes too, by differences.
      for (const [a, b] of [
        [1.001, 1],
        [1, 1.001],
      ] as const) {
        const slope = (one: (seen: number, tokens: number) => number): number =>
          (one(centre * a, centre * b) - one(centre, centre)) / 0.001;
        within(slope(present(form)), slope(present(interaction)), 1e-3);
      }
      expect(Math.abs(present(form)(3e11, 3e11) / present(interaction)(3e11, 3e11) - 1)).toBeGreaterThan(1e-3);
    }
  });

  it("is the same for a seed, another for another, and shares E", () => {
    const at = (seed: number): number => elementAt(curveDraws(table2, 3, seed), 2).dense(1e9, 1e10);
    expect(at(1)).toBe(at(1));
    expect(at(1)).not.toBe(at(2));
    const huge = curveDraws(table2, 50, 3, coefficientErrorsOnly).map((one) => [
      one.dense(1e300, 1e300),
      one.scratch(1e300, 1e300),
    ]);
    for (const [dense, scratch] of huge) expect(dense).toBeCloseTo(present(scratch), 10);
  });
});

describe("the user's own fits", () => {
  const document = (kind: ArmKind, more: Partial<FitDocument> = {}): FitDocument => ({
    file: `${kind}.json`,
    law: table2.arms[kind].law,
    params: table2.arms[kind].params,
    ...more,
  });
  const separate = { dense: document("dense"), scratch: document("scratch"), upcycled: document("upcycled") };

  it("replace the published coefficients, without draws where they carry none", () => {
    const own = fittedCoefficients(
      { ...separate, dense: document("dense", { ranges: { N: [1e8, 1e9], D: [1e9, 2e10] } }) },
      "E8G8T8",
    );
    expect(own).toMatchObject({
      published: false,
      recipe: "E8G8T8",
      uncertainty: { kind: "none" },
      ranges: { size: [1e8, 1e9], tokens: [1e9, 2e10] },
    });
    expect(curvesOf(own.arms).upcycled(1e9, 5e10, 1e10)).toBe(curves.upcycled(1e9, 5e10, 1e10));
    expect(curveDraws(own, 10, 0)).toEqual([]);
  });

  it("bring the draws that they carry", () => {
    const withDraws = (kind: ArmKind): FitDocument =>
      document(kind, {
        draws: Object.fromEntries(
          Object.entries(table2.arms[kind].params).map(([name, value]) => [name, [value, value * 1.01]]),
        ),
      });
    const draws = curveDraws(
      fittedCoefficients(
        { dense: withDraws("dense"), scratch: withDraws("scratch"), upcycled: withDraws("upcycled") },
        null,
      ),
      10,
      0,
    );
    expect(draws).toHaveLength(2);
    // The bootstrap holds the error of the fit, so inside of the range nothing is added.
    expect(elementAt(draws, 0).dense(1e9, 1e10)).toBe(curves.dense(1e9, 1e10));
  });

  it.each<[string, Record<ArmKind, FitDocument>, string]>([
    [
      "an unknown law",
      { ...separate, dense: document("dense", { law: "expression" }) },
      'dense.json: "expression" is not a law that a plan can use',
    ],
    [
      "a dense law for upcycled models",
      { ...separate, upcycled: document("upcycled", { law: "joint" }) },
      "upcycled.json: the law joint is in D, N, but upcycled models need one in D1, D2, N; use upcycling",
    ],
    [
      "a law without size",
      { ...separate, upcycled: document("upcycled", { law: "upcycling-data" }) },
      "the law upcycling-data is in D1, D2, but",
    ],
    [
      "a missing parameter",
      { ...separate, dense: document("dense", { params: { A: 1 } }) },
      "parameter alpha of joint is missing",
    ],
  ])("are refused with %s", (_, documents, line) => {
    expect(() => fittedCoefficients(documents, null)).toThrow(
      expect.objectContaining({ line: expect.stringContaining(line) }),
    );
  });
});
