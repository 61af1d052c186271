import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { cosineSimilarity, arithmeticMean } from "../../../src/files/numeric/similarity.js";

const of = (...values: number[]): Float32Array => Float32Array.from(values);

describe("cosine similarity", () => {
  it("of equal, opposite, orthogonal and known vectors", () => {
    expect(cosineSimilarity(of(3, 4), of(3, 4))).toBe(1);
    expect(cosineSimilarity(of(3, 4), of(-3, -4))).toBe(-1);
    expect(cosineSimilarity(of(1, 0), of(0, 2))).toBe(0);
    expect(cosineSimilarity(of(1, 0), of(1, 1))).toBeCloseTo(Math.SQRT1_2, 15);
  });

  it("of two zero vectors is 1, of a zero and another vector 0", () => {
    expect(cosineSimilarity(of(0, 0), of(0, 0))).toBe(1);
    expect(cosineSimilarity(of(0, 0), of(1, 0))).toBe(0);
  });

  it("is symmetric and does not see a positive scale", () => {
    const vector = fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(vector, vector, (a, b) => {
        const similarity = cosineSimilarity(of(...a), of(...b));
        expect(cosineSimilarity(of(...b), of(...a))).toBe(similarity);
        expect(Math.abs(similarity)).toBeLessThanOrEqual(1);
        expect(
          cosineSimilarity(
            of(...a).map((x) => 4 * x),
            of(...b),
          ),
        ).toBeCloseTo(similarity, 6);
      }),
    );
  });

  it("of 4,000,000 equal values is 1, since it accumulates in double precision", () => {
    const a = new Float32Array(4_000_000).fill(1e-3);
    expect(cosineSimilarity(a, a)).toBeCloseTo(1, 12);
  });

  it("refuses vectors of unequal lengths", () => {
    expect(() => cosineSimilarity(of(1), of(1, 2))).toThrow("cosine of 1 and 2 values");
  });

  it("the mean of values is their sum over their number, NaN without any", () => {
    expect(arithmeticMean([1, 2, 6])).toBe(3);
    expect(arithmeticMean([])).toBeNaN();
  });
});
