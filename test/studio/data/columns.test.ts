import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RunColumns } from "../../../src/studio/data/columns.js";
import { dispatchRecord, effectiveMetrics, type MetricRecord } from "../../../src/train/records.js";
import { evalRecord, recordsOf, stepRecord } from "../folder.js";

const columnsOf = (records: readonly MetricRecord[]): RunColumns => {
  const columns = new RunColumns(32);
  for (const record of records) dispatchRecord(record, columns);
  return columns;
};
const values = (
  columns: RunColumns,
  metric: Parameters<RunColumns["curve"]>[0],
  axis: "step" | "tokens" | "hours" = "step",
): [number, number][] => {
  const curve = columns.curve(metric, axis);
  return curve === null ? [] : Array.from(curve.x, (x, i): [number, number] => [x, curve.y[i]!]);
};

/** Logs of runs that were killed and went on, again and again. */
const logs = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.nat(12)), { minLength: 1, maxLength: 5 })
  .map((parts) => {
    const records: MetricRecord[] = [];
    let step = 0;
    for (const [count, back] of parts) {
      step = Math.max(0, step - back);
      records.push({ type: "resume", step });
      if (step === 0) records.push(evalRecord(0, { kind: "moe" }));
      for (let i = 0; i < count; i++) {
        step++;
        records.push(stepRecord(step, { kind: "moe", seed: records.length }));
        if (step % 3 === 0) records.push(evalRecord(step, { kind: "moe", seed: records.length }));
      }
    }
    return records;
  });

describe("a log as columns", () => {
  it("has what the log has, each step once, however often the run went on from an earlier one", () => {
    fc.assert(
      fc.property(logs, (records) => {
        const columns = columnsOf(records);
        const { steps, evals } = effectiveMetrics(records, "log");
        expect(values(columns, "train/loss")).toEqual(steps.map(({ step, loss }) => [step, loss]));
        expect(values(columns, "eval/loss", "tokens")).toEqual(evals.map(({ tokens, loss }) => [tokens, loss]));
        expect(columns.moments.map(({ step }) => step)).toEqual(evals.map(({ step }) => step));
      }),
    );
  });

  it("names the measures that it holds, and those of layers as one number", () => {
    const columns = columnsOf(recordsOf({ kind: "moe" }));
    expect(columns.metrics).toContain("train/router_entropy");
    expect(values(columns, "train/router_entropy")[0]).toEqual([1, 1.25]);
    expect(values(columns, "eval/dead_experts").at(-1)).toEqual([20, 1]);
    expect(columns.moments.at(-1)?.load.map((layer) => Array.from(layer, (share) => Number(share.toFixed(3))))).toEqual(
      [
        [1.2, 0.8, 1, 1],
        [2, 1.2, 0.796, 0.004],
      ],
    );
    const dense = columnsOf(recordsOf({}));
    expect(dense.metrics).toEqual([
      "train/loss",
      "train/tokens_per_second",
      "train/learning_rate",
      "train/grad_norm",
      "eval/loss",
    ]);
    expect(dense.curve("train/z_loss", "step")).toBeNull();
  });

  it("begins a measure that comes late where it comes", () => {
    const columns = columnsOf([stepRecord(1), stepRecord(2, { kind: "moe" })]);
    expect(values(columns, "train/z_loss")).toEqual([
      [1, NaN],
      [2, Math.fround(0.1)],
    ]);
  });

  it("keeps some hundred moments of experts of a long run, its first and its last among them", () => {
    const columns = columnsOf(Array.from({ length: 2000 }, (_, step) => evalRecord(step, { kind: "moe" })));
    const steps = columns.moments.map(({ step }) => step);
    expect(steps.length).toBeLessThan(257);
    expect(steps.length).toBeGreaterThan(100);
    expect([steps[0], steps.at(-1)]).toEqual([0, 1999]);
    const gaps = steps.slice(1, -1).map((step, i) => step - steps[i]!);
    expect(Math.max(...gaps)).toBeLessThanOrEqual(2 * Math.min(...gaps.slice(0, -1)));
    expect(values(columns, "eval/loss")).toHaveLength(2000);
  });
});
