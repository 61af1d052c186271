/** The metrics log of a run: one JSON object a line, append-only. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { readJsonl } from "../files/io/jsonl.js";
import type { UnseenCollapse } from "../model/results/collapse.js";
import type { Machine } from "../model/results/machine.js";
import { openRanges } from "../files/io/ranges.js";

/** One training step in the log. */
export interface StepRecord {
  readonly type: "step";
  /** Number of the step, 1 for the first. */
  readonly step: number;
  /** Tokens that this and all earlier steps have seen. */
  readonly tokens: number;
  /** Mean next-token cross entropy in nats over the step's micro-batches. */
  readonly loss: number;
  /** Load-balancing loss and router z-loss before their coefficients; null for a dense model. */
  readonly balanceLoss: number | null;
  readonly zLoss: number | null;
  /** Norm of the gradient before clipping. */
  readonly gradNorm: number;
  readonly learningRate: number;
  /** Routing of the step's micro-batches; absent in logs of earlier versions and for dense models. */
  readonly routing?: TrainedRouting;
  /** What made the spike guard skip this step; absent where it was applied. */
  readonly skipped?: "loss" | "gradient";
  /** Wall-clock milliseconds of the step. */
  readonly ms: number;
}

/** One held-out measurement in the log. */
export interface EvalRecord {
  readonly type: "eval";
  /** Steps so far. */
  readonly step: number;
  /** Tokens that they have seen. */
  readonly tokens: number;
  /** Mean next-token cross entropy in nats on held-out text. */
  readonly loss: number;
  /** Loss of each part of a data mix, by name; `loss` is their weighted mean. */
  readonly parts?: Readonly<Record<string, number>>;
  /** Fractions of all assignments per expert, by MoE layer. */
  readonly load: readonly (readonly number[])[];
  /** Routing of the held-out text; absent in logs of earlier versions and for dense models. */
  readonly routing?: RoutingRecord;
  /** Mean expert-to-dense cosine similarity, by MoE layer; empty without a parent. */
  readonly similarity: readonly number[];
  /** The same of each expert, by MoE layer; absent without a parent, and in logs of earlier versions. */
  readonly expertSimilarity?: readonly (readonly number[])[];
  /**
   * Pairs of experts with the share of the held-out tokens that were given to both, by MoE layer: the strongest pairs
   * first, at most 128 of a layer, which are all of up to 16 experts. Absent where every token is given to one expert,
   * and in logs of earlier versions.
   */
  readonly coactivation?: readonly (readonly ExpertPair[])[];
  /**
   * Layers whose routers have collapsed while a load-balancing loss over all layers together does not show it; in the
   * first measurement that finds any, and no other.
   */
  readonly unseenCollapse?: UnseenCollapse;
}

/** Two experts of a layer, the lower number first, and the share of tokens that were given to both. */
export type ExpertPair = readonly [a: number, b: number, share: number];

/**
 * What the load does not show at a glance, by MoE layer. In training it counts the choices before a capacity drops any.
 */
export interface RoutingRecord {
  /** Mean entropy of the router's softmax, in nats. */
  readonly entropy: readonly number[];
  /** Largest load over the mean load, less 1 (Wang et al. 2024, auxiliary-loss-free balancing, equation 4). */
  readonly maxViolation: readonly number[];
  /** Experts with less than a hundredth of an equal share. */
  readonly dead: readonly (readonly number[])[];
}

/** What the log says of the routing of one training step. */
export interface TrainedRouting extends RoutingRecord {
  /** Share of the choices that a capacity has dropped, by MoE layer; absent without one. */
  readonly dropped?: readonly number[];
  /**
   * Fractions of all choices per expert, by MoE layer, those that were dropped included; only at steps that are
   * measured on held-out text too.
   */
  readonly load?: readonly (readonly number[])[];
}

/** Says that the run resumed from its checkpoint at `step`: records of later steps above this line are void. */
interface ResumeRecord {
  readonly type: "resume";
  readonly step: number;
}

/** The end of a run. */
export interface DoneRecord {
  readonly type: "done";
  readonly step: number;
  /** Why it ended: the schedule was over, or the time budget. Absent in logs of earlier versions. */
  readonly reason?: "steps" | "time";
  readonly peakRssBytes: number;
  /** Where its last steps were computed; absent in logs of earlier versions and of other trainers. */
  readonly machine?: Machine;
}

/** Any line of the log. */
export type MetricRecord = StepRecord | EvalRecord | ResumeRecord | DoneRecord;

/** What a run has measured, each step once. */
export interface RunMetrics {
  readonly steps: readonly StepRecord[];
  readonly evals: readonly EvalRecord[];
  readonly done: DoneRecord | null;
}

/** Name of the log in a run folder. */
export const metricsFile = "metrics.jsonl";

/** In the folder of a run whose first weights were made of a model: what they have preserved of it. */
export const preservationFile = "preservation.json";

/** What takes the records of a log in their order. */
export interface RecordSink {
  step(record: StepRecord): void;
  eval(record: EvalRecord): void;
  /** Records of steps behind this one are void; the evaluation at the step itself was made before its checkpoint. */
  resume(step: number): void;
  done(record: DoneRecord): void;
}

/** Gives a line of a log to whoever takes its records. Returns whether it is a record. */
export function dispatchRecord(value: unknown, sink: RecordSink): boolean {
  const record = value as MetricRecord | null;
  switch (record?.type) {
    case "step":
      sink.step(record);
      return true;
    case "eval":
      sink.eval(record);
      return true;
    case "resume":
      sink.resume(record.step);
      return true;
    case "done":
      sink.done(record);
      return true;
    default:
      return false;
  }
}

/** Applies resumptions: what a run has measured, each step once. Throws inputError for lines that are no records. */
export function effectiveMetrics(records: readonly unknown[], where: string): RunMetrics {
  let steps: StepRecord[] = [];
  let evals: EvalRecord[] = [];
  let done: DoneRecord | null = null;
  const sink: RecordSink = {
    step: (record) => void steps.push(record),
    eval: (record) => {
      // A run that resumed from nothing measures its start again.
      if (evals.at(-1)?.step === record.step) evals.pop();
      evals.push(record);
    },
    resume: (last) => {
      steps = steps.filter(({ step }) => step <= last);
      evals = evals.filter(({ step }) => step <= last);
      done = null;
    },
    done: (record) => (done = record),
  };
  records.forEach((value, line) => {
    if (!dispatchRecord(value, sink))
      throw inputError("this line is no metrics record", { where: `${where}:${line + 1}` });
  });
  return { steps, evals, done };
}

/** Reads the log of a run folder. Throws inputError for lines that are no records. */
export async function readMetrics(runDir: string): Promise<RunMetrics> {
  const path = join(runDir, metricsFile);
  return effectiveMetrics(await readJsonl(path), path);
}

/** Bytes at the end of a log that are looked at for its last line, which is short where a run has ended. */
const TAIL = 4096;

/**
 * The record that a run has ended with; null where it has not ended, or has been begun again since. Reads the end of
 * the log alone.
 */
export async function endOf(runDir: string): Promise<DoneRecord | null> {
  const file = await openRanges(join(runDir, metricsFile));
  try {
    const length = Math.min(TAIL, file.size);
    const lines = Buffer.from(await file.read(file.size - length, length))
      .toString("utf8")
      .split("\n");
    // Behind the last line there is its newline; what follows that was cut off in writing.
    const last = lines.at(-2) ?? "";
    if (lines.at(-1) !== "" || !last.startsWith('{"type":"done"')) return null;
    return JSON.parse(last) as DoneRecord;
  } finally {
    await file.close();
  }
}

/** Median milliseconds of the steps, the first two left out where there are more; null where there are none. */
export function msPerStep(steps: readonly Pick<StepRecord, "ms">[]): number | null {
  const times = steps
    .slice(steps.length > 4 ? 2 : 0)
    .map(({ ms }) => ms)
    .sort((a, b) => a - b);
  return times[times.length >> 1] ?? null;
}

/** Tokens per second by `msPerStep`; 0 where there are no steps. */
export function tokensPerSecond(steps: readonly Pick<StepRecord, "ms">[], tokensPerStep: number): number {
  const median = msPerStep(steps);
  return median === null ? 0 : (tokensPerStep / median) * 1000;
}
