import { describe, expect, it } from "vitest";
import { afterStep, freshGuard, guardLimits, type GuardState } from "../../src/train/guard.js";

const settings = { window: 8, deviations: 3, patience: 2 };
const step = (loss: number, gradNorm = 1, applied = true) => ({ loss, gradNorm, applied });
const after = (losses: readonly number[]): GuardState =>
  losses.reduce((state, loss) => afterStep(state, settings, step(loss)), freshGuard);

describe("the spike guard", () => {
  it("waits for a full window, then allows mean + k standard deviations", () => {
    expect(guardLimits(after([1, 2, 3, 4, 5, 6, 7]), settings)).toBeUndefined();
    // 2, 4, ..., 16 without the first: mean 9, variance 21.
    const { loss, gradNorm } = guardLimits(after([99, 2, 4, 6, 8, 10, 12, 14, 16]), settings)!;
    expect(loss).toBeCloseTo(9 + 3 * Math.sqrt(21), 12);
    expect(gradNorm).toBeCloseTo(1 + 3 * 0.01, 12);
  });

  it("counts updates apart from skipped steps, and forgets neither window nor updates on a skip", () => {
    const full = after([1, 2, 3, 4, 5, 6, 7, 8]);
    const skipped = afterStep(afterStep(full, settings, step(50, 1, false)), settings, step(60, 1, false));
    expect(skipped).toEqual({ ...full, skipped: 2 });
    expect(guardLimits(skipped, settings)).toEqual(guardLimits(full, settings));
    expect(afterStep(skipped, settings, step(9))).toMatchObject({
      updates: 9,
      skipped: 0,
      losses: [2, 3, 4, 5, 6, 7, 8, 9],
    });
  });

  it("is the same after a trip through JSON", () => {
    const state = after([0.1, 1 / 3, Math.PI, 4, 5, 6, 7.7, 8.123456789]);
    expect(guardLimits(JSON.parse(JSON.stringify(state)) as GuardState, settings)).toEqual(
      guardLimits(state, settings),
    );
  });
});
