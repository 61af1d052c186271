import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { firstAtLeast } from "../../src/base/search.js";

describe("a search among ascending values", () => {
  it("finds the first at or behind a value as a scan does", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 50 })), fc.integer({ min: -1, max: 51 }), (values, wanted) => {
        const x = [...values].sort((a, b) => a - b);
        const found = x.findIndex((value) => value >= wanted);
        expect(firstAtLeast(x, wanted)).toBe(found < 0 ? x.length : found);
      }),
    );
  });
});
