/**
 * Keeps a run going: where its jobs are gone before its last iteration, where it stands still or its losses have become
 * worthless, it is started again from the last good checkpoint. What is under way is never started a second time.
 */
import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { UpcycleError } from "../../base/errors.js";
import { duration } from "../../base/format.js";
import { trackerFile } from "../../files/checkpoint/open-megatron.js";
import { exists, writeFileAtomic } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { readText } from "../../files/io/ranges.js";
import type { Alert } from "../logs/monitor.js";
import { iterations } from "../plan/arguments.js";
import { checkpointsOf, type LaunchPlan } from "../plan/scripts.js";
import { endJobs, jobsUnderWay, type ClusterJob } from "./jobs.js";
import { startRun } from "./launch.js";

/** What was done with a run. */
export interface KeepEvent {
  readonly type: "kept";
  readonly action: "restarted" | "finished" | "given-up" | "waiting";
  /** Iteration that the run goes on from; null: from the model it began with. */
  readonly from: number | null;
  readonly message: string;
}

/** How a run is kept. */
export interface KeepOptions {
  readonly plan: LaunchPlan;
  /** Restarts without a new checkpoint after which nothing more is tried. */
  readonly mostInVain?: number;
  /** Milliseconds between two questions to the scheduler. */
  readonly every?: number;
  readonly pause?: () => Promise<void>;
}

const isLocal = ({ slurm, kubernetes }: LaunchPlan["config"]): boolean =>
  slurm === undefined && kubernetes === undefined;

/** Alerts behind which steps are worthless: the run goes back to a checkpoint from before them. */
const spoiled: ReadonlySet<Alert["kind"]> = new Set(["nan", "divergence", "collapse"]);

/**
 * Steps in one look at the logs behind which a run has recovered by itself. A run that is watched is looked at every
 * second; so many steps come at once where its log is read from the beginning.
 */
const mostSound = 500;

/** Milliseconds for which a scheduler that does not answer is asked again: controllers are restarted now and then. */
const patience = 1_800_000;

/** A run that is kept going. */
export class RunKeeper {
  readonly #plan: LaunchPlan;
  readonly #mostInVain: number;
  readonly #every: number;
  readonly #pause: () => Promise<void>;
  /** The run on this machine that was started here. */
  #own: { readonly stop: AbortController; readonly end: Promise<unknown>; failed: Error | null } | null = null;
  #looked = -Infinity;
  /** Since when the scheduler does not answer. */
  #silentSince: number | null = null;
  #spoiledAt: number | null = null;
  /** Steps since the last alert of that kind. */
  #soundSteps = 0;
  #isStalled = false;
  #restarts = 0;
  #inVain = 0;
  #lastFrom: number | null | undefined;
  #isOver = false;

  constructor({ plan, mostInVain = 3, every = 60_000, pause }: KeepOptions) {
    [this.#plan, this.#mostInVain, this.#every] = [plan, mostInVain, every];
    this.#pause = pause ?? (() => new Promise((resolve) => setTimeout(resolve, 2000)));
  }

  /** Whether nothing more will be done. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Takes note of an alert. Logs tell of what was mended long ago, too: steps that are done again are judged anew. */
  heed({ kind, iteration, level }: Alert): void {
    if (kind === "restart" && iteration !== null && iteration < (this.#spoiledAt ?? 0)) this.#spoiledAt = null;
    if (level !== "error") return;
    if (spoiled.has(kind)) {
      this.#spoiledAt = Math.min(this.#spoiledAt ?? Infinity, iteration ?? Infinity);
      this.#soundSteps = 0;
    }
    if (kind === "stall") this.#isStalled = true;
  }

  /** Takes note of a step, behind its alerts. Behind many sound ones, what went wrong before them has passed. */
  heedStep(): void {
    if (this.#spoiledAt !== null && ++this.#soundSteps > mostSound) this.#spoiledAt = null;
  }

  /** Looks after the run; `now` in milliseconds. Throws stopError where the scheduler does not answer for long. */
  async look(now: number): Promise<KeepEvent | null> {
    const isUrgent = this.#spoiledAt !== null || this.#isStalled;
    const mayWait = !isUrgent || this.#silentSince !== null;
    if (this.#isOver || (mayWait && now - this.#looked < this.#every)) return null;
    this.#looked = now;
    if (this.#own?.failed) throw this.#own.failed;
    const { config } = this.#plan;
    const total = iterations(config.training);
    const reached = await lastSaved(checkpointsOf(config));
    if (!isUrgent && reached === total) return this.#end("finished", reached, `all ${total} iterations are done`);
    let alive: readonly ClusterJob[];
    try {
      alive = await jobsUnderWay(this.#plan);
    } catch (cause) {
      return this.#waitFor(cause, now);
    }
    this.#silentSince = null;
    if (!isUrgent && alive.length > 0) return null;
    return this.#again(isUrgent, alive.length > 0);
  }

  /** Nothing is done with a run whose jobs are not known; it is said once. Throws what has lasted too long. */
  #waitFor(cause: unknown, now: number): KeepEvent | null {
    if (!(cause instanceof UpcycleError) || cause.kind !== "stopped") throw cause;
    const since = (this.#silentSince ??= now);
    if (now - since >= patience) throw cause;
    if (now > since) return null;
    const rest = `the run is left alone, and it is asked again for ${duration(patience / 1000)}`;
    return { type: "kept", action: "waiting", from: null, message: `${cause.line}; ${rest}` };
  }

  async #again(isUrgent: boolean, isAlive: boolean): Promise<KeepEvent> {
    const { config } = this.#plan;
    const why = this.#why();
    if (isUrgent && isAlive) {
      if (isLocal(config) && this.#own === null)
        return this.#end("given-up", null, `${why}; it runs under another command here: end that one`);
      await this.#endRun();
    } else if (config.kubernetes !== undefined) {
      // What has ended keeps its name, which the next start needs.
      await endJobs(this.#plan, this.#pause);
    }
    const from = await goBack(checkpointsOf(config), this.#spoiledAt);
    // The same place as the last time: no checkpoint was made in between.
    this.#inVain = from === this.#lastFrom ? this.#inVain + 1 : 0;
    this.#lastFrom = from;
    if (this.#inVain >= this.#mostInVain)
      return this.#end("given-up", from, `${why}; ${this.#inVain} restarts brought no new checkpoint`);
    [this.#spoiledAt, this.#isStalled] = [null, false];
    this.#restarts++;
    await this.#start();
    return {
      type: "kept",
      action: "restarted",
      from,
      message: `${why}; started again from ${from === null ? "the model" : `step ${from}`} (restart ${this.#restarts})`,
    };
  }

  /** A run on this machine goes on beside the watch; a scheduler has taken its jobs when this returns. */
  async #start(): Promise<void> {
    if (!isLocal(this.#plan.config)) return void (await startRun(this.#plan));
    const stop = new AbortController();
    const own = { stop, end: Promise.resolve() as Promise<unknown>, failed: null as Error | null };
    own.end = startRun(this.#plan, { signal: stop.signal }).catch((cause: unknown) => (own.failed = cause as Error));
    this.#own = own;
  }

  async #endRun(): Promise<void> {
    this.#own?.stop.abort();
    await this.#own?.end;
    await endJobs(this.#plan, this.#pause);
  }

  /** Ends what was started on this machine: it does not outlive the watch. */
  async close(): Promise<void> {
    this.#own?.stop.abort();
    await this.#own?.end;
  }

  #why(): string {
    if (this.#spoiledAt !== null) return `steps from ${this.#spoiledAt} on are worthless`;
    if (this.#isStalled) return "the run stood still";
    return "its jobs are gone";
  }

  #end(action: "finished" | "given-up", from: number | null, message: string): KeepEvent {
    this.#isOver = true;
    return { type: "kept", action, from, message };
  }
}

/** The iteration that the tracker of a run names; null: none yet. */
async function lastSaved(checkpoints: string): Promise<number | null> {
  const tracker = join(checkpoints, trackerFile);
  if (!(await exists(tracker))) return null;
  const said = (await readText(tracker)).trim();
  return /^\d{1,9}$/.test(said) ? Number(said) : null;
}

/**
 * Makes the tracker name the last checkpoint from before an iteration, and gives that. Nothing is deleted: checkpoints
 * behind it stay, and are replaced when the run comes there again. Null: there is none, and the run begins anew.
 */
async function goBack(checkpoints: string, before: number | null): Promise<number | null> {
  const last = await lastSaved(checkpoints);
  if (last === null || before === null || last < before) return last;
  const names = await withFsErrors(checkpoints, "list folder", () => readdir(checkpoints));
  const complete: number[] = [];
  for (const name of names) {
    const step = /^iter_(\d{7,})$/.exec(name)?.[1];
    // Megatron-LM writes the metadata behind the weights.
    if (step !== undefined && (await exists(join(checkpoints, name, "metadata.json")))) complete.push(Number(step));
  }
  const good = complete.filter((step) => step < before && step <= last).sort((a, b) => b - a)[0] ?? null;
  const tracker = join(checkpoints, trackerFile);
  // Without a tracker the script takes the model that the run began with.
  if (good === null) await withFsErrors(tracker, "set aside", () => rename(tracker, `${tracker}.spoiled`));
  else await writeFileAtomic(tracker, String(good));
  return good;
}
