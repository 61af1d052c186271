import { describe, expect, it } from "vitest";
import { RunColumns } from "../../../src/studio/data/columns.js";
import { thinned } from "../../../src/studio/data/thinning.js";
import { stepRecord } from "../folder.js";

describe("thinned rows", () => {
  it("are the lowest, the highest and a gap of every four, in their order", () => {
    expect(thinned([5, 1, 9, 2, 4, 4, 4, 4, NaN, NaN, 3, 7, 8], 0)).toEqual([1, 2, 4, 8, 10, 11, 12]);
    expect(thinned([0, 0, 0, 5, 1, 9, 2], 3)).toEqual([4, 5]);
  });
});

describe("a log of more steps than are kept", () => {
  const steps = 100_000;
  const most = 20_000;
  const columns = new RunColumns(32, { steps, mostSteps: most });
  const first = stepRecord(1, { steps });
  const begun = columns.generation;
  let largest = 0;
  for (let step = 1; step <= steps; step++) {
    const loss = step === 33_333 ? 99 : step === 66_666 ? -1 : step === 50_001 ? NaN : 3 + 0.1 * Math.sin(step);
    columns.step({
      ...first,
      step,
      tokens: 32 * step,
      loss: Number.isNaN(loss) ? (null as unknown as number) : loss,
      gradNorm: step,
    });
    largest = Math.max(largest, columns.curve("train/loss", "step")?.x.length ?? 0);
  }
  const { x, y } = columns.curve("train/loss", "step")!;
  const norms = columns.curve("train/grad_norm", "step")!.y;

  it("takes no more memory than it may", () => {
    expect(largest).toBeLessThanOrEqual(most);
    expect(columns.bytes).toBeLessThan(most * 100);
    expect(columns.generation).not.toBe(begun);
  });

  it("keeps spikes up and down, gaps, and all measures of the steps that are kept", () => {
    expect(y[x.indexOf(33_333)]).toBe(99);
    expect(y[x.indexOf(66_666)]).toBe(-1);
    expect(y[x.indexOf(50_001)]).toBeNaN();
    expect(norms).toEqual(Float32Array.from(x));
    expect(x.every((step, i) => i === 0 || step > x[i - 1]!)).toBe(true);
    expect(x.at(-1)).toBe(steps);
  });

  it("has as many of its beginning as of its middle", () => {
    const within = (from: number, to: number): number => x.filter((step) => step > from && step <= to).length;
    const parts = [0, 1, 2, 3].map((part) => within(20_000 * part, 20_000 * (part + 1)));
    expect(Math.max(...parts)).toBeLessThan(1.5 * Math.min(...parts));
    expect(Math.min(...parts)).toBeGreaterThan(1000);
  });

  it("goes on from an earlier step", () => {
    columns.resume(60_000);
    for (let step = 60_001; step <= 61_000; step++) columns.step({ ...first, step, tokens: 32 * step });
    const after = columns.curve("train/loss", "step")!;
    expect(after.x.at(-1)).toBe(61_000);
    expect(after.x.filter((step) => step > 60_000).length).toBe(1000);
    expect(after.y.indexOf(-1)).toBe(-1);
  });
});
