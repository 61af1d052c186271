import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decimated, firstAtLeast } from "../../../src/studio/data/decimate.js";

const curve = fc
  .array(
    fc.tuple(
      fc.double({ min: 0.01, max: 10, noNaN: true }),
      fc.oneof(
        { weight: 20, arbitrary: fc.double({ min: -100, max: 100, noNaN: true }) },
        { weight: 1, arbitrary: fc.constant(NaN) },
      ),
    ),
    { minLength: 2, maxLength: 800 },
  )
  .map((steps) => {
    let x = 0;
    return { x: steps.map(([step]) => (x += step)), y: steps.map(([, value]) => value) };
  });

describe("decimation", () => {
  it("keeps the lowest and the highest point of every column, and what it keeps is of the curve", () => {
    fc.assert(
      fc.property(curve, fc.integer({ min: 1, max: 60 }), ({ x, y }, columns) => {
        const few = decimated(x, y, { columns });
        const at = new Map(x.map((value, i) => [value, y[i]]));
        few.x.forEach((value, i) => {
          const original = at.get(value)!;
          expect(few.y[i]).toBe(Number.isFinite(original) ? original : null);
        });
        expect(few.x).toEqual([...few.x].sort((a, b) => a - b));
        if (x.length > 4 * columns) expect(few.x.length).toBeLessThanOrEqual(5 * (columns + 1));
        const width = (x.at(-1)! - x[0]!) / columns;
        for (let column = 0; column < columns; column++) {
          const inside = (value: number): boolean => Math.floor((value - x[0]!) / width) === column;
          const all = y.filter((value, i) => inside(x[i]!) && Number.isFinite(value));
          const kept = few.y.filter((value, i) => inside(few.x[i]!) && value !== null) as number[];
          expect([Math.min(...kept), Math.max(...kept)]).toEqual([Math.min(...all), Math.max(...all)]);
        }
      }),
      { numRuns: 80 },
    );
  });

  it("shows a gap wherever there is a value that is no number", () => {
    const x = Array.from({ length: 1000 }, (_, i) => i);
    const y = x.map((value) => (value === 0 || value === 500 || value === 999 ? NaN : value));
    expect(decimated(x, y, { columns: 10 }).y.filter((value) => value === null)).toHaveLength(3);
  });

  it("gives a part raw once it has few points, with one beyond each end", () => {
    const x = Array.from({ length: 10_000 }, (_, i) => i);
    const part = decimated(x, x, { from: 100.5, to: 110.5, columns: 100 });
    expect(part.x).toEqual([100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111]);
  });

  it.each([
    { x: [], y: [] },
    { x: [1], y: [2] },
    { x: [1, 1, 1], y: [1, 2, 3] },
  ])("gives $x.length points as they are", ({ x, y }) => {
    expect(decimated(x, y, { columns: 5 })).toEqual({ x, y });
  });

  it("finds the first x at or behind a value as a scan does", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 50 })), fc.integer({ min: -1, max: 51 }), (values, wanted) => {
        const x = [...values].sort((a, b) => a - b);
        const found = x.findIndex((value) => value >= wanted);
        expect(firstAtLeast(x, wanted)).toBe(found < 0 ? x.length : found);
      }),
    );
  });
});
