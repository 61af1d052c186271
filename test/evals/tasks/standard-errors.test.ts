import { describe, expect, it } from "vitest";
import { aggregate, argmax, exactMatchForm } from "../../../src/evals/tasks/metrics.js";
import { pairedDifference, signTest } from "../../../src/evals/tasks/paired.js";
import { aggregateGroup, standardError } from "../../../src/evals/tasks/standard-errors.js";

const settings = { iterations: 100_000 };

describe("standard errors", () => {
  it("of means are those of a sample", async () => {
    expect(await standardError("mean", [1, 1, 0, 1], settings)).toBeCloseTo(0.25, 12);
    expect(await standardError("mean", [0, 1, 0, 0, 1, 0], settings)).toBeCloseTo(0.2108185107, 9);
    expect(await standardError("mean", [1], settings)).toBeNull();
    expect(
      await standardError(
        "bits_per_byte",
        [
          [-1, 2],
          [-2, 3],
        ],
        settings,
      ),
    ).toBeNull();
  });

  // lm_eval.api.metrics.bootstrap_stderr of lm-eval 0.4.13, 100,000 resamples.
  it("of perplexities, F1 and Matthews's coefficient are the harness's bootstrap", async () => {
    const lls = [-1.5, -2.25, -0.5, -3, -1, -2, -0.25];
    expect(await standardError("perplexity", lls, settings)).toBeCloseTo(1.7095693464888915, 12);
    const pairs = [
      [1, 1],
      [0, 0],
      [1, 0],
      [0, 1],
      [1, 1],
      [0, 0],
      [1, 1],
    ] as const;
    expect(await standardError("f1", pairs, { iterations: 2000 })).toBeCloseTo(0.19391346149544808, 12);
    expect(await standardError("matthews_corrcoef", pairs, { iterations: 2000 })).toBeCloseTo(0.38074620546345594, 12);
  });

  it("of groups are pooled", () => {
    const parts = [
      { value: 0.75, stderr: 0.25, size: 4 },
      { value: 1 / 3, stderr: 0.2108185107, size: 6 },
    ];
    const { value, stderr } = aggregateGroup(parts, true);
    expect(value).toBeCloseTo(0.5, 12);
    expect(stderr).toBeCloseTo(0.1613743061, 9);
    expect(aggregateGroup([...parts, { value: 1, stderr: null, size: 1 }], false).stderr).toBeNull();
  });
});

describe("metrics", () => {
  it("take the first of equal choices, and the first that is NaN", () => {
    expect(argmax([-2, -1, -1])).toBe(1);
    expect(argmax([-2, NaN, -1])).toBe(1);
  });

  it("compare texts in the form that their settings ask for", () => {
    const form = exactMatchForm({ regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"], ignore_case: true }, "task");
    expect(form("First\n 3 + 4\n#### $1,234.")).toBe("1234");
    expect(exactMatchForm({ ignore_punctuation: true, ignore_numbers: true }, "task")("It's 42!")).toBe("Its ");
  });

  it("are ratios of sums for texts", () => {
    expect(
      aggregate("bits_per_byte", [
        [-Math.LN2 * 3, 2],
        [-Math.LN2 * 5, 6],
      ]),
    ).toBeCloseTo(1, 12);
  });
});

describe("two models on the same samples", () => {
  it("are compared by the exact sign test", () => {
    // scipy.stats.binomtest(3, 15, 0.5).pvalue and (40, 100, 0.5)
    expect(signTest(3, 12)).toBeCloseTo(0.03515625, 12);
    expect(signTest(60, 40)).toBeCloseTo(0.05688793364098089, 12);
    expect(signTest(0, 0)).toBe(1);
    expect(signTest(5, 5)).toBe(1);
    expect(signTest(0, 2000)).toBe(2 * 2 ** -1000 * 2 ** -1000);
  });

  it("differ by the mean of paired differences", () => {
    const difference = pairedDifference({
      metric: "acc",
      filter: "none",
      aggregation: "mean",
      higherIsBetter: true,
      first: [1, 0, 0, 1, 0, 1],
      second: [1, 1, 1, 1, 0, 0],
    });
    expect(difference).toMatchObject({ better: 2, worse: 1, unit: "share of samples", samples: 6 });
    expect(difference!.difference).toBeCloseTo(1 / 6, 12);
    // numpy: std([0, 1, 1, 0, 0, -1], ddof=1) / sqrt(6) * 1.959963984540054
    expect(difference!.interval[1]).toBeCloseTo(1 / 6 + 0.6023325030053314, 12);
  });
});
