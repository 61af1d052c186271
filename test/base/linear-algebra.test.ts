import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../src/base/at.js";
import { cholesky, choleskySolve, inverse, nonNegative, solve } from "../../src/base/linear-algebra.js";

const product = (a: Float64Array, n: number, x: ArrayLike<number>): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += at(a, i * n + k) * at(x, k);
    return sum;
  });

/** M^T M + I of random M [n, n]: symmetric and positive definite. */
const positiveDefinite = fc.integer({ min: 1, max: 6 }).chain((n) =>
  fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: n * n, maxLength: n * n }).map((m) => {
    const a = Float64Array.from({ length: n * n }, (_, at) => (Math.floor(at / n) === at % n ? 1 : 0));
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) for (let k = 0; k < n; k++) a[i * n + j]! += at(m, k * n + i) * at(m, k * n + j);
    return { a, n };
  }),
);

const rightSide = (n: number): Float64Array => Float64Array.from({ length: n }, (_, i) => i - 1.5);

describe("a random positive definite system", () => {
  it("is solved by its Cholesky factor, by elimination and by its inverse alike", () => {
    fc.assert(
      fc.property(positiveDefinite, ({ a, n }) => {
        const b = rightSide(n);
        const factor = new Float64Array(n * n);
        const x = new Float64Array(n);
        expect(cholesky(a, n, factor)).toBe(true);
        choleskySolve(factor, n, b, x);
        const byElimination = solve(a, n, b) ?? [];
        const byInverse = product(inverse(a, n) ?? new Float64Array(n * n), n, b);
        for (const [i, value] of product(a, n, x).entries()) expect(value).toBeCloseTo(at(b, i), 8);
        for (const [i, value] of x.entries()) {
          expect(at(byElimination, i)).toBeCloseTo(value, 8);
          expect(at(byInverse, i)).toBeCloseTo(value, 8);
        }
      }),
    );
  });
});

describe("a system without an answer", () => {
  it("has no Cholesky factor and no inverse where the matrix is indefinite", () => {
    const indefinite = Float64Array.of(1, 2, 2, 1);
    expect(cholesky(indefinite, 2, new Float64Array(4))).toBe(false);
    expect(inverse(indefinite, 2)).toBeNull();
  });

  it("has no solution by elimination where the matrix is singular or holds a NaN", () => {
    expect(solve(Float64Array.of(1, 2, 2, 4), 2, Float64Array.of(1, 1))).toBeNull();
    expect(solve(Float64Array.of(1, NaN, 2, 4), 2, Float64Array.of(1, 1))).toBeNull();
  });

  it("is solved by elimination where only a swap of rows makes a pivot", () => {
    expect([...(solve(Float64Array.of(0, 2, 4, 0), 2, Float64Array.of(6, 8)) ?? [])]).toEqual([2, 3]);
  });
});

describe("nonnegative least squares", () => {
  it("is the plain solution where that is positive, and leaves out an unknown that would be negative", () => {
    const gram = Float64Array.of(4, 0, 0, 16);
    expect(nonNegative(gram, Float64Array.of(8, 16), 2)).toEqual({ x: Float64Array.of(2, 1), value: -32 });
    expect(nonNegative(gram, Float64Array.of(-8, 16), 2)).toEqual({ x: Float64Array.of(0, 1), value: -16 });
    expect(nonNegative(gram, Float64Array.of(-8, -16), 2)).toEqual({ x: new Float64Array(2), value: 0 });
  });

  it("is no worse than any nonnegative point of a grid, for random systems", () => {
    fc.assert(
      fc.property(positiveDefinite, ({ a, n }) => {
        const size = Math.min(n, 3);
        const gram = Float64Array.from({ length: size * size }, (_, i) => at(a, Math.floor(i / size) * n + (i % size)));
        const b = rightSide(size);
        const { x, value } = nonNegative(gram, b, size);
        const objective = (point: ArrayLike<number>): number =>
          product(gram, size, point).reduce((sum, entry, i) => sum + at(point, i) * (entry - 2 * at(b, i)), 0);
        expect(x.every((entry) => entry >= 0)).toBe(true);
        expect(objective(x)).toBeCloseTo(value, 8);
        for (let code = 0; code < 5 ** size; code++) {
          const point = Array.from({ length: size }, (_, i) => (Math.floor(code / 5 ** i) % 5) / 4);
          expect(objective(point)).toBeGreaterThanOrEqual(value - 1e-9);
        }
      }),
    );
  });
});
