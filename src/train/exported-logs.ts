/**
 * A run's metrics in forms that other programs read, written from the same records as `metrics.jsonl`: event files of
 * TensorBoard, and one table as CSV. A run that resumes writes them anew up to its checkpoint, then adds to them.
 */
import { open, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileVersionRecord, scalarRecord } from "../files/formats/event-file.js";
import { writeFileAtomic } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import {
  metricsFile,
  type EvalRecord,
  type MetricRecord,
  type RoutingRecord,
  type RunMetrics,
  type StepRecord,
} from "./records.js";

/** All forms besides the log itself. */
export const logFormats = ["tensorboard", "csv"] as const;
/** A form in which metrics are written besides the log itself. */
export type LogFormat = (typeof logFormats)[number];

/** Names of the files in a run's folder. TensorBoard reads what has `tfevents` in its name. */
export const exportedFiles: Readonly<Record<LogFormat, string>> = {
  tensorboard: "events.out.tfevents.upcycle",
  csv: "metrics.csv",
};

/** One line of the log with the time at which it was made, in seconds since 1970. */
interface TimedRecord {
  readonly record: StepRecord | EvalRecord;
  readonly wallTime: number;
}

type Scalar = readonly [tag: string, value: number];

/** The numbers of a record by their tags; layers count from 0 among the MoE layers. */
export function scalarsOf(record: StepRecord | EvalRecord): Scalar[] {
  if (record.type === "eval") {
    return [
      ["eval/loss", record.loss],
      ...Object.entries(record.parts ?? {}).map(([name, loss]): Scalar => [`eval/loss/${name}`, loss]),
      ...routingScalars("eval", record.routing),
      ...record.similarity.map((cosine, layer): Scalar => [`eval/similarity/layer_${layer}`, cosine]),
    ];
  }
  const { loss, balanceLoss, zLoss, gradNorm, learningRate, tokens, ms, routing, skipped } = record;
  return [
    ["train/loss", loss],
    ...(balanceLoss === null ? [] : [["train/balance_loss", balanceLoss] as const]),
    ...(zLoss === null ? [] : [["train/z_loss", zLoss] as const]),
    ["train/grad_norm", gradNorm],
    ["train/learning_rate", learningRate],
    ["train/tokens", tokens],
    ["train/step_ms", ms],
    ["train/skipped", skipped === undefined ? 0 : 1],
    ...routingScalars("train", routing),
    ...(routing?.dropped ?? []).map((share, layer): Scalar => [`train/dropped/layer_${layer}`, share]),
  ];
}

function routingScalars(kind: "train" | "eval", routing: RoutingRecord | undefined): Scalar[] {
  if (routing === undefined) return [];
  return [
    ...routing.entropy.map((nats, layer): Scalar => [`${kind}/router_entropy/layer_${layer}`, nats]),
    ...routing.maxViolation.map((value, layer): Scalar => [`${kind}/max_violation/layer_${layer}`, value]),
    ...routing.dead.map((experts, layer): Scalar => [`${kind}/dead_experts/layer_${layer}`, experts.length]),
  ];
}

/** An event file of TensorBoard with these records. */
export function eventFile(records: readonly TimedRecord[]): Uint8Array {
  const parts = [fileVersionRecord(records[0]?.wallTime ?? 0), ...records.map(eventOf)];
  return Buffer.concat(parts);
}

const eventOf = ({ record, wallTime }: TimedRecord): Uint8Array =>
  scalarRecord({ wallTime, step: record.step, scalars: scalarsOf(record) });

/** Columns of the table that a run's records fill; layers and parts are those of its first records. */
export function csvColumns(metrics: Pick<RunMetrics, "steps" | "evals">): string[] {
  const tags = [...metrics.evals.slice(0, 1), ...metrics.steps.slice(0, 1)].flatMap(scalarsOf).map(([tag]) => tag);
  return ["step", "tokens", "wall_time", ...tags];
}

/** A line of the table; cells that a record has nothing for stay empty. */
export function csvLine(columns: readonly string[], { record, wallTime }: TimedRecord): string {
  const cells = new Map<string, number>([
    ...scalarsOf(record),
    ["step", record.step],
    ["tokens", record.tokens],
    ["wall_time", wallTime],
  ]);
  return columns.map((name) => (cells.has(name) ? String(cells.get(name)) : "")).join(",");
}

const csvCell = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csvHead = (columns: readonly string[]): string => `${columns.map(csvCell).join(",")}\n`;

/**
 * The records of a log in their order, with their times: the log ended when its file was last written, and each step
 * says how long it took.
 */
export function timedRecords({ steps, evals }: RunMetrics, ended: number): TimedRecord[] {
  const left = steps.reduce((sum, { ms }) => sum + ms, 0) / 1000;
  let wallTime = ended - left;
  const timed: TimedRecord[] = [];
  let next = 0;
  for (const record of steps) {
    for (; next < evals.length && (evals[next]?.step ?? 0) < record.step; next++)
      timed.push({ record: evals[next] as EvalRecord, wallTime });
    wallTime += record.ms / 1000;
    timed.push({ record, wallTime });
  }
  return [...timed, ...evals.slice(next).map((record) => ({ record, wallTime }))];
}

/** Writes a run's metrics to `file` in another form. Throws inputError where it cannot be written. */
export async function exportMetrics(
  { dir, metrics, format }: { readonly dir: string; readonly metrics: RunMetrics; readonly format: LogFormat },
  file = join(dir, exportedFiles[format]),
): Promise<void> {
  const ended = (await withFsErrors(dir, "look up log", () => stat(join(dir, metricsFile)))).mtimeMs / 1000;
  const records = timedRecords(metrics, ended);
  if (format === "tensorboard") return writeFileAtomic(file, eventFile(records));
  const columns = csvColumns(metrics);
  await writeFileAtomic(file, csvHead(columns) + records.map((one) => `${csvLine(columns, one)}\n`).join(""));
}

/** Adds records to the exported files of a run as they are made. */
export class LogExporter {
  private columns: string[] | null = null;
  private first: EvalRecord | null = null;

  /** `metrics`: what the run has measured so far, which the files hold already. */
  constructor(
    private readonly dir: string,
    private readonly formats: readonly LogFormat[],
    metrics: RunMetrics,
  ) {
    if (metrics.steps.length > 0 && metrics.evals.length > 0) this.columns = csvColumns(metrics);
    else this.first = metrics.evals[0] ?? null;
  }

  /** Adds a record made now. */
  async add(value: MetricRecord): Promise<void> {
    if (value.type !== "step" && value.type !== "eval") return;
    const timed = { record: value, wallTime: Date.now() / 1000 };
    for (const format of this.formats) {
      if (format === "tensorboard") await this.append(format, eventOf(timed));
      else await this.addLine(timed);
    }
  }

  /** The table's head is known with the first step; a measurement before it waits for it. */
  private async addLine(timed: TimedRecord): Promise<void> {
    const { record } = timed;
    if (this.columns === null) {
      if (record.type === "eval") {
        this.first = record;
        return;
      }
      const evals = this.first === null ? [] : [this.first];
      this.columns = csvColumns({ steps: [record], evals });
      const wallTime = timed.wallTime - record.ms / 1000;
      const lines = evals.map((one) => `${csvLine(this.columns ?? [], { record: one, wallTime })}\n`);
      await writeFileAtomic(join(this.dir, exportedFiles.csv), csvHead(this.columns) + lines.join(""));
    }
    await this.append("csv", Buffer.from(`${csvLine(this.columns, timed)}\n`));
  }

  private async append(format: LogFormat, bytes: Uint8Array): Promise<void> {
    const path = join(this.dir, exportedFiles[format]);
    await withFsErrors(path, "write log", async () => {
      const handle = await open(path, "a");
      try {
        await handle.appendFile(bytes);
      } finally {
        await handle.close();
      }
    });
  }
}
