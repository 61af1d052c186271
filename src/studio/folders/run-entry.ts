/** One run of the index: its record, its log as far as it was read, and the row of the list that both make. */
import { join } from "node:path";
import type { UpcycleError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { checkpointsOf, runIdentity, stateOf } from "../../train/run-list.js";
import {
  dispatchRecord,
  metricsFile,
  type DoneRecord,
  type EvalRecord,
  type RecordSink,
  type StepRecord,
} from "../../train/records.js";
import { RunHealth } from "../data/health.js";
import type { RunRow, RunState, StudioAlert } from "../data/types.js";
import { LogTail } from "./log-tail.js";

/** Steps whose times make the speed, and steps that are judged when a log is read for the first time. */
const speedSteps = 64;
const judgedSteps = 200;

const mostWaiting = 4 * judgedSteps;

interface LastEval {
  readonly step: number;
  readonly loss: number | null;
  readonly dead: readonly (readonly number[])[] | null;
  readonly experts: number;
}

type Judged = StepRecord | EvalRecord | { readonly type: "resume"; readonly step: number };

/** Whether a record says by itself that something went wrong. */
const isNotable = (record: Judged): boolean =>
  record.type === "resume" ||
  !Number.isFinite(record.loss ?? NaN) ||
  (record.type === "step" && (record.skipped !== undefined || !Number.isFinite(record.gradNorm ?? NaN)));

/** Numbers of a log that the list shows, read on with it. */
class LogSummary implements RecordSink {
  lastStep: Pick<StepRecord, "step" | "tokens" | "loss"> | null = null;
  ended: DoneRecord | null = null;
  /** What the list shows of the last measurement, and all losses with their steps, for the lowest. */
  last: LastEval | null = null;
  /** The run went on since its record was read, which may be another one by now. */
  hasResumed = false;
  readonly losses: { readonly step: number; readonly tokens: number; readonly loss: number }[] = [];
  readonly times: number[] = [];
  /** Steps that are not judged yet. */
  waiting: Judged[] = [];

  step(record: StepRecord): void {
    this.lastStep = { step: record.step, tokens: record.tokens, loss: record.loss };
    this.times.push(record.ms);
    if (this.times.length > speedSteps) this.times.shift();
    this.#wait(record);
  }

  eval(record: EvalRecord): void {
    if (this.losses.at(-1)?.step === record.step) this.losses.pop();
    this.losses.push({ step: record.step, tokens: record.tokens, loss: record.loss ?? NaN });
    const experts = record.load.reduce((sum, { length }) => sum + length, 0);
    this.last = { step: record.step, loss: record.loss ?? null, dead: record.routing?.dead ?? null, experts };
    this.#wait(record);
  }

  resume(step: number): void {
    while ((this.losses.at(-1)?.step ?? -1) > step) this.losses.pop();
    if ((this.last?.step ?? -1) > step) this.last = null;
    if ((this.lastStep?.step ?? -1) > step) this.lastStep = null;
    this.ended = null;
    this.hasResumed = true;
    this.#wait({ type: "resume", step });
  }

  done(record: DoneRecord): void {
    this.ended = record;
  }

  /** Of a long log that is read for the first time the last steps are judged, and those that are notable. */
  #wait(record: Judged): void {
    this.waiting.push(record);
    if (this.waiting.length <= mostWaiting) return;
    const early = this.waiting.slice(0, -judgedSteps).filter(isNotable).slice(-judgedSteps);
    this.waiting = [...early, ...this.waiting.slice(-judgedSteps)];
  }
}

/** Median of the last steps' milliseconds; the first two include the start. */
function usualMs(times: readonly number[]): number | null {
  const sorted = times.slice(times.length > 4 ? 2 : 0).sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? null;
}

/** Experts of the model's first MoE layer; null for a dense model. */
const expertsOf = (spec: DecoderSpec): number | null =>
  spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn.experts] : []))[0] ?? null;

/** Study and arm of a run, by the folders in which `upcycle study` keeps runs. */
export function placeInStudy(name: string): { readonly study: string | null; readonly arm: string } {
  const parts = name.split("/");
  const arms = parts.lastIndexOf("arms");
  if (arms >= 0 && parts[arms + 1] !== undefined && parts[arms + 2] !== undefined) {
    // An arm on one of several parents has the parent in front of its seed.
    const parent = /^(.+)-seed-\d+/.exec(parts[arms + 2]!)?.[1];
    return {
      study: parts.slice(0, arms).join("/"),
      arm: `${parts[arms + 1]}${parent === undefined ? "" : `@${parent}`}`,
    };
  }
  const parents = parts.lastIndexOf("parents");
  if (parents >= 0 && parts[parents + 1] !== undefined)
    return {
      study: parts.slice(0, parents).join("/"),
      arm: `parent ${parts[parents + 1]!.replace(/-[0-9a-f]{8,}$/, "")}`,
    };
  return { study: null, arm: name };
}

/** What is kept of a run's record; its settings are read again when they are asked for, since they are large. */
interface KeptIdentity extends Pick<RunRow, "kind" | "params" | "activeParams" | "steps" | "seed"> {
  readonly tokensPerStep: number;
  readonly experts: number | null;
}

/** What a reading has found to be new. */
interface Refreshed {
  readonly changed: boolean;
  readonly alerts: readonly StudioAlert[];
}

/** A run of the index. */
export class RunEntry {
  row: RunRow;
  /** Whether its log was read to its end once. */
  isRead = false;
  readonly #tail: LogTail;
  #summary = new LogSummary();
  #identity: KeptIdentity | null = null;
  #health: RunHealth | null = null;
  /** When its log was last written; 0 before it was read. */
  #written = 0;
  #problem: string | null = null;
  #bytes = 0;
  #bytesAt = -1;
  /** One reading at a time; whoever asks meanwhile gets its result. */
  #refreshing: Promise<Refreshed> | null = null;

  constructor(
    readonly name: string,
    readonly path: string,
    study: string | null,
  ) {
    this.#tail = new LogTail(join(path, metricsFile));
    const place = placeInStudy(name);
    this.row = {
      name,
      state: "unread",
      kind: "dense",
      study: place.study ?? study,
      arm: place.study === null && study !== null && name === `${study}/parent` ? "parent parent" : place.arm,
      seed: 0,
      params: 0,
      activeParams: 0,
      step: 0,
      steps: 0,
      tokens: 0,
      loss: null,
      bestLoss: null,
      trainLoss: null,
      tokensPerSecond: null,
      secondsLeft: null,
      dead: null,
      experts: null,
      bytes: 0,
      changed: 0,
      alerts: 0,
      revision: 0,
      problem: null,
    };
  }

  /** Held-out losses by tokens. */
  get curve(): { readonly tokens: readonly number[]; readonly loss: readonly number[] } {
    const { losses } = this.#summary;
    return { tokens: losses.map(({ tokens }) => tokens), loss: losses.map(({ loss }) => loss) };
  }

  /** Dead experts of each MoE layer at the last measurement. */
  get dead(): readonly (readonly number[])[] {
    return this.#summary.last?.dead ?? [];
  }

  /** What goes wrong in it, errors first. */
  get alerts(): readonly StudioAlert[] {
    return this.#health?.alerts ?? [];
  }

  /** What its log says of its end; null before. */
  get ended(): DoneRecord | null {
    return this.#summary.ended;
  }

  get tokensPerStep(): number {
    return this.#identity?.tokensPerStep ?? 0;
  }

  /** Reads on. Returns alerts that are new and whether the row has changed. */
  refresh(now: number, breathe?: () => Promise<void>): Promise<Refreshed> {
    this.#refreshing ??= this.#refreshNow(now, breathe).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refreshNow(now: number, breathe?: () => Promise<void>): Promise<Refreshed> {
    const before = JSON.stringify(this.row);
    if (this.#identity === null) await this.#identify();
    const reading = await this.#tail.read((value) => this.#take(value), breathe);
    if (this.isRead && this.#summary.hasResumed) await this.#identify();
    this.#summary.hasResumed = false;
    if (reading !== null) this.#written = reading.written;
    this.isRead = true;
    const alerts = this.#judge(now);
    if (this.#bytesAt !== this.row.revision || this.row.state === "running") await this.#weigh();
    this.row = await this.#rowNow(reading?.changed === true);
    return { changed: JSON.stringify(this.row) !== before, alerts };
  }

  async #identify(): Promise<void> {
    this.#problem = null;
    try {
      const { kind, params, activeParams, steps, spec, config, tokensPerStep } = await runIdentity(this.path);
      this.#identity = {
        kind,
        params,
        activeParams,
        steps,
        seed: Number(config["seed"] ?? 0),
        experts: expertsOf(spec),
        tokensPerStep,
      };
    } catch (cause) {
      this.#problem = (cause as UpcycleError).message;
    }
    if (this.#identity !== null && this.#health === null) this.#beginHealth(this.#identity);
  }

  #beginHealth({ steps, experts }: KeptIdentity): void {
    this.#health = new RunHealth({ run: this.name, steps, experts });
  }

  #take(value: unknown): void {
    if (value === undefined) {
      this.#summary = new LogSummary();
      if (this.#identity !== null) this.#beginHealth(this.#identity);
      return;
    }
    if (!dispatchRecord(value, this.#summary)) this.#tail.badLines++;
  }

  /** Steps are judged at the time at which the log was written, so that silence counts from there. */
  #judge(now: number): StudioAlert[] {
    const health = this.#health;
    const current = this.#summary;
    const waiting = current.waiting.splice(0);
    if (health === null) return [];
    const found = waiting.flatMap((record) => {
      if (record.type === "step") return health.step(record, this.#written);
      return record.type === "eval" ? health.eval(record) : health.resume(record.step, this.#written);
    });
    if (current.ended !== null) health.done();
    return this.row.state === "running" ? [...found, ...health.tick(now)] : found;
  }

  async #weigh(): Promise<void> {
    this.#bytesAt = this.row.revision;
    const found = await checkpointsOf(this.path).catch(() => []);
    this.#bytes = found.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async #rowNow(isNew: boolean): Promise<RunRow> {
    const current = this.#summary;
    const identity = this.#identity;
    const ms = usualMs(current.times);
    const step = current.lastStep?.step ?? 0;
    const steps = identity?.steps ?? 0;
    const state: RunState =
      identity === null
        ? "unreadable"
        : await stateOf(this.path, current.ended !== null).catch(() => "stopped" as const);
    const finite = current.losses.map(({ loss }) => loss).filter(Number.isFinite);
    const dead = current.last?.dead ?? null;
    return {
      ...this.row,
      state,
      kind: identity?.kind ?? "dense",
      seed: identity?.seed ?? 0,
      params: identity?.params ?? 0,
      activeParams: identity?.activeParams ?? 0,
      step,
      steps,
      tokens: current.lastStep?.tokens ?? 0,
      loss: current.last?.loss ?? null,
      bestLoss: finite.length === 0 ? null : finite.reduce((a, b) => Math.min(a, b)),
      trainLoss: current.lastStep?.loss ?? null,
      tokensPerSecond: ms === null || identity === null || ms === 0 ? null : (1000 * identity.tokensPerStep) / ms,
      secondsLeft: state === "running" && ms !== null ? (Math.max(0, steps - step) * ms) / 1000 : null,
      dead: dead === null ? null : dead.reduce((sum, { length }) => sum + length, 0),
      experts: dead === null ? null : (current.last?.experts ?? null),
      bytes: this.#bytes,
      changed: this.#written,
      alerts: this.#health?.alerts.length ?? 0,
      revision: this.row.revision + (isNew ? 1 : 0),
      problem:
        this.#problem ?? (this.#tail.badLines > 0 ? `${this.#tail.badLines} lines of its log are no records` : null),
    };
  }
}
