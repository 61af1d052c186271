import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { naturalOrder } from "../../../src/studio/data/natural.js";

const collator = new Intl.Collator("en", { numeric: true });
const sign = Math.sign;

describe("the order of names", () => {
  const words = fc.string({ unit: fc.constantFrom(..."aAbB01 29._-/@z"), maxLength: 8 });
  const plain = fc.oneof(
    words,
    fc.string({ unit: fc.integer({ min: 32, max: 126 }).map((c) => String.fromCharCode(c)) }),
  );

  it("is that of Intl.Collator with numeric: true, for names in ASCII", () => {
    const compare = naturalOrder([]);
    fc.assert(
      fc.property(plain, plain, (a, b) => {
        expect(sign(compare(a, b))).toBe(sign(collator.compare(a, b)));
      }),
      { numRuns: 5000 },
    );
  });

  it("takes numbers by their values, however many digits they have", () => {
    const names = ["run-10", "run-9", "run-100000000000000000000001", "run-100000000000000000000000", "run-009b"];
    expect([...names].sort(naturalOrder(names))).toEqual([...names].sort(collator.compare));
    expect(naturalOrder([])("run-9", "run-10")).toBeLessThan(0);
  });

  it("is that of Intl.Collator for all names of a list of which one is not in ASCII", () => {
    const names = ["über", "under", "zeta", "Über", "ueber"];
    expect([...names].sort(naturalOrder(names))).toEqual([...names].sort(collator.compare));
  });
});
