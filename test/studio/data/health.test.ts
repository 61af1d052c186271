import { describe, expect, it } from "vitest";
import { RunHealth } from "../../../src/studio/data/health.js";
import { evalRecord, stepRecord } from "../folder.js";

const healthOf = (more: Partial<ConstructorParameters<typeof RunHealth>[0]> = {}): RunHealth =>
  new RunHealth({ run: "a", steps: 100, experts: null, ...more });

describe("what goes wrong in a run", () => {
  it("is nothing in a run in which nothing goes wrong", () => {
    const health = healthOf();
    for (let step = 1; step <= 100; step++) health.step(stepRecord(step), step * 10);
    expect(health.alerts).toEqual([]);
  });

  it("is a loss that is no number, which stands as null in a log", () => {
    const health = healthOf();
    const found = health.step({ ...stepRecord(7), loss: null as unknown as number }, 0);
    expect(found).toEqual([
      { level: "error", kind: "nan", run: "a", step: 7, message: "the loss is not a number", count: 1 },
    ]);
    health.step({ ...stepRecord(8), loss: NaN }, 0);
    expect(health.alerts).toMatchObject([{ kind: "nan", step: 8, count: 2 }]);
  });

  it("is a spike and a gradient that overflows, by the rules of upcycle watch", () => {
    const health = healthOf();
    for (let step = 1; step <= 20; step++) health.step(stepRecord(step), step);
    expect(health.step({ ...stepRecord(21), loss: 9 }, 21).map(({ kind }) => kind)).toEqual(["divergence"]);
    expect(health.step({ ...stepRecord(22), gradNorm: Infinity }, 22).map(({ kind }) => kind)).toEqual(["nan"]);
  });

  it("is a drop in speed, but no slow step now and then", () => {
    const health = healthOf();
    const kinds = (from: number, to: number, isSlow: (step: number) => boolean): string[] =>
      Array.from({ length: to - from }, (_, i) => from + i).flatMap((step) =>
        health.step({ ...stepRecord(step), ms: isSlow(step) ? 300 : 100 }, step).map(({ kind }) => kind),
      );
    expect(kinds(1, 101, (step) => step % 4 === 0)).toEqual([]);
    const dropped = kinds(101, 110, () => true);
    expect(dropped.length).toBeGreaterThan(0);
    expect(new Set(dropped)).toEqual(new Set(["slow"]));
  });

  it("is no drop of less than a second: steps of milliseconds are often slow for a moment", () => {
    const health = healthOf({ experts: null });
    const count = (from: number, to: number, ms: number): number =>
      Array.from({ length: to - from }, (_, i) => from + i).flatMap((step) =>
        health.step({ ...stepRecord(step), ms }, step),
      ).length;
    expect(count(1, 101, 10)).toBe(0);
    expect(count(101, 111, 40)).toBe(0);
    expect(count(111, 141, 40)).toBeGreaterThan(0);
  });

  it("is a router that has collapsed, in training or on held-out text, whatever the scale of its balance loss", () => {
    const health = healthOf({ experts: 4 });
    const unbalanced = { ...stepRecord(1, { kind: "moe" }), balanceLoss: 9 };
    expect(health.step(unbalanced, 0)).toEqual([]);
    const few = { entropy: [], maxViolation: [], dead: [[0, 1, 2], []] };
    expect(health.step({ ...stepRecord(2, { kind: "moe" }), routing: few }, 0)).toMatchObject([
      { level: "error", kind: "collapse", step: 2 },
    ]);
    const dead = {
      ...evalRecord(5, { kind: "moe" }),
      routing: { entropy: [], maxViolation: [], dead: [[], [1, 2, 3]] },
    };
    expect(health.eval(dead)).toMatchObject([
      { kind: "collapse", step: 5, message: "MoE layer 1: 3 of 4 experts get hardly any token" },
    ]);
    expect(health.eval(evalRecord(10, { kind: "moe" }))).toEqual([]);
  });

  it("is a collapse that a loss over all layers together does not show, which the log says once", () => {
    const health = healthOf({ experts: 4 });
    const unseenCollapse = { layers: [1], balanceLoss: 2.01, balanced: 2 };
    expect(health.eval({ ...evalRecord(5, { kind: "moe" }), unseenCollapse })).toMatchObject([
      { level: "warning", kind: "unseen-collapse", step: 5, count: 1 },
    ]);
    expect(health.alerts[0]?.message).toContain("of MoE layer 1 get hardly any token");
  });

  it("is a step that the spike guard has skipped, a run that went on, and one that stands still", () => {
    const health = healthOf({ stallSeconds: 5 });
    expect(health.step({ ...stepRecord(3), skipped: "gradient" }, 1000)).toMatchObject([{ kind: "skipped", step: 3 }]);
    expect(health.resume(2, 2000)).toMatchObject([{ kind: "restart", step: 2 }]);
    // The same step with the same loss, as a run that goes on makes it again, is no new step.
    health.step({ ...stepRecord(3), loss: 3.5 }, 3000);
    expect(health.tick(7000)).toEqual([]);
    expect(health.tick(9000)).toMatchObject([{ level: "error", kind: "stall" }]);
    expect(health.tick(60_000)).toEqual([]);
    health.step(stepRecord(4), 61_000);
    health.done();
    expect(health.tick(1e9)).toEqual([]);
  });
});
