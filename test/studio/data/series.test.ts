import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Series } from "../../../src/studio/data/series.js";

const seriesOf = (values: readonly number[], kind: "double" | "single" | "count" = "double"): Series => {
  const series = new Series(kind, 0);
  for (const value of values) series.push(value);
  return series;
};

/** Numbers of which some go on by the same, as steps do. */
const numbers = fc
  .array(fc.tuple(fc.double(), fc.constantFrom(0, 1, 2048, 0.1, NaN), fc.nat(5)), { maxLength: 6 })
  .map((parts) => parts.flatMap(([first, by, count]) => Array.from({ length: count }, (_, i) => first + by * i)));

describe("a series of numbers", () => {
  it("has the numbers that it was given, whether they are a line or not", () => {
    fc.assert(
      fc.property(numbers, fc.nat(30), numbers, (values, left, more) => {
        const series = seriesOf(values);
        series.truncate(left);
        for (const value of more) series.push(value);
        const expected = [...values.slice(0, left), ...more];
        // A zero's sign is kept for none.
        expect(Array.from(series.values, (value) => value + 0)).toEqual(expected.map((value) => value + 0));
        expect(series.last).toBe(series.values.at(-1));
      }),
    );
  });

  it("takes no memory for what goes on by the same, until something else comes", () => {
    const series = seriesOf(Array.from({ length: 10_000 }, (_, i) => 2048 * (i + 1)));
    expect(series.bytes).toBe(0);
    series.push(1);
    expect(series.bytes).toBeGreaterThanOrEqual(8 * 10_001);
    expect([...series.values.subarray(9998)]).toEqual([2048 * 9999, 2048 * 10_000, 1]);
  });

  it("keeps the chosen places of a line and of any other numbers alike", () => {
    const places = [3, 5, 6];
    for (const values of [
      [0, 1, 2, 3, 4, 5, 6],
      [7, 7, 7, 7, 7, 7, 7],
      [7, 3, 8, 9, 1, 0, 2],
    ]) {
      const series = seriesOf(values, "count");
      series.keep(3, places);
      expect([...series.values]).toEqual([...values.slice(0, 3), ...places.map((place) => values[place])]);
      series.push(11);
      expect(series.last).toBe(11);
    }
  });

  it("is not changed by another one that has the same line", () => {
    const [a, b] = [seriesOf([1, 2, 3]), seriesOf([1, 2, 3, 4, 5])];
    const before = a.values;
    a.push(9);
    expect([[...before], [...a.values], [...b.values]]).toEqual([
      [1, 2, 3],
      [1, 2, 3, 9],
      [1, 2, 3, 4, 5],
    ]);
  });

  it("has its own numbers where it takes the memory that another one has let go", () => {
    const large = Array.from({ length: 200 }, (_, i) => i * i);
    const [a, b] = [seriesOf(large, "single"), seriesOf(large, "single")];
    const memory = a.values.buffer;
    a.release();
    expect([a.length, a.bytes, a.last]).toEqual([0, 0, undefined]);
    const c = new Series("single", a.length + 200);
    for (const value of [3, 1, 2]) c.push(value);
    expect([...c.values]).toEqual([3, 1, 2]);
    expect([...b.values]).toEqual(large);
    const d = seriesOf(large.slice(0, 64), "single");
    expect([c.values.buffer, d.values.buffer].filter((one) => one === memory).length).toBeLessThan(2);
    a.push(5);
    expect([...a.values]).toEqual([5]);
  });
});
