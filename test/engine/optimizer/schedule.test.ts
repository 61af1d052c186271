import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { learningRateAt, type Schedule } from "../../../src/engine/optimizer/schedule.js";

const shape = (lr: Schedule, steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => Number(learningRateAt(lr, steps, i + 1).toFixed(6)));

describe("learning rate", () => {
  it.each<[string, Schedule, number, number[]]>([
    ["constant", { peak: 1, schedule: "constant", warmup: 2, final: 0.1 }, 5, [0.5, 1, 1, 1, 1]],
    ["linear", { peak: 1, schedule: "linear", warmup: 2, final: 0.2 }, 6, [0.5, 1, 0.8, 0.6, 0.4, 0.2]],
    ["linear without warm-up", { peak: 2, schedule: "linear", warmup: 0, final: 0 }, 5, [2, 1.5, 1, 0.5, 0]],
    ["cosine", { peak: 1, schedule: "cosine", warmup: 1, final: 0 }, 5, [1, 0.853553, 0.5, 0.146447, 0]],
    ["cosine to a tenth", { peak: 1, schedule: "cosine", warmup: 0, final: 0.1 }, 3, [1, 0.55, 0.1]],
    ["wsd", { peak: 1, schedule: "wsd", warmup: 2, final: 0, decay: 4 }, 10, [0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]],
    [
      "wsd, a fifth by default",
      { peak: 1, schedule: "wsd", warmup: 0, final: 0.5 },
      10,
      [1, 1, 1, 1, 1, 1, 1, 1, 0.75, 0.5],
    ],
    ["all warm-up", { peak: 1, schedule: "cosine", warmup: 4, final: 0 }, 4, [0.25, 0.5, 0.75, 1]],
  ])("%s", (_, lr, steps, expected) => {
    expect(shape(lr, steps)).toEqual(expected);
  });

  const schedules = fc
    .record({
      steps: fc.integer({ min: 1, max: 200 }),
      warm: fc.double({ min: 0, max: 1, noNaN: true }),
      fall: fc.double({ min: 0, max: 1, noNaN: true }),
      peak: fc.double({ min: 1e-8, max: 10, noNaN: true }),
      final: fc.double({ min: 0, max: 1, noNaN: true }),
      schedule: fc.constantFrom("constant" as const, "linear" as const, "cosine" as const, "wsd" as const),
    })
    .map(({ steps, warm, fall, ...rest }) => {
      const warmup = Math.floor(warm * steps);
      const left = steps - warmup;
      return { steps, lr: { ...rest, warmup, ...(left > 0 ? { decay: 1 + Math.floor(fall * (left - 1)) } : {}) } };
    });

  it("rises, never passes the peak, never rises again, never falls below its end", () => {
    fc.assert(
      fc.property(schedules, ({ steps, lr }) => {
        const rates = Array.from({ length: steps }, (_, i) => learningRateAt(lr, steps, i + 1));
        rates.forEach((rate, i) => {
          expect(rate).toBeGreaterThanOrEqual(0);
          expect(rate).toBeLessThanOrEqual(lr.peak * (1 + 1e-12));
          if (i + 1 <= lr.warmup) expect(rate).toBeCloseTo((lr.peak * (i + 1)) / lr.warmup, 12);
          else expect(rate).toBeGreaterThanOrEqual(lr.peak * (lr.final - 1e-12));
          if (i + 1 > lr.warmup && i > 0 && i + 1 > Math.max(1, lr.warmup))
            expect(rate).toBeLessThanOrEqual(at(rates, i - 1) * (1 + 1e-12));
        });
        if (steps > Math.max(1, lr.warmup) && lr.schedule !== "constant")
          expect(at(rates, rates.length - 1) / lr.peak).toBeCloseTo(lr.final, 9);
        if (steps > 1 || lr.warmup === 1) expect(Math.max(...rates) / lr.peak).toBeCloseTo(1, 9);
      }),
    );
  });

  it("of a run of one step is the peak", () => {
    for (const schedule of ["constant", "linear", "cosine", "wsd"] as const) {
      expect(learningRateAt({ peak: 3, schedule, warmup: 0, final: 0 }, 1, 1), schedule).toBe(3);
    }
  });
});
