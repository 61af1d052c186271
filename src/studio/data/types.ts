/** What the studio's server says and its page shows, as plain data: every answer is one of these as JSON. */
import type { Verdict } from "../../report/study/judgement.js";
import type { RecordedCommand } from "./command-types.js";
import type { ConversionRow, ModelRow, PreservationRow } from "./model-types.js";

/** How far a run is. `unread`: its log was not read yet. `unreadable`: its record is damaged. */
export type RunState = "running" | "finished" | "stopped" | "unread" | "unreadable";

/** A run in the list. */
export interface RunRow {
  /** Its folder below the one that is shown, with `/` between the parts: the name by which it is asked for. */
  readonly name: string;
  readonly state: RunState;
  readonly kind: "dense" | "moe";
  /** Folder of the study that it belongs to; null for a run of its own. */
  readonly study: string | null;
  /** Arm of the study, `parent` for a parent; for a run of its own its name. */
  readonly arm: string;
  readonly seed: number;
  readonly params: number;
  readonly activeParams: number;
  readonly step: number;
  readonly steps: number;
  readonly tokens: number;
  /** Last and lowest held-out loss, and the last training loss, in nats per token. */
  readonly loss: number | null;
  readonly bestLoss: number | null;
  readonly trainLoss: number | null;
  readonly tokensPerSecond: number | null;
  /** Seconds that are left; null unless it is running. */
  readonly secondsLeft: number | null;
  /** Experts that are dead at the last measurement, over all MoE layers, and how many there are; null when dense. */
  readonly dead: number | null;
  readonly experts: number | null;
  /** Bytes of its checkpoints. */
  readonly bytes: number;
  /** When its log was last written, in milliseconds since 1970. */
  readonly changed: number;
  readonly alerts: number;
  /** Grows with every line that is read; a page that has seen this number is up to date. */
  readonly revision: number;
  /** Why it cannot be read; null if it can. */
  readonly problem: string | null;
}

/** The list of runs. */
export interface RunList {
  readonly runs: readonly RunRow[];
  /** Runs whose logs were not read to their ends yet. */
  readonly unread: number;
}

/** Something that went wrong, or may soon. Equal alerts of a run are one, with the number of times. */
export interface StudioAlert {
  readonly level: "error" | "warning";
  /** Kinds are those of `upcycle watch`, and `disk`. */
  readonly kind: string;
  /** Run that it is about; null for the machine. */
  readonly run: string | null;
  readonly step: number | null;
  readonly message: string;
  readonly count: number;
}

/** One line of a chart: its values by x, both of the same length. */
export interface CurvePoints {
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
}

/** A curve of one run. */
export interface RunCurve extends CurvePoints {
  readonly run: string;
  /** Points that there are; more than there are here where they were decimated. */
  readonly total: number;
  /** Points before the first of these, which whoever asks has said to have. */
  readonly first: number;
  /** Another number where points that were given before are no longer those of the run. */
  readonly generation: number;
  readonly revision: number;
}

/** What the curves of one measure are. */
export interface CurveAnswer {
  readonly metric: string;
  readonly axis: CurveAxis;
  readonly curves: readonly RunCurve[];
}

/** What curves are drawn over. `hours`: wall-clock time of the steps. */
export const curveAxes = ["step", "tokens", "hours"] as const;
/** An axis of curves. */
export type CurveAxis = (typeof curveAxes)[number];

/** Measures of a run's log: those of its steps, then those of its measurements on held-out text. */
export const stepMetrics = [
  "train/loss",
  "train/tokens_per_second",
  "train/learning_rate",
  "train/grad_norm",
  "train/balance_loss",
  "train/z_loss",
  "train/router_entropy",
  "train/max_violation",
  "train/dead_experts",
  "train/dropped",
] as const;
/** Measures on held-out text. */
export const evalMetrics = [
  "eval/loss",
  "eval/router_entropy",
  "eval/max_violation",
  "eval/dead_experts",
  "eval/similarity",
] as const;
/** A measure that curves are drawn of. Those of layers are their mean, `max_violation` their largest. */
export type Metric = (typeof stepMetrics)[number] | (typeof evalMetrics)[number];

/** A checkpoint in a run's folder. */
export interface CheckpointRow {
  readonly name: string;
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly written: number;
}

/** One run with all that is not a curve. */
export interface RunDetail {
  readonly row: RunRow;
  /** Measures that its log holds. */
  readonly metrics: readonly Metric[];
  /** Settings by their dotted names, in the order of the record. */
  readonly settings: readonly (readonly [key: string, value: string])[];
  readonly checkpoints: readonly CheckpointRow[];
  readonly messages: readonly StudioAlert[];
  /** Command that made the run, and goes on with it where it was stopped; null where it was not written down. */
  readonly command: RecordedCommand | null;
  /** Folder as a path, for commands. */
  readonly path: string;
  /** Bytes of memory: the largest of the whole run once it has ended, the present one while it runs on this machine. */
  readonly memory: { readonly bytes: number; readonly when: "peak" | "now" } | null;
  /** How much of its parent's function the model kept before the first step. */
  readonly preservation: PreservationRow | null;
  /** Held-out losses of the parts of a data mix at the last measurement. */
  readonly parts: readonly (readonly [name: string, loss: number])[];
}

/** Runs that differ in their seed alone. */
export interface ArmRow {
  readonly name: string;
  readonly study: string | null;
  readonly kind: "dense" | "moe";
  /** Parameters, and those that a token uses. */
  readonly params: number;
  readonly activeParams: number;
  readonly runs: readonly { readonly run: string; readonly seed: number; readonly loss: number | null }[];
  /** Mean of the runs' losses; null where one has none. */
  readonly mean: number | null;
  readonly low: number | null;
  readonly high: number | null;
}

/** Two arms compared seed by seed: the first less the second. */
export interface PairRow {
  readonly first: string;
  readonly second: string;
  /** After which their losses are compared, the most that all runs of both have reached. */
  readonly tokens: number;
  readonly n: number;
  readonly difference: number;
  /** NaN is null in all of these. */
  readonly low: number | null;
  readonly high: number | null;
  readonly p: number | null;
  /** By Holm over all pairs of the comparison. */
  readonly adjusted: number | null;
  /** How many tests that is. */
  readonly tests: number;
  readonly verdict: Verdict;
}

/** Runs side by side. */
export interface CompareAnswer {
  readonly runs: readonly RunRow[];
  /** Settings in which they differ, with the value of each run. */
  readonly differences: readonly { readonly key: string; readonly values: readonly string[] }[];
  readonly arms: readonly ArmRow[];
  readonly pairs: readonly PairRow[];
  /** Tokens after which the arms' losses are given: the most that all have reached; null where there are none. */
  readonly tokens: number | null;
  /** What it comes to, as a sentence. */
  readonly words: string;
}

/** A page that a command of this program has written. */
export interface ReportRow {
  readonly name: string;
  readonly title: string;
  readonly kind: "study" | "plan" | "law" | "evaluation" | "experts" | "other";
  readonly bytes: number;
  readonly changed: number;
}

/** An evaluation of a model on tasks. */
export interface EvaluationRow {
  /** Its results file. */
  readonly name: string;
  readonly model: string;
  /** Milliseconds since 1970. */
  readonly date: number;
  readonly tasks: readonly string[];
}

/** A report as the studio shows it: sections as markup, and what the parts that need a script draw. */
export interface ReportAnswer {
  /** Name of its file, or of the study's folder. */
  readonly name: string;
  readonly kind: "study" | "law" | "plan" | "evaluation" | "experts";
  readonly title: string;
  readonly sections: readonly string[];
  readonly data: unknown;
}

/** A report whose file holds no data, such as one of an earlier version: it is shown in a frame, as it is. */
export interface FramedReport {
  readonly name: string;
  readonly sections: null;
}

/** A training that `upcycle launch` has started elsewhere. */
export interface JobRow {
  readonly name: string;
  readonly where: "local" | "slurm" | "kubernetes" | "unknown";
  readonly ids: readonly string[];
  readonly iteration: number;
  readonly of: number | null;
  readonly loss: number | null;
  readonly tokensPerSecond: number | null;
  readonly secondsLeft: number | null;
  readonly restarts: number;
  readonly ended: string | null;
  readonly alerts: readonly StudioAlert[];
}

/** Which arm of a study leads. */
export interface StudyRow {
  readonly name: string;
  readonly runs: number;
  readonly finished: number;
  readonly running: number;
  /** Arms, those ahead of the most others first. */
  readonly arms: readonly ArmRow[];
  /** Which arm leads, by how much, and whether that means anything. */
  readonly words: string;
  readonly tokens: number | null;
  readonly report: string | null;
  readonly command: RecordedCommand | null;
}

/** The start page. */
export interface Overview {
  readonly folder: string;
  readonly version: string;
  readonly actions: boolean;
  readonly runs: number;
  readonly running: number;
  /** Runs whose logs are still being read for the first time. */
  readonly unread: number;
  readonly studies: readonly StudyRow[];
  /** Runs with dead experts at their last measurement, those of most experts first. */
  readonly dead: readonly {
    readonly run: string;
    readonly dead: number;
    readonly experts: number;
    readonly where: readonly { readonly layer: number; readonly experts: readonly number[] }[];
  }[];
  /** MoE runs that have no dead expert. */
  readonly alive: number;
  readonly models: readonly ModelRow[];
  /** Conversions at work, and unfinished ones. */
  readonly conversions: readonly ConversionRow[];
  readonly alerts: readonly StudioAlert[];
  readonly reports: readonly ReportRow[];
  readonly expertFiles: readonly { readonly name: string; readonly model: string }[];
  readonly jobs: number;
  readonly disk: { readonly free: number; readonly total: number } | null;
}
