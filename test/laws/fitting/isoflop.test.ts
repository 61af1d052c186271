import { describe, expect, it } from "vitest";
import { isoFlop } from "../../../src/laws/fitting/isoflop.js";
import { spaced } from "../data.js";

const options = { level: 0.9, bootstrap: 0, seed: 0 };

/** Symmetric exponents, so that parabolas over sizes about the best one have their lowest point there. */
function study(budgets: readonly number[]): { N: number[]; D: number[]; C: number[]; loss: number[] } {
  const rows = budgets.flatMap((C) => {
    const best = Math.sqrt(C / 6 / 20);
    return spaced(best / 3, best * 3, 7).map((N) => ({ N, D: C / (6 * N), C }));
  });
  const loss = rows.map(({ N, D }) => 1.8 + 400 * N ** -0.34 + 400 * 20 ** 0.34 * D ** -0.34);
  return { N: rows.map(({ N }) => N), D: rows.map(({ D }) => D), C: rows.map(({ C }) => C), loss };
}

describe("IsoFLOP analysis", () => {
  it("finds the best sizes and their power of compute", () => {
    const result = isoFlop(study([1e19, 1e20, 1e21, 1e22]), options);
    expect(result?.size.exponent).toBeCloseTo(0.5, 10);
    expect(result?.tokens.exponent).toBeCloseTo(0.5, 10);
    for (const { tokensPerParameter, size, compute } of result?.budgets ?? []) {
      expect(tokensPerParameter).toBeCloseTo(20, 6);
      expect((size ?? NaN) / Math.sqrt(compute / 120)).toBeCloseTo(1, 8);
    }
  });

  it("says why a budget is left out, and needs three", () => {
    const points = study([1e19, 1e20, 1e21, 1e22]);
    const upsideDown = points.loss.map((loss, i) => (i < 7 ? 6 - loss : loss));
    const result = isoFlop({ ...points, loss: upsideDown }, options);
    expect(result?.budgets.map(({ leftOut }) => leftOut)).toEqual([
      "the losses have no lowest point over sizes",
      null,
      null,
      null,
    ]);
    expect(isoFlop(study([1e19, 1e20]), options)).toBeNull();
  });

  it("has the same bootstrap for the same seed", () => {
    const points = study([1e19, 1e20, 1e21, 1e22]);
    const noisy = { ...points, loss: points.loss.map((loss, i) => loss * (1 + 0.001 * Math.sin(37 * i))) };
    const [one, other] = [1, 1].map((seed) => isoFlop(noisy, { ...options, bootstrap: 40, seed }));
    expect(one).toEqual(other);
    const [low, high] = one?.size.bootstrap ?? [NaN, NaN];
    expect(low).toBeLessThan(high);
  });
});
