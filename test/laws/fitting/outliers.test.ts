import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { fitLaw, problemOf } from "../../../src/laws/fitting/fit.js";
import { outliersOf, type Outlier } from "../../../src/laws/fitting/outliers.js";
import type { Loss } from "../../../src/laws/solvers/loss.js";
import { fitNear, gridOf, law, publishedParams, simulated, spaced } from "../data.js";

const chinchilla = publishedParams("besiroglu");
const grid = gridOf({ N: spaced(5e7, 1.2e10, 6), D: spaced(1e9, 3e11, 6) });
const losses: Loss[] = [
  { name: "huber", delta: 1e-3 },
  { name: "mse", delta: 0 },
  { name: "lad", delta: 0 },
];

/** Outliers of a simulated table in which these points are off by so many standard deviations. */
function found(seed: number, errors: Readonly<Record<number, number>>, loss: Loss, noise = 0.006): readonly Outlier[] {
  const points = simulated(law("chinchilla"), chinchilla, grid, noise, seed);
  const off = points.loss.map((value, i) => value * Math.exp((errors[i] ?? 0) * noise));
  const fit = fitNear(law("chinchilla"), { ...points, loss: off }, chinchilla, loss);
  return outliersOf(fit, problemOf(fit.bound, { ...points, loss: off }, loss));
}

/** Share of studies in which exactly these points are named. */
function exactly(errors: Readonly<Record<number, number>>, loss: Loss, studies = 20): number {
  const wanted = Object.keys(errors).map(Number);
  const hits = Array.from({ length: studies }, (_, seed) => {
    const named = found(seed, errors, loss).map(({ point }) => point);
    return named.length === wanted.length && named.every((point) => wanted.includes(point));
  });
  return hits.filter(Boolean).length / studies;
}

describe("outliers", () => {
  it.each(losses)("are named in a few per cent of clean tables ($name)", (loss) => {
    // Two per cent are meant. Of 40 tables 3 or fewer then name a point in 99 of 100 cases; the seeds are fixed.
    expect(exactly({}, loss, 40)).toBeGreaterThanOrEqual(37 / 40);
  });

  it.each(losses.slice(0, 2))("are all named where several hide each other, and no others ($name)", (loss) => {
    expect(exactly({ 14: 8 }, loss)).toBeGreaterThanOrEqual(0.9);
    expect(exactly({ 3: 8, 14: -8, 27: 8 }, loss)).toBeGreaterThanOrEqual(0.9);
    // A sixth of the points, all on one side.
    expect(exactly({ 3: 8, 8: 8, 14: 8, 21: 8, 27: 8, 32: 8 }, loss)).toBeGreaterThanOrEqual(0.85);
  });

  it("are found among the largest models, which pull the fit to themselves", () => {
    expect(exactly({ 30: 10, 32: 10, 35: 10 }, at(losses, 1))).toBeGreaterThanOrEqual(0.85);
  });

  it("are called by how many standard errors they are off", () => {
    const [first, ...others] = found(0, { 14: 20 }, at(losses, 0));
    expect(others).toEqual([]);
    expect(first).toMatchObject({ point: 14 });
    expect((first?.residual ?? NaN) / (20 * 0.006)).toBeCloseTo(1, 0);
    expect(first?.size).toBeGreaterThan(10);
    expect(first?.size).toBeLessThan(30);
  });

  it("are found beside points without noise, of which none is one", () => {
    expect(found(0, {}, at(losses, 1), 0)).toEqual([]);
    const points = simulated(law("chinchilla"), chinchilla, grid);
    const off = points.loss.map((value, i) => value * (i === 7 ? 1.01 : 1));
    const fit = fitLaw(law("chinchilla"), { ...points, loss: off });
    expect(outliersOf(fit, problemOf(fit.bound, { ...points, loss: off }, fit.loss)).map(({ point }) => point)).toEqual(
      [7],
    );
  });

  it("are not looked for where too few points are left over", () => {
    const few = gridOf({ N: spaced(5e7, 1.2e10, 2), D: spaced(1e9, 3e11, 4) });
    const points = simulated(law("chinchilla"), chinchilla, few, 0.006, 0);
    const off = points.loss.map((value, i) => value * (i === 4 ? 1.2 : 1));
    const fit = fitLaw(law("chinchilla"), { ...points, loss: off });
    expect(outliersOf(fit, problemOf(fit.bound, { ...points, loss: off }, fit.loss))).toEqual([]);
  });
});
