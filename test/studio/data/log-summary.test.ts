import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { briefStep, isStepLine, LogSummary, withoutRouting } from "../../../src/studio/data/log-summary.js";
import { dispatchRecord, effectiveMetrics, type MetricRecord, type StepRecord } from "../../../src/train/records.js";
import { evalRecord, recordsOf, stepRecord } from "../folder.js";

/** Reads a log in pieces of so many lines, as a tail gives it; returns what was judged too. */
function read(records: readonly unknown[], sizes: readonly number[] = [records.length]): [LogSummary, unknown[]] {
  const summary = new LogSummary();
  const judged: unknown[] = [];
  let from = 0;
  for (const size of [...sizes, records.length]) {
    const lines = records.slice(from, from + size).map((record) => JSON.stringify(record));
    from += size;
    summary.piece(`${lines.join("\n")}\n`);
    for (const line of lines) if (!summary.keep(line)) dispatchRecord(JSON.parse(line), summary);
    if (size % 2 === 0) judged.push(...summary.settle());
  }
  judged.push(...summary.settle());
  return [summary, judged];
}

/** Logs of runs that were killed and went on, with steps that fail now and then. */
const logs = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 300 }), fc.nat(400), fc.nat(40)), { minLength: 1, maxLength: 5 })
  .map((parts) => {
    const records: MetricRecord[] = [];
    let step = 0;
    for (const [count, back, bad] of parts) {
      step = Math.max(0, step - back);
      records.push({ type: "resume", step });
      for (let i = 0; i < count; i++) {
        step++;
        const record = stepRecord(step, { kind: "moe", seed: records.length });
        records.push(i === bad ? { ...record, loss: null as unknown as number } : record);
        if (step % 50 === 0) records.push(evalRecord(step, { kind: "moe", seed: records.length }));
      }
    }
    return records;
  });

describe("what the list shows of a log", () => {
  it("is the last step and all measurements that count, in whatever pieces it is read", () => {
    fc.assert(
      fc.property(logs, fc.array(fc.nat(200), { maxLength: 6 }), (records, sizes) => {
        const [summary] = read(records, sizes);
        const { steps, evals } = effectiveMetrics(JSON.parse(JSON.stringify(records)) as unknown[], "log");
        const { step, tokens, loss } = steps.at(-1)!;
        expect(summary.lastStep).toEqual({ step, tokens, loss });
        expect(summary.losses).toEqual(evals.map((one) => ({ step: one.step, tokens: one.tokens, loss: one.loss })));
      }),
      { numRuns: 60 },
    );
  });

  it("judges the last records, and earlier ones that fail or go back, wherever they are", () => {
    fc.assert(
      fc.property(logs, (records) => {
        const [, judged] = read(records);
        const wanted = JSON.parse(JSON.stringify(records)) as { type: string; step: number; loss?: number | null }[];
        const failed = wanted.filter(({ type, loss }) => type === "resume" || (type === "step" && loss === null));
        const key = ({ type, step }: { type: string; step: number }): string => `${type} ${step}`;
        const found = (judged as { type: string; step: number }[]).map(key);
        expect(found).toEqual(expect.arrayContaining(failed.map(key)));
        expect(found.slice(-64)).toEqual(wanted.map(key).slice(-64));
      }),
      { numRuns: 40 },
    );
  });

  it("says where a run went back to that has made no step since, by the tokens of a step where it is not known", () => {
    const early = recordsOf({ steps: 1000, done: 900 });
    expect(read([...early, { type: "resume", step: 890 }])[0].lastStep).toEqual({
      step: 890,
      tokens: 890 * 32,
      loss: stepRecord(890, { steps: 1000 }).loss,
    });
    expect(read([...early, { type: "resume", step: 100 }])[0].lastStep).toEqual({
      step: 100,
      tokens: 3200,
      loss: null,
    });
    expect(read([...early, { type: "resume", step: 0 }])[0].lastStep).toBeNull();
  });

  it("counts lines that look like steps and are none", () => {
    const summary = new LogSummary();
    expect(summary.keep('{"type":"step",nonsense}')).toBe(true);
    expect([summary.settle(), summary.badLines]).toEqual([[], 1]);
  });
});

describe("the line of a step", () => {
  const line = JSON.stringify(stepRecord(7, { kind: "moe" }));

  it("is told from one that was cut off or has run into the next", () => {
    expect(isStepLine(line)).toBe(true);
    expect(isStepLine(line.slice(0, -1))).toBe(false);
    expect(isStepLine(`${line.slice(0, 40)}${line}`)).toBe(false);
    expect(isStepLine(JSON.stringify(evalRecord(7)))).toBe(false);
    expect(isStepLine(` ${line}`)).toBe(false);
  });

  it("is read by its numbers alone where it is written as a training writes it", () => {
    for (const kind of ["dense", "moe"] as const) {
      const { type, step, tokens, loss, ms } = stepRecord(7, { kind });
      expect(briefStep(JSON.stringify(stepRecord(7, { kind })))).toEqual({ type, step, tokens, loss, ms });
    }
    const tiny = { ...stepRecord(7), loss: 1.5e-7, ms: 2e-7 };
    expect(briefStep(JSON.stringify(tiny))).toMatchObject({ loss: 1.5e-7, ms: 2e-7 });
    expect(briefStep(line.replace(/"loss":[^,]+/, '"loss":null'))).toBeNull();
    expect(briefStep(line.replace(/"ms":[^,}]+/, '"ms":"x"'))).toBeNull();
    expect(briefStep(line.replace('"step":7,"tokens"', '"tokens":1,"step":7,"tokens"'))).toBeNull();
  });

  it("without its routing has all else", () => {
    const load = [[0.25, 0.75]];
    const records: StepRecord[] = [
      stepRecord(7, { kind: "moe" }),
      stepRecord(7),
      {
        ...stepRecord(7, { kind: "moe" }),
        routing: { entropy: [1], maxViolation: [0], dead: [[]], dropped: [0.1], load },
      },
      { ...stepRecord(7, { kind: "moe" }), skipped: "loss" },
    ];
    for (const { routing, ...rest } of records) {
      const text = JSON.stringify({ ...rest, ...(routing !== undefined && { routing }) });
      expect(JSON.parse(withoutRouting(text))).toEqual(rest);
      expect(JSON.parse(withoutRouting(JSON.stringify({ routing, ...rest })))).toBeTruthy();
    }
  });
});
