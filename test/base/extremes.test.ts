import { describe, expect, it } from "vitest";
import { largestOf, smallestOf } from "../../src/base/extremes.js";
import { table } from "../../src/base/format.js";

describe("the smallest and the largest number", () => {
  it("are found among a million numbers, whose arguments would overflow a stack", () => {
    const values = Float64Array.from({ length: 1_000_000 }, (_, i) => Math.abs(i - 500_000));
    expect([smallestOf(values), largestOf(values)]).toEqual([0, 500_000]);
  });

  it("are infinite for no numbers and NaN where one is, as Math.min and Math.max have it", () => {
    expect([smallestOf([]), largestOf([]), smallestOf([1, NaN]), largestOf([NaN, 1])]).toEqual([
      Infinity,
      -Infinity,
      NaN,
      NaN,
    ]);
  });
});

it("lays out a table of 130,000 rows", () => {
  const rows = Array.from({ length: 130_000 }, (_, i) => [`t${i}`, "1"]);
  expect(table([["name", "n"], ...rows], ["left", "right"]).length).toBe(130_002);
});
