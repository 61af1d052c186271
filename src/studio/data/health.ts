/**
 * What goes wrong in a run of `upcycle train` or `upcycle study`, by the rules with which `upcycle watch` judges
 * trainings elsewhere: its records are given to the same monitor. What the log of such a run knows besides, dead
 * experts and steps that the spike guard has skipped, is judged here. Pure: the caller gives the time.
 */
import { RunMonitor, type Alert } from "../../cluster/logs/monitor.js";
import type { IterationEvent } from "../../files/formats/megatron-log.js";
import { isCollapsed, unseenWords } from "../../model/results/collapse.js";
import type { EvalRecord } from "../../train/records.js";
import type { JudgedStep } from "./log-summary.js";
import type { StudioAlert } from "./types.js";

/** What is known of a run before its log is read. */
export interface HealthOptions {
  readonly run: string;
  readonly steps: number;
  /** Experts of a layer; null for a dense model. */
  readonly experts: number | null;
  /** Seconds of silence that count as standing still. */
  readonly stallSeconds?: number | undefined;
}

/** A loss or norm that is no number stands as null in JSON. */
const numberOf = (value: number | null): number => value ?? NaN;

/** The event that `upcycle watch` would read of such a step. */
function iterationOf({ step, loss, ms, gradNorm }: JudgedStep, steps: number): IterationEvent {
  return {
    type: "iteration",
    at: null,
    iteration: step,
    of: steps,
    loss: numberOf(loss),
    // The scale of our balance loss depends on the form that was chosen; loads say more, and are judged below.
    losses: { "lm loss": numberOf(loss) },
    milliseconds: ms,
    tflopsPerGpu: null,
    learningRate: null,
    globalBatch: null,
    consumedSamples: null,
    gradNorm: gradNorm === undefined ? null : numberOf(gradNorm),
    lossScale: null,
    skipped: 0,
    nan: 0,
    fields: {},
  };
}

/**
 * A drop in speed is told where half of the last steps were slow, so many of them and for as many milliseconds: one
 * slow step is the machine's, and so are many that take a few milliseconds.
 */
const [slowSteps, slowMs] = [5, 1000];
/** Slow steps that are kept: after as many the monitor takes them for usual. */
const mostSlow = 64;

/** A run that is being judged. */
export class RunHealth {
  readonly #options: HealthOptions;
  readonly #monitor: RunMonitor;
  /** By kind: equal alerts are one. */
  readonly #alerts = new Map<string, StudioAlert>();
  /** Steps that were slow, the last ones. */
  readonly #slow: number[] = [];
  #ended = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#monitor = new RunMonitor({ stallSeconds: options.stallSeconds });
  }

  /** What has been found, errors first. */
  get alerts(): readonly StudioAlert[] {
    return [...this.#alerts.values()].sort((a, b) => Number(a.level === "warning") - Number(b.level === "warning"));
  }

  /** Takes a step that was read at `now`, in milliseconds. Returns what is new. */
  step(record: JudgedStep, now: number): StudioAlert[] {
    const found = this.#monitor
      .take(iterationOf(record, this.#options.steps), now)
      .filter((alert) => alert.kind !== "slow" || this.#isDrop(record))
      .map((alert) => this.#add(alert));
    found.push(...this.#collapses(record));
    if (record.skipped !== undefined)
      found.push(
        this.#note(
          "warning",
          "skipped",
          record.step,
          `the spike guard skipped the step: its ${record.skipped} was too large`,
        ),
      );
    return found;
  }

  /** Takes a measurement on held-out text. */
  eval(record: EvalRecord): StudioAlert[] {
    const found: StudioAlert[] = [];
    if (!Number.isFinite(numberOf(record.loss)))
      found.push(this.#note("error", "nan", record.step, "the held-out loss is not a number"));
    found.push(...this.#collapses(record));
    // The log says it once.
    if (record.unseenCollapse !== undefined)
      found.push(this.#note("warning", "unseen-collapse", record.step, unseenWords(record.unseenCollapse)));
    return found;
  }

  #collapses({ routing, step }: JudgedStep | EvalRecord): StudioAlert[] {
    const { experts } = this.#options;
    if (routing === undefined || experts === null) return [];
    return routing.dead.flatMap((dead, layer) => {
      if (!isCollapsed(dead.length, experts)) return [];
      const words = `MoE layer ${layer}: ${dead.length} of ${experts} experts get hardly any token`;
      return [this.#note("error", "collapse", step, words)];
    });
  }

  /** Whether a slow step is one of many. */
  #isDrop({ step, ms }: JudgedStep): boolean {
    const needed = Math.max(slowSteps, Math.ceil(slowMs / ms));
    this.#slow.push(step);
    if (this.#slow.length > mostSlow) this.#slow.shift();
    const first = this.#slow.at(-needed);
    return first !== undefined && step - first < 2 * needed;
  }

  /** The run goes on from a checkpoint: what came behind it is void. */
  resume(step: number, now: number): StudioAlert[] {
    this.#monitor.restarted(now);
    this.#ended = false;
    return step === 0 ? [] : [this.#note("warning", "restart", step, `the run went on from step ${step}`)];
  }

  /** The run has ended by itself. */
  done(): void {
    this.#ended = true;
  }

  /** Called now and then for a run that is under way. */
  tick(now: number): StudioAlert[] {
    return this.#ended ? [] : this.#monitor.tick(now).map((alert) => this.#add(alert));
  }

  #add({ level, kind, iteration, message }: Alert): StudioAlert {
    return this.#note(level, kind, iteration, message);
  }

  #note(level: StudioAlert["level"], kind: string, step: number | null, message: string): StudioAlert {
    const count = (this.#alerts.get(kind)?.count ?? 0) + 1;
    const alert = { level, kind, run: this.#options.run, step, message, count };
    this.#alerts.set(kind, alert);
    return alert;
  }
}
