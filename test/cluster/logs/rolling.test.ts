import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RollingValues } from "../../../src/cluster/logs/rolling.js";

const upperMedian = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!;

describe("the last values of a series", () => {
  it("have the median and the spread that sorting them gives, whatever came and went", () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.integer({ min: -3, max: 3 }), fc.double({ noNaN: true, noDefaultInfinity: true }))),
        fc.integer({ min: 1, max: 9 }),
        (values, most) => {
          const rolling = new RollingValues(most);
          values.forEach((value, i) => {
            rolling.push(value);
            const last = values.slice(Math.max(0, i + 1 - most), i + 1);
            const median = upperMedian(last);
            expect(rolling.length).toBe(last.length);
            // Zero has two signs, which sorting does not tell apart.
            expect(rolling.median === median).toBe(true);
            expect(rolling.spread).toBe(upperMedian(last.map((one) => Math.abs(one - median))));
          });
        },
      ),
    );
  });

  it("have no median before the first and after all are forgotten", () => {
    const rolling = new RollingValues(3);
    expect([rolling.median, rolling.spread]).toEqual([NaN, NaN]);
    rolling.push(1);
    rolling.clear();
    expect([rolling.median, rolling.spread, rolling.length]).toEqual([NaN, NaN, 0]);
  });
});
