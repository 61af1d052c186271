import { describe, expect, it } from "vitest";
import { addScaled, dot, dot3, largestSize, multiply, subtract, zeros } from "../../src/base/vectors.js";

const a = Float64Array.of(1, -2, 3);
const b = Float64Array.of(4, 5, 6);

describe("vectors", () => {
  it("sums products of two and of three vectors", () => {
    expect(dot(a, b)).toBe(12);
    expect(dot3(a, b, b)).toBe(74);
    expect(dot(new Float64Array(0), new Float64Array(0))).toBe(0);
  });

  it("adds a multiple of a vector in place", () => {
    const out = b.slice();
    addScaled(out, 2, a);
    expect([...out]).toEqual([6, 1, 12]);
  });

  it("subtracts into one of its operands", () => {
    const out = a.slice();
    subtract(out, out, b);
    expect([...out]).toEqual([-3, -7, -3]);
  });

  it("finds the largest absolute value, 0 of an empty vector and NaN where there is one", () => {
    expect(largestSize(Float64Array.of(1, -7, 3))).toBe(7);
    expect(largestSize(new Float64Array(0))).toBe(0);
    expect(largestSize(Float64Array.of(1, NaN, 3))).toBeNaN();
  });
});

describe("a matrix with views of its rows", () => {
  it("shows what is written to a row in its row-major values, and the other way round", () => {
    const { values, rows } = zeros(2, 3);
    rows[1]?.set([7, 8, 9]);
    values[0] = 5;
    expect([...values]).toEqual([5, 0, 0, 7, 8, 9]);
    expect(rows.map((row) => [...row])).toEqual([
      [5, 0, 0],
      [7, 8, 9],
    ]);
  });

  it("multiplies a vector", () => {
    const { rows } = zeros(2, 3);
    rows[0]?.set([1, 0, 1]);
    rows[1]?.set([0, 2, 0]);
    const out = new Float64Array(2);
    multiply(out, rows, a);
    expect([...out]).toEqual([4, -4]);
  });
});
