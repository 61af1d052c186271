import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decimated, shortened } from "../../../src/studio/data/decimate.js";

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

  it("keeps the first and the last point of every column, and each point once", () => {
    fc.assert(
      fc.property(curve, fc.integer({ min: 1, max: 30 }), ({ x, y }, columns) => {
        const few = decimated(x, y, { columns });
        expect(new Set(few.x).size).toBe(few.x.length);
        if (x.length <= 4 * columns) return;
        const width = (x.at(-1)! - x[0]!) / columns;
        const columnOf = (value: number): number => Math.floor((value - x[0]!) / width);
        x.forEach((value, i) => {
          const isFirst = i === 0 || columnOf(x[i - 1]!) !== columnOf(value);
          const isLast = i === x.length - 1 || columnOf(x[i + 1]!) !== columnOf(value);
          if (isFirst || isLast) expect(few.x).toContain(value);
        });
      }),
      { numRuns: 60 },
    );
  });

  it("gives a part as the whole has it: its lowest and highest points, and raw points where they are few", () => {
    fc.assert(
      fc.property(curve, fc.nat(100), fc.nat(100), fc.integer({ min: 1, max: 40 }), ({ x, y }, one, other, columns) => {
        const [low, high] = [Math.min(one, other), Math.max(one, other)];
        const span = x.at(-1)! - x[0]!;
        const [from, to] = [x[0]! + (span * low) / 100, x[0]! + (span * high) / 100];
        const part = decimated(x, y, { from, to, columns });
        const inside = (values: readonly number[], of: readonly (number | null)[]): number[] =>
          of.filter((value, i): value is number => Number.isFinite(value) && values[i]! >= from && values[i]! <= to);
        const [all, kept] = [inside(x, y), inside(part.x, part.y)];
        expect([Math.min(...kept), Math.max(...kept)]).toEqual([Math.min(...all), Math.max(...all)]);
        if (all.length + 2 <= 4 * columns) expect(kept).toEqual(all);
      }),
      { numRuns: 80 },
    );
  });
});

describe("a value that is shortened", () => {
  it("has so many digits and is the nearest that has, at any size", () => {
    fc.assert(
      fc.property(
        fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e30, max: 1e30 }),
        fc.integer({ min: 4, max: 9 }),
        (value, digits) => {
          const short = shortened(value, digits);
          expect(Number(short.toPrecision(digits))).toBe(short);
          const unit = value === 0 ? 0 : 10 ** (Math.floor(Math.log10(Math.abs(value))) - digits + 1);
          expect(Math.abs(short - value)).toBeLessThanOrEqual(0.5001 * unit);
        },
      ),
    );
  });

  it.each([
    [0, 0],
    [-0, 0],
    [2.5432109876, 2.543211],
    [-1234567891, -1234568000],
    [3e-300, 3e-300],
    [9.9999999, 10],
  ])("%d is %d", (value, wanted) => {
    expect(shortened(value, 7)).toBe(wanted);
  });
});
