import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { editDistance, nearest } from "../../../src/base/schemas/nearest.js";

describe("the edit distance", () => {
  it("is a distance over random words, and counts a swap of neighbours once", () => {
    const word = fc.string({ maxLength: 8 });
    fc.assert(
      fc.property(word, word, (a, b) => {
        expect(editDistance(a, a)).toBe(0);
        expect(editDistance(a, b)).toBe(editDistance(b, a));
        expect(editDistance(a, b)).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(editDistance(a, b)).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
    expect([editDistance("steps", "stepz"), editDistance("form", "from"), editDistance("kitten", "sitting")]).toEqual([
      1, 1, 3,
    ]);
  });
});

describe("the nearest word", () => {
  it("is the key that was meant, or none where no key is close", () => {
    const keys = ["steps", "batch", "auxLoss", "evalEvery", "lr"];
    expect(nearest("step", keys)).toBe("steps");
    expect(nearest("aux_loss", keys)).toBe("auxLoss");
    expect(nearest("eval-every", keys)).toBe("evalEvery");
    expect(nearest("colour", keys)).toBeUndefined();
    expect(nearest("x", keys)).toBeUndefined();
  });
});
