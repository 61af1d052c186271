import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { checkPoints } from "../../../src/laws/forms/check.js";
import type { Points } from "../../../src/laws/forms/types.js";
import { gridOf, law, publishedParams, simulated, spaced, upcyclingGrid } from "../data.js";
import { valueAt } from "../../../src/base/at.js";

const good = simulated(
  law("chinchilla"),
  publishedParams("hoffmann"),
  gridOf({ N: spaced(1e8, 1e10, 5), D: spaced(1e9, 1e11, 5) }),
);
const edited = (edit: (points: { columns: Record<string, Float64Array>; loss: Float64Array }) => void): Points => {
  const copy = {
    n: good.n,
    columns: { N: valueAt(good.columns, "N").slice(), D: valueAt(good.columns, "D").slice() } as Record<
      string,
      Float64Array
    >,
    loss: good.loss.slice(),
  };
  edit(copy);
  return copy;
};
const refusal = (points: Points, id = "chinchilla", options = {}): string => {
  try {
    checkPoints(law(id), points, options);
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "";
};

describe("points", () => {
  it("that are good pass without a word", () => {
    expect(checkPoints(law("chinchilla"), good)).toEqual([]);
  });

  it.each<[string, Points, string]>([
    [
      "two points",
      { n: 2, columns: { N: Float64Array.of(1e8, 1e9), D: Float64Array.of(1e9, 1e10) }, loss: Float64Array.of(3, 2.5) },
      "2 points for a law with 5 parameters (A, B, E, alpha, beta); at least 6 are needed to say anything, " +
        "several per parameter to say it with some certainty",
    ],
    [
      "a loss that is no number",
      edited(({ loss }) => (loss[3] = NaN)),
      "point 4: loss is NaN; leave runs that diverged out",
    ],
    [
      "a negative loss",
      edited(({ loss }) => (loss[0] = -1)),
      "point 1: loss is -1; a cross entropy is positive; is the column a logarithm or a difference?",
    ],
    [
      "a size that is no number",
      edited(({ columns }) => (valueAt(columns, "N")[1] = NaN)),
      "point 2: N is NaN, expected a finite number; leave that row out, or correct it",
    ],
    [
      "no tokens",
      edited(({ columns }) => (valueAt(columns, "D")[1] = 0)),
      "point 2: D is 0, expected more than 0; leave that row out, or correct it",
    ],
    [
      "one size",
      edited(({ columns }) => valueAt(columns, "N").fill(1e9)),
      "every point has N = 1.000B, so nothing about N can be learnt; add runs with other values of N",
    ],
    [
      "one loss",
      edited(({ loss }) => loss.fill(2.5)),
      "every loss is 2.5; nothing depends on anything here; check the column",
    ],
    [
      "billions",
      edited(({ columns }) => valueAt(columns, "N").forEach((value, i, all) => (all[i] = value / 1e9))),
      "N goes from 0.100 to 10.0, expected raw counts; if it is in billions, write --columns N=YOUR_COLUMN*1e9",
    ],
    [
      "nano-tokens",
      edited(({ columns }) => valueAt(columns, "D").forEach((value, i, all) => (all[i] = value * 1e15))),
      "D starts at 1.00e24, more than any model has seen; check its unit; --columns D=YOUR_COLUMN*1e-9 scales it",
    ],
    [
      "mixed units",
      edited(({ columns }) => (valueAt(columns, "N")[7] = 1)),
      "N spans a factor of 1.0e10: 1 at point 8, 10.0B at point 21; are some rows in other units than the rest?",
    ],
    [
      "perplexities",
      edited(({ loss }) => loss.forEach((value, i) => (loss[i] = Math.exp(value) * 4))),
      "every loss is above 20 (smallest: ",
    ],
  ])("refused: %s", (_, points, line) => {
    expect(refusal(points).startsWith(line), refusal(points)).toBe(true);
  });

  it("refused without a column the law needs", () => {
    expect(refusal(good, "upcycling")).toBe(
      "the law upcycling needs a column D1 (tokens the dense parent had seen); name it: --columns D1=YOUR_COLUMN",
    );
    const oneSize = { ...simulated(law("upcycling"), publishedParams("liew-upcycled"), upcyclingGrid) };
    expect(
      refusal({ ...oneSize, columns: { ...oneSize.columns, N: new Float64Array(64).fill(1e9) } }, "upcycling"),
    ).toMatch(/with one model size, fit --law upcycling-data$/);
  });

  it("are called by their lines where these are known", () => {
    const points = edited(({ loss }) => (loss[3] = NaN));
    expect(refusal(points, "chinchilla", { pointName: (i: number) => `line ${i + 2}`, where: "runs.csv" })).toBe(
      "runs.csv: line 5: loss is NaN; leave runs that diverged out",
    );
  });

  it("in stated units are taken as meant", () => {
    const small = edited(({ columns }) => valueAt(columns, "N").forEach((value, i, all) => (all[i] = value / 1e9)));
    expect(refusal(small, "chinchilla", { stated: ["N"] })).toBe("");
  });

  it("that are few or narrow are warned about", () => {
    const narrow = edited(({ columns }) =>
      valueAt(columns, "N").forEach((_, i, all) => (all[i] = 1e9 * (1 + i / 100))),
    );
    expect(checkPoints(law("chinchilla"), narrow)).toEqual([
      "N varies only by a factor of 1.24: its exponent will hardly be identified.",
    ]);
    const few: Points = {
      n: 7,
      columns: {
        N: valueAt(good.columns, "N")
          .slice(0, 21)
          .filter((_, i) => i % 3 === 0),
        D: valueAt(good.columns, "D").slice(0, 7),
      },
      loss: good.loss.slice(0, 7),
    };
    expect(checkPoints(law("chinchilla"), few)[0]).toMatch(/^7 points for 5 parameters are few/);
  });
});

it("a table of 200,000 points is checked", () => {
  const n = 200_000;
  const column = (scale: number): Float64Array => Float64Array.from({ length: n }, (_, i) => scale * (1 + (i % 1000)));
  const points = {
    n,
    columns: { N: column(1e7), D: column(1e9) },
    loss: Float64Array.from({ length: n }, (_, i) => 2 + (i % 7) / 10),
    groups: null,
  };
  expect(() => checkPoints(law("chinchilla"), points as never)).not.toThrow(RangeError);
});
