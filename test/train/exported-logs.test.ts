import { mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { crc32c } from "../../src/files/formats/crc32c.js";
import {
  csvColumns,
  exportedFiles,
  exportMetrics,
  LogExporter,
  scalarsOf,
  timedRecords,
} from "../../src/train/exported-logs.js";
import { effectiveMetrics, type EvalRecord, type MetricRecord, type StepRecord } from "../../src/train/records.js";
import { temporaryFolder } from "../files/io/temporary.js";

const root = temporaryFolder();

const step = (number: number): StepRecord => ({
  type: "step",
  step: number,
  tokens: 64 * number,
  loss: 5 - number / 10,
  balanceLoss: 1.5,
  zLoss: 2,
  gradNorm: 0.5,
  learningRate: 1e-3,
  routing: { entropy: [1.25], maxViolation: [0.5], dead: [[3, 4]], dropped: [0.125] },
  ms: 250,
});
const measured = (number: number): EvalRecord => ({
  type: "eval",
  step: number,
  tokens: 64 * number,
  loss: 4.5,
  load: [[0.5, 0.5]],
  routing: { entropy: [1.5], maxViolation: [0.25], dead: [[]] },
  similarity: [0.75],
});
const records: MetricRecord[] = [
  { type: "resume", step: 0 },
  measured(0),
  step(1),
  step(2),
  measured(2),
  step(3),
  { type: "resume", step: 2 },
  step(3),
  step(4),
  measured(4),
  { type: "done", step: 4, peakRssBytes: 1 },
];
const metrics = effectiveMetrics(records, "log");

/** A run folder with this log, whose last line was written at this time. */
function runFolder(name: string, ended = 1_800_000_000): string {
  const dir = join(root, name);
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "metrics.jsonl"), records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  utimesSync(join(dir, "metrics.jsonl"), ended, ended);
  return dir;
}

const csvOf = (dir: string): string[] => readFileSync(join(dir, exportedFiles.csv), "utf8").trimEnd().split("\n");

/** The data of every record of an event file whose checksums are right. */
function eventsOf(dir: string): Buffer[] {
  const file = readFileSync(join(dir, exportedFiles.tensorboard));
  const masked = (bytes: Uint8Array): number => {
    const crc = crc32c(bytes);
    return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
  };
  const events: Buffer[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    expect(file.readUInt32LE(at + 8)).toBe(masked(file.subarray(at, at + 8)));
    expect(file.readUInt32LE(at + 12 + length)).toBe(masked(data));
    events.push(data);
    at += 16 + length;
  }
  return events;
}

describe("metrics in other forms", () => {
  it("have a tag for every number, layer by layer", () => {
    expect(Object.fromEntries(scalarsOf(step(1)))).toEqual({
      "train/loss": 4.9,
      "train/balance_loss": 1.5,
      "train/z_loss": 2,
      "train/grad_norm": 0.5,
      "train/learning_rate": 1e-3,
      "train/tokens": 64,
      "train/step_ms": 250,
      "train/skipped": 0,
      "train/router_entropy/layer_0": 1.25,
      "train/max_violation/layer_0": 0.5,
      "train/dead_experts/layer_0": 2,
      "train/dropped/layer_0": 0.125,
    });
    const { type, ...rest } = measured(0);
    expect(scalarsOf({ type, ...rest, parts: { code: 3 } }).map(([tag]) => tag)).toContain("eval/loss/code");
  });

  it("end when the log ended, each step as long as it took", () => {
    expect(timedRecords(metrics, 100).map(({ record, wallTime }) => [record.type, record.step, wallTime])).toEqual([
      ["eval", 0, 99],
      ["step", 1, 99.25],
      ["step", 2, 99.5],
      ["eval", 2, 99.5],
      ["step", 3, 99.75],
      ["step", 4, 100],
      ["eval", 4, 100],
    ]);
  });

  it("as CSV are one table, a line for each record", async () => {
    const dir = runFolder("csv");
    await exportMetrics({ dir, metrics, format: "csv" });
    const [head, ...lines] = csvOf(dir);
    expect(head?.split(",")).toEqual(csvColumns(metrics));
    expect(head?.split(",").slice(0, 4)).toEqual(["step", "tokens", "wall_time", "eval/loss"]);
    expect(lines.map((line) => line.split(",").slice(0, 4))).toEqual([
      ["0", "0", "1799999999", "4.5"],
      ["1", "64", "1799999999.25", ""],
      ["2", "128", "1799999999.5", ""],
      ["2", "128", "1799999999.5", "4.5"],
      ["3", "192", "1799999999.75", ""],
      ["4", "256", "1800000000", ""],
      ["4", "256", "1800000000", "4.5"],
    ]);
  });

  it("as events have one record each behind the file's version", async () => {
    const dir = runFolder("events");
    await exportMetrics({ dir, metrics, format: "tensorboard" });
    const [version, ...events] = eventsOf(dir);
    expect(version?.toString("latin1")).toContain("brain.Event:2");
    expect(events).toHaveLength(7);
    expect(events[1]?.toString("latin1")).toContain("train/learning_rate");
  });

  it("written while a run trains are those of the finished log, but for the times; also of a run that resumes", async () => {
    const whole = runFolder("whole");
    const live = runFolder("live");
    for (const format of ["csv", "tensorboard"] as const) await exportMetrics({ dir: whole, metrics, format });
    const begin = effectiveMetrics(records.slice(0, 1), "log");
    for (const format of ["csv", "tensorboard"] as const) await exportMetrics({ dir: live, metrics: begin, format });
    const first = new LogExporter(live, ["csv", "tensorboard"], begin);
    for (const record of records.slice(1, 6)) await first.add(record);
    const half = effectiveMetrics(records.slice(0, 7), "log");
    for (const format of ["csv", "tensorboard"] as const) await exportMetrics({ dir: live, metrics: half, format });
    const second = new LogExporter(live, ["csv", "tensorboard"], half);
    for (const record of records.slice(7)) await second.add(record);
    const timeless = (line: string): string[] => line.split(",").filter((_, column) => column !== 2);
    expect(csvOf(live).map(timeless)).toEqual(csvOf(whole).map(timeless));
    // Field 1 with eight bytes of time comes first.
    expect(eventsOf(live).map((event) => event.subarray(9).toString("hex"))).toEqual(
      eventsOf(whole).map((event) => event.subarray(9).toString("hex")),
    );
  });
});
