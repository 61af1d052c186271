import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import {
  effectiveMetrics,
  endOf,
  tokensPerSecond,
  type EvalRecord,
  type MetricRecord,
  type StepRecord,
} from "../../src/train/records.js";
import { temporaryFolder } from "../files/io/temporary.js";

const step = (n: number, loss = n, ms = 10): StepRecord => ({
  type: "step",
  step: n,
  tokens: 8 * n,
  loss,
  balanceLoss: null,
  zLoss: null,
  gradNorm: 1,
  learningRate: 1,
  ms,
});
const evaluation = (n: number, loss = n): EvalRecord => ({
  type: "eval",
  step: n,
  tokens: 8 * n,
  loss,
  load: [],
  similarity: [],
});
const resume = (n: number): MetricRecord => ({ type: "resume", step: n });
const done = (n: number): MetricRecord => ({ type: "done", step: n, peakRssBytes: 5 });
const brief = (records: readonly MetricRecord[]) => {
  const { steps, evals, done: end } = effectiveMetrics(records, "log");
  return {
    steps: steps.map(({ step: n, loss }) => [n, loss]),
    evals: evals.map(({ step: n, loss }) => [n, loss]),
    done: end?.step ?? null,
  };
};

describe("effective metrics", () => {
  it("of a run in one go are its lines", () => {
    expect(brief([resume(0), evaluation(0), step(1), step(2), evaluation(2), done(2)])).toEqual({
      steps: [
        [1, 1],
        [2, 2],
      ],
      evals: [
        [0, 0],
        [2, 2],
      ],
      done: 2,
    });
  });

  it("drop what lies beyond the checkpoint that a run went on from", () => {
    expect(
      brief([
        resume(0),
        evaluation(0),
        step(1),
        step(2),
        evaluation(2),
        step(3, 99),
        step(4, 99),
        evaluation(4, 99),
        resume(2),
        step(3),
        step(4),
      ]),
    ).toEqual({
      steps: [
        [1, 1],
        [2, 2],
        [3, 3],
        [4, 4],
      ],
      evals: [
        [0, 0],
        [2, 2],
      ],
      done: null,
    });
  });

  it("survive several kills, also before the first checkpoint", () => {
    expect(
      brief([
        resume(0),
        evaluation(0, 9),
        step(1, 9),
        resume(0),
        evaluation(0, 7),
        step(1),
        step(2, 9),
        resume(1),
        step(2),
        step(3, 9),
        done(3),
        resume(2),
        step(3),
        done(3),
      ]),
    ).toEqual({
      steps: [
        [1, 1],
        [2, 2],
        [3, 3],
      ],
      evals: [[0, 7]],
      done: 3,
    });
  });

  it("refuse other lines, saying where", () => {
    for (const value of [{ type: "other" }, null, 3, {}]) {
      expect(() => effectiveMetrics([step(1), value], "metrics.jsonl")).toThrow(UpcycleError);
      expect(() => effectiveMetrics([step(1), value], "metrics.jsonl")).toThrow("no metrics record");
    }
  });
});

describe("tokens per second", () => {
  it("is the median, without the first two steps where there are more", () => {
    expect(tokensPerSecond([], 100)).toBe(0);
    expect(tokensPerSecond([step(1, 0, 50)], 100)).toBe(2000);
    expect(
      tokensPerSecond([step(1, 0, 1000), step(2, 0, 1000), step(3, 0, 10), step(4, 0, 20), step(5, 0, 1000)], 100),
    ).toBe(5000);
  });
});

describe("the end of a run, by the end of its log", () => {
  const dir = temporaryFolder();
  const done: MetricRecord = { type: "done", step: 700, reason: "steps", peakRssBytes: 1 };
  const ended = (records: readonly MetricRecord[], cut = 0): Promise<unknown> => {
    const text = records.map((record) => `${JSON.stringify(record)}\n`).join("");
    writeFileSync(join(dir, "metrics.jsonl"), text.slice(0, text.length - cut));
    return endOf(dir);
  };
  const steps = Array.from({ length: 700 }, (_, i) => step(i + 1));

  it("is its last line, however long the log", async () => {
    expect(await ended([...steps, done])).toEqual(done);
    expect(await ended([done])).toEqual(done);
  });

  it("is none before it, behind a resumption, and where the line was cut off", async () => {
    expect(await ended(steps)).toBeNull();
    expect(await ended([...steps, done, resume(700)])).toBeNull();
    expect(await ended([...steps, done], 1)).toBeNull();
    expect(await ended([])).toBeNull();
  });
});
