import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { growthAddress, grown } from "../../../src/studio/data/growing.js";
import type { CurveAnswer, RunCurve } from "../../../src/studio/data/types.js";

const curve = (run: string, from: number, to: number, generation = 7): RunCurve => {
  const x = Array.from({ length: to - from }, (_, i) => from + i);
  return { run, x, y: x.map((value) => -value), total: to, first: from, generation, revision: to };
};
const answer = (...curves: readonly RunCurve[]): CurveAnswer => ({ metric: "train/loss", axis: "step", curves });

describe("curves that grow", () => {
  it("are asked for by what there is, as long as that is no more than a screen needs", () => {
    const before = answer(curve("a", 0, 40), curve("b", 0, 3, 8));
    expect(growthAddress("/api/curves?run=a&run=b", before, 10)).toBe("/api/curves?run=a&run=b&have=7:40&have=8:3");
    expect(growthAddress("/api/curves?run=a&run=b", before, 6)).toBeNull();
    expect(growthAddress(`/api/curves?run=${"a".repeat(12_000)}`, before, 10)).toBeNull();
  });

  it("have all points once, however many come at a time", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(5), { maxLength: 8 }), (sizes) => {
        let now = answer(curve("a", 0, 3), curve("b", 0, 3));
        let total = 3;
        for (const size of sizes) {
          now = grown(now, answer(curve("a", total, total + size), curve("b", 3, 3)));
          total += size;
        }
        expect(now).toEqual(answer(curve("a", 0, total), curve("b", 0, 3)));
      }),
    );
  });

  it("are another's where all was given, or a run is new", () => {
    const before = answer(curve("a", 0, 9));
    expect(grown(before, answer(curve("a", 0, 2, 8)))).toEqual(answer(curve("a", 0, 2, 8)));
    expect(grown(before, answer(curve("c", 0, 2)))).toEqual(answer(curve("c", 0, 2)));
  });
});
