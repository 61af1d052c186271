/** One run of the index: its record, its log as far as it was read, and the row of the list that both make. */
import type { Dirent } from "node:fs";
import { join } from "node:path";
import type { UpcycleError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { sizeLimits } from "../../files/io/open.js";
import {
  checkpointsOf,
  identityOf,
  runIdentity,
  stateOf,
  type RunCheckpoint,
  type RunIdentity,
} from "../../train/run-list.js";
import { runFile, type RunRecord } from "../../train/claim.js";
import { dispatchRecord, metricsFile, type DoneRecord } from "../../train/records.js";
import { RunHealth } from "../data/health.js";
import { LogSummary, type Judged } from "../data/log-summary.js";
import type { RunRow, RunState, StudioAlert } from "../data/types.js";
import { LogTail } from "./log-tail.js";
import { distantFiles, endOf, readPlainJson, type FolderFiles } from "./safe-file.js";

/** Milliseconds after which the checkpoints of a run under way are weighed again. */
const weighMs = 3000;
/** Milliseconds after which a run under way that says nothing is judged again. */
const silentMs = 1000;
/** Of a log of more bytes than these the end is read before the whole, and so many bytes of it. */
const longLog = 1 << 20;
const glanceBytes = 1 << 16;

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

/** What a look at the folder of a run has found in it, so that it need not be looked for again. */
export interface RunFolder {
  /** Whether there is a lock, of a command that is at work or was killed. */
  readonly hasLock: boolean;
  /** Whether there are folders that may be checkpoints. */
  readonly hasFolders: boolean;
}

/** What a reading may know, and who has a turn meanwhile. */
export interface RefreshOptions {
  readonly folder?: RunFolder | undefined;
  readonly breathe?: (() => Promise<void>) | undefined;
}

const noNews: Refreshed = { changed: false, alerts: [] };

/** A run of the index. */
export class RunEntry {
  row: RunRow;
  /** Whether its record and the end of its log were read; the list then shows how far it is. */
  isKnown = false;
  /** Whether its log was read to its end once. */
  isRead = false;
  /** How its files are read. */
  readonly files: FolderFiles;
  readonly #tail: LogTail;
  #summary = new LogSummary();
  #identity: KeptIdentity | null = null;
  /** When the record was last written that could not be read. */
  #badRecord = -1;
  #health: RunHealth | null = null;
  /** When its log was last written; 0 before it was read. */
  #written = 0;
  #problem: string | null = null;
  #bytes = 0;
  #weighedAt = -Infinity;
  /** When its log was last found to have grown, and when the run was last judged. */
  #readAt = -Infinity;
  #judgedAt = -Infinity;
  /** One reading at a time; whoever asks meanwhile gets its result. */
  #refreshing: Promise<Refreshed> | null = null;

  constructor(
    readonly name: string,
    readonly path: string,
    { study = null, files = distantFiles }: { readonly study?: string | null; readonly files?: FolderFiles } = {},
  ) {
    this.files = files;
    this.#tail = new LogTail(join(path, metricsFile), files);
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

  /** Milliseconds since its log was last found to have grown. */
  sinceRead(now: number): number {
    return now - this.#readAt;
  }

  /** The checkpoints in its folder; none where they cannot be read. */
  async checkpoints(): Promise<readonly RunCheckpoint[]> {
    const { files } = this;
    const entries = async (path: string): Promise<Dirent[] | null> => {
      const found = await files.entries(path);
      return found.length === 0 ? null : found;
    };
    return checkpointsOf(this.path, { entries, state: (file) => files.state(file) }).catch(() => []);
  }

  /** Reads on. Returns alerts that are new and whether the row has changed. */
  refresh(now: number, options: RefreshOptions = {}): Promise<Refreshed> {
    this.#refreshing ??= this.#refreshNow(now, options).finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  /**
   * Reads the record and the end of a long log, and all of a short one: a list of many runs then shows how far they are
   * long before all is read.
   */
  async glance(now: number, options: RefreshOptions = {}): Promise<Refreshed> {
    const path = join(this.path, metricsFile);
    const size = (await this.files.state(path))?.size ?? 0;
    const end = size > longLog && !this.isKnown ? await endOf(path, glanceBytes, this.files) : null;
    if (end === null) return this.refresh(now, options);
    await this.#identify();
    const seen = new LogSummary();
    const text = end.bytes.toString("utf8");
    for (const line of text.split("\n").slice(1, -1)) {
      if (seen.keep(line)) continue;
      try {
        dispatchRecord(JSON.parse(line), seen);
      } catch {
        // It is counted when the whole log is read.
      }
    }
    seen.settle();
    this.#written = end.changed;
    const state = await this.#stateNow(seen, { folder: options.folder, isNew: false });
    this.isKnown = true;
    // What is read of its end does not say which loss was the lowest.
    this.row = { ...this.#rowOf(seen, state), bestLoss: null };
    return { changed: true, alerts: [] };
  }

  async #refreshNow(now: number, { folder, breathe }: RefreshOptions): Promise<Refreshed> {
    if (this.#identity === null) await this.#identify();
    const reading = await this.#tail.read({
      restart: () => this.#restart(),
      take: (value) => dispatchRecord(value, this.#summary),
      piece: (text) => this.#summary.piece(text),
      keep: (line) => this.#summary.keep(line),
      breathe,
    });
    const isNew = reading?.changed === true;
    // A run that was at rest goes on where somebody takes its folder, or writes its log.
    if (this.isRead && !isNew && this.row.state !== "running" && folder?.hasLock !== true && !this.#isMended)
      return noNews;
    if (this.isRead && !isNew && folder === undefined && now - this.#judgedAt < silentMs) return noNews;
    this.#judgedAt = now;
    if (isNew) this.#readAt = now;
    if (this.isRead && this.#summary.hasResumed) await this.#identify();
    this.#summary.hasResumed = false;
    if (reading !== null) this.#written = reading.written;
    const alerts = this.#judge(now);
    const state = await this.#stateNow(this.#summary, { folder, isNew });
    await this.#weigh(now, { state, isNew, folder });
    const isFirst = !this.isRead;
    this.isKnown = this.isRead = true;
    const before = this.row;
    const row = this.#rowOf(this.#summary, state);
    const changed = isNew || isFirst || JSON.stringify(row) !== JSON.stringify(before);
    this.row = isNew ? { ...row, revision: row.revision + 1 } : row;
    return { changed, alerts };
  }

  /** Whether the record can be read that the row says cannot. */
  get #isMended(): boolean {
    return this.row.state === "unreadable" && this.#identity !== null;
  }

  /** Reads the record; one that could not be read is read again when it was written again. */
  async #identify(): Promise<void> {
    const writtenAt = async (): Promise<number> => (await this.files.state(join(this.path, runFile)))?.changed ?? 0;
    if (this.#problem !== null && (await writtenAt()) === this.#badRecord) return;
    this.#problem = null;
    try {
      const { kind, params, activeParams, steps, spec, config, tokensPerStep } = await this.identity();
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
      this.#badRecord = await writtenAt();
    }
    if (this.#identity !== null && this.#health === null) this.#beginHealth(this.#identity);
  }

  /**
   * What its record says, read anew, in half the calls that it takes to say what is wrong with one. Throws inputError
   * for a damaged one.
   */
  async identity(): Promise<RunIdentity> {
    const record = (await readPlainJson(
      join(this.path, runFile),
      sizeLimits.record,
      this.files,
    )) as Partial<RunRecord> | null;
    return typeof record?.training === "object" ? identityOf(record as RunRecord) : runIdentity(this.path);
  }

  #beginHealth({ steps, experts }: KeptIdentity): void {
    this.#health = new RunHealth({ run: this.name, steps, experts });
  }

  #restart(): void {
    this.#summary = new LogSummary();
    if (this.#identity !== null) this.#beginHealth(this.#identity);
  }

  /** Steps are judged at the time at which the log was written, so that silence counts from there. */
  #judge(now: number): StudioAlert[] {
    const health = this.#health;
    const waiting = this.#summary.settle();
    if (health === null) return [];
    const found = waiting.flatMap((record) => {
      try {
        return this.#judgedBy(health, record);
      } catch {
        this.#tail.badLines++;
        return [];
      }
    });
    if (this.#summary.ended !== null) health.done();
    return this.row.state === "running" ? [...found, ...health.tick(now)] : found;
  }

  #judgedBy(health: RunHealth, record: Judged): StudioAlert[] {
    if (record.type === "step") return health.step(record, this.#written);
    return record.type === "eval" ? health.eval(record) : health.resume(record.step, this.#written);
  }

  /** Checkpoints change while a run is under way, wherever that is, and for the last time as it ends. */
  async #weigh(
    now: number,
    {
      state,
      isNew,
      folder,
    }: { readonly state: RunState; readonly isNew: boolean; readonly folder?: RunFolder | undefined },
  ): Promise<void> {
    const isDue = (isNew || state === "running") && now - this.#weighedAt >= weighMs;
    if (this.isRead && !isDue && state === this.row.state) return;
    this.#weighedAt = now;
    const found = folder?.hasFolders === false ? [] : await this.checkpoints();
    this.#bytes = found.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  async #stateNow(
    { ended }: LogSummary,
    { folder, isNew }: { readonly folder: RunFolder | undefined; readonly isNew: boolean },
  ): Promise<RunState> {
    if (this.#identity === null) return "unreadable";
    if (folder?.hasLock === false) return ended === null ? "stopped" : "finished";
    // A run whose log has grown is under way, unless it says that it has ended: its lock need not be read every time.
    if (isNew && this.row.state === "running" && ended === null) return "running";
    return stateOf(this.path, ended !== null).catch(() => "stopped" as const);
  }

  #rowOf(current: LogSummary, state: RunState): RunRow {
    const identity = this.#identity;
    const ms = current.msPerStep;
    const step = current.lastStep?.step ?? 0;
    const steps = identity?.steps ?? 0;
    const loss = current.losses.at(-1)?.loss ?? NaN;
    const finite = current.losses.map((one) => one.loss).filter(Number.isFinite);
    const dead = current.last?.dead ?? null;
    const badLines = this.#tail.badLines + current.badLines;
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
      loss: Number.isFinite(loss) ? loss : null,
      bestLoss: finite.length === 0 ? null : finite.reduce((a, b) => Math.min(a, b)),
      trainLoss: current.lastStep?.loss ?? null,
      tokensPerSecond: ms === null || identity === null || ms === 0 ? null : (1000 * identity.tokensPerStep) / ms,
      secondsLeft: state === "running" && ms !== null ? (Math.max(0, steps - step) * ms) / 1000 : null,
      dead: dead === null ? null : dead.reduce((sum, { length }) => sum + length, 0),
      experts: dead === null ? null : (current.last?.experts ?? null),
      bytes: this.#bytes,
      changed: this.#written,
      alerts: this.#health?.alerts.length ?? 0,
      problem: this.#problem ?? (badLines > 0 ? `${badLines} lines of its log are no records` : null),
    };
  }
}
