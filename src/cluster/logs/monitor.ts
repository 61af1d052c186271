/**
 * Events of a run's logs as its state and alerts: losses, balance, speed, what went wrong. Several files (nodes,
 * restarts) feed one monitor; a step that is printed twice counts once. Pure: the caller gives the time.
 */
import type { IterationEvent, LogEvent, ProblemKind } from "../../files/formats/megatron-log.js";
import { RollingValues } from "./rolling.js";

/** What is told of a run. */
export type Alert = {
  readonly type: "alert";
  readonly level: "error" | "warning";
  readonly kind: ProblemKind | "nan" | "divergence" | "collapse" | "slow" | "stall" | "skipped" | "restart";
  readonly iteration: number | null;
  readonly message: string;
};

/** A run as far as its logs say. */
export interface RunState {
  readonly iteration: number;
  readonly of: number | null;
  readonly loss: number | null;
  readonly losses: Readonly<Record<string, number>>;
  /** Last validation losses by their set. */
  readonly validation: Readonly<
    Record<string, { readonly iteration: number | null; readonly losses: Readonly<Record<string, number>> }>
  >;
  readonly gradNorm: number | null;
  readonly learningRate: number | null;
  readonly milliseconds: number | null;
  readonly tflopsPerGpu: number | null;
  /** Model FLOPs over peak, where the peak is known. */
  readonly mfu: number | null;
  readonly tokensPerSecond: number | null;
  readonly secondsLeft: number | null;
  readonly skipped: number;
  readonly nanSteps: number;
  readonly restarts: number;
  readonly savedIteration: number | null;
  readonly worldSize: number | null;
  readonly ended: string | null;
}

/** What counts as wrong. */
export interface MonitorOptions {
  /** FLOP/s of one GPU, for the share of peak. */
  readonly peak?: number | undefined;
  /** Seconds without a step after which a run stands still. */
  readonly stallSeconds?: number | undefined;
  /** Experts, where the arguments in the log do not say. */
  readonly experts?: number | undefined;
}

const defaultStall = 600;
/** Steps that the next one is compared with. */
const window = 50;
const fewest = 8;

/** A run that is being watched. */
export class RunMonitor {
  readonly #options: MonitorOptions;
  readonly #losses = new RollingValues(window);
  readonly #times = new RollingValues(window);
  readonly #arguments = new Map<string, string>();
  readonly #told = new Set<string>();
  /** Written in place at every step: copies of it cost more than all that is judged. */
  readonly #state: { -readonly [Key in keyof RunState]: RunState[Key] } = {
    iteration: 0,
    of: null,
    loss: null,
    losses: {},
    validation: {},
    gradNorm: null,
    learningRate: null,
    milliseconds: null,
    tflopsPerGpu: null,
    mfu: null,
    tokensPerSecond: null,
    secondsLeft: null,
    skipped: 0,
    nanSteps: 0,
    restarts: 0,
    savedIteration: null,
    worldSize: null,
    ended: null,
  };
  #lastStep: number | null = null;
  #stalled = false;

  constructor(options: MonitorOptions = {}) {
    this.#options = options;
  }

  /** The run as it is now. */
  get state(): RunState {
    return { ...this.#state };
  }

  /** Takes an event that was read at `now`, in milliseconds; gives what it is to be alerted of. */
  take(event: LogEvent, now: number): Alert[] {
    switch (event.type) {
      case "iteration":
        return this.#step(event, now);
      case "validation":
        this.#update({
          validation: { ...this.#state.validation, [event.set]: { iteration: event.iteration, losses: event.losses } },
        });
        return Object.values(event.losses).some((loss) => Number.isNaN(loss))
          ? [this.#alert("error", "nan", `the ${event.set} loss is not a number`)]
          : [];
      case "saved":
        this.#update({ savedIteration: event.iteration });
        return [];
      case "started":
        return this.#start(event.worldSize);
      case "argument":
        this.#arguments.set(event.name, event.value);
        return [];
      case "ended":
        this.#update({ ended: event.why });
        return [];
      case "problem":
        return this.#problem(event.kind, event.message);
      case "loaded":
      case "memory":
        return [];
    }
  }

  /** The run was started again: silence counts from now, and its losses are judged anew. */
  restarted(now: number): void {
    [this.#lastStep, this.#stalled] = [now, false];
    this.#beginWindow();
    this.#told.clear();
    this.#update({ ended: null });
  }

  /** Called now and then: a run without lines says nothing by itself. */
  tick(now: number): Alert[] {
    const { stallSeconds = defaultStall } = this.#options;
    const usual = (this.#state.milliseconds ?? 0) / 1000;
    const limit = Math.max(stallSeconds, 10 * usual);
    if (this.#lastStep === null || this.#state.ended !== null || this.#stalled) return [];
    const silent = (now - this.#lastStep) / 1000;
    if (silent < limit) return [];
    this.#stalled = true;
    return [this.#alert("error", "stall", `no step for ${Math.round(silent)} s, usually ${usual.toFixed(1)} s`)];
  }

  #update(change: Partial<RunState>): void {
    Object.assign(this.#state, change);
  }

  #alert(level: Alert["level"], kind: Alert["kind"], message: string): Alert {
    return { type: "alert", level, kind, iteration: this.#state.iteration, message };
  }

  #start(worldSize: number): Alert[] {
    const isAgain = this.#state.worldSize !== null && this.#state.iteration > 0;
    this.#beginWindow();
    // What goes wrong again is told again.
    if (isAgain) this.#told.clear();
    this.#update({ worldSize, ended: null, restarts: this.#state.restarts + (isAgain ? 1 : 0) });
    return isAgain
      ? [this.#alert("warning", "restart", `the run started again behind step ${this.#state.iteration}`)]
      : [];
  }

  #problem(kind: ProblemKind, message: string): Alert[] {
    const words: Readonly<Record<ProblemKind, string>> = {
      load: "the checkpoint was not loaded whole: what is missing has random values",
      "random-weights": "no checkpoint was found: the run starts from random weights",
      memory: "a GPU has too little memory",
      node: "a node or its network failed",
      error: "the program failed",
    };
    // Each rank prints the same.
    const once = `${kind} ${message.replace(/\d+/g, "#")}`;
    if (this.#told.has(once)) return [];
    this.#told.add(once);
    return [this.#alert("error", kind, `${words[kind]} (${message})`)];
  }

  #step(event: IterationEvent, now: number): Alert[] {
    const { iteration, loss } = this.#state;
    const before = { iteration, loss };
    // The same step of another node's file.
    if (event.iteration === before.iteration && Object.is(event.loss, before.loss)) return [];
    this.#lastStep = now;
    this.#stalled = false;
    const isBack = event.iteration < before.iteration;
    if (isBack) this.#beginWindow();
    this.#measure(event);
    const alerts = isBack
      ? [
          this.#alert(
            "warning",
            "restart",
            `steps count from ${event.iteration} again, the log had come to ${before.iteration}`,
          ),
        ]
      : [];
    alerts.push(...this.#judged(event));
    if (Number.isFinite(event.loss)) this.#losses.push(event.loss);
    // The first logged step includes the start.
    if (Number.isFinite(event.milliseconds) && event.iteration > 1) this.#times.push(event.milliseconds!);
    return alerts;
  }

  #measure(event: IterationEvent): void {
    const { milliseconds, tflopsPerGpu, globalBatch } = event;
    const sequence = Number(this.#arguments.get("seq_length") ?? NaN);
    const tokens = globalBatch === null || milliseconds === null ? NaN : (globalBatch * sequence * 1000) / milliseconds;
    const { peak } = this.#options;
    const state = this.#state;
    state.iteration = event.iteration;
    state.of = event.of;
    state.loss = event.loss;
    state.losses = event.losses;
    state.gradNorm = event.gradNorm;
    state.learningRate = event.learningRate;
    state.milliseconds = milliseconds;
    state.tflopsPerGpu = tflopsPerGpu;
    state.mfu = tflopsPerGpu === null || peak === undefined ? null : (tflopsPerGpu * 1e12) / peak;
    state.tokensPerSecond = Number.isFinite(tokens) ? tokens : null;
    state.secondsLeft = milliseconds === null ? null : ((event.of - event.iteration) * milliseconds) / 1000;
    state.skipped += event.skipped;
    state.nanSteps += event.nan;
    state.ended = null;
  }

  #judged(event: IterationEvent): Alert[] {
    const alerts: Alert[] = [];
    const add = (...what: Parameters<RunMonitor["alertOf"]>): void => void alerts.push(this.alertOf(...what));
    const { loss, gradNorm, milliseconds, skipped } = event;
    if (Number.isNaN(loss) || event.nan > 0) add("error", "nan", "the loss is not a number");
    else if (!Number.isFinite(loss)) add("error", "nan", "the loss is infinite");
    if (gradNorm !== null && !Number.isFinite(gradNorm)) add("error", "nan", `the gradient norm is ${gradNorm}`);
    // Of the steps since the last line alone.
    if (skipped > 0) add("warning", "skipped", `${skipped} steps were skipped`);
    const { median } = this.#losses;
    // The spread is asked for only where it decides.
    if (this.#losses.length >= fewest && loss > median + 0.5 && loss > median + 6 * this.#losses.spread)
      add("error", "divergence", `the loss is ${loss.toFixed(4)}, it was about ${median.toFixed(4)}`);
    const usual = this.#times.median;
    if (this.#times.length >= fewest && milliseconds !== null && milliseconds > 1.5 * usual)
      add("warning", "slow", `a step took ${milliseconds.toFixed(0)} ms, usually ${usual.toFixed(0)} ms`);
    const balance = event.losses["load_balancing_loss"];
    if (balance !== undefined && balance > this.#collapsed())
      add(
        "error",
        "collapse",
        `the load-balancing loss is ${balance.toFixed(3)}; 1 is balanced, ${this.#collapsed().toFixed(1)} and more ` +
          "means that few experts are used",
      );
    return alerts;
  }

  /** What comes is compared with what comes after now. */
  #beginWindow(): void {
    this.#losses.clear();
    this.#times.clear();
  }

  /** Where half of the experts that a token could use take everything. */
  #collapsed(): number {
    const experts = this.#options.experts ?? Number(this.#arguments.get("num_experts") ?? NaN);
    const topK = Number(this.#arguments.get("moe_router_topk") ?? 2);
    return Number.isFinite(experts) && experts > topK ? Math.max(1.5, experts / topK / 2) : 2;
  }

  /** An alert at the current step. */
  alertOf(level: Alert["level"], kind: Alert["kind"], message: string): Alert {
    return this.#alert(level, kind, message);
  }
}
