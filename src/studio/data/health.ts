/**
 * What goes wrong in a run of `upcycle train` or `upcycle study`, by the rules with which `upcycle watch` judges
 * trainings elsewhere: its records are given to the same monitor. What the log of such a run knows besides, dead
 * experts and steps that the spike guard has skipped, is judged here. Pure: the caller gives the time.
 */
import { RunMonitor, type Alert } from "../../cluster/logs/monitor.js";
import type { IterationEvent } from "../../files/formats/megatron-log.js";
import type { EvalRecord, StepRecord } from "../../train/records.js";
import type { StudioAlert } from "./types.js";

/** What is known of a run before its log is read. */
export interface HealthOptions {
  readonly run: string;
  readonly steps: number;
  /** Experts of a layer and those that a token gets; null for a dense model. */
  readonly experts: { readonly count: number; readonly topK: number } | null;
  /** Seconds of silence that count as standing still. */
  readonly stallSeconds?: number | undefined;
}

/** A loss or norm that is no number stands as null in JSON. */
const numberOf = (value: number | null): number => value ?? NaN;

/** The event that `upcycle watch` would read of such a step. */
export function iterationOf(record: StepRecord, steps: number): IterationEvent {
  const { step, loss, balanceLoss, ms, learningRate, gradNorm } = record;
  return {
    type: "iteration",
    at: null,
    iteration: step,
    of: steps,
    loss: numberOf(loss),
    losses: {
      "lm loss": numberOf(loss),
      ...(balanceLoss === null ? {} : { load_balancing_loss: balanceLoss }),
    },
    milliseconds: ms,
    tflopsPerGpu: null,
    learningRate,
    globalBatch: null,
    consumedSamples: null,
    gradNorm: numberOf(gradNorm),
    lossScale: null,
    skipped: 0,
    nan: 0,
    fields: {},
  };
}

/** More than this share of a layer's experts without tokens is a collapse of its router. */
const collapsedShare = 0.5;

/** A run that is being judged. */
export class RunHealth {
  readonly #options: HealthOptions;
  readonly #monitor: RunMonitor;
  /** By kind: equal alerts are one. */
  readonly #alerts = new Map<string, StudioAlert>();
  #ended = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    const { experts, stallSeconds } = options;
    this.#monitor = new RunMonitor({ experts: experts?.count, stallSeconds });
    if (experts !== null)
      this.#monitor.take({ type: "argument", name: "moe_router_topk", value: String(experts.topK) }, 0);
  }

  /** What has been found, errors first. */
  get alerts(): readonly StudioAlert[] {
    return [...this.#alerts.values()].sort((a, b) => Number(a.level === "warning") - Number(b.level === "warning"));
  }

  /** Takes a step that was read at `now`, in milliseconds. Returns what is new. */
  step(record: StepRecord, now: number): StudioAlert[] {
    const found = this.#monitor.take(iterationOf(record, this.#options.steps), now).map((alert) => this.#add(alert));
    if (record.skipped !== undefined)
      found.push(
        this.#note("warning", "skipped", record.step, `the spike guard skipped the step: its ${record.skipped} was too large`),
      );
    return found;
  }

  /** Takes a measurement on held-out text. */
  eval(record: EvalRecord): StudioAlert[] {
    const found: StudioAlert[] = [];
    if (!Number.isFinite(numberOf(record.loss)))
      found.push(this.#note("error", "nan", record.step, "the held-out loss is not a number"));
    record.routing?.dead.forEach((dead, layer) => {
      const experts = record.load[layer]?.length ?? 0;
      if (dead.length <= collapsedShare * experts) return;
      const words = `MoE layer ${layer}: ${dead.length} of ${experts} experts get hardly any token`;
      found.push(this.#note("error", "collapse", record.step, words));
    });
    return found;
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
