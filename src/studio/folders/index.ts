/**
 * The index of a folder: rows of all runs, kept up to date by looking. Runs that are under way are looked at often,
 * the tree now and then; polling works on network file systems, where changes are not announced.
 */
import { readdir, realpath, statfs } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import type { RunRow, StudioAlert } from "../data/types.js";
import { RunEntry } from "./run-entry.js";
import { scan, type Found } from "./scan.js";

/** Milliseconds between two looks at runs under way, and between two at the whole tree. */
export const lookMs = 300;
const treeMs = 3000;
/** A run whose log was written this lately is under way, whoever writes it. */
const freshMs = 120_000;
/** Less free space than this share of the disk is told. */
const leastFree = 0.02;
/** Milliseconds after which other work has its turn. */
const turnMs = 12;

/** What one look has found to be new. */
export interface IndexChange {
  readonly rows: readonly RunRow[];
  readonly gone: readonly string[];
  readonly alerts: readonly StudioAlert[];
  /** Whether the lists of reports, models and jobs may be others. */
  readonly tree: boolean;
}

const nothing: Found = {
  runs: [],
  studies: [],
  models: [],
  checkpoints: [],
  pages: [],
  documents: [],
  jobs: [],
  conversions: [],
};

/** The index. */
export class StudioIndex {
  readonly #entries = new Map<string, RunEntry>();
  #found: Found = nothing;
  #treeAt = -Infinity;
  #treeTook = 0;
  #trees = 0;
  #disk: { free: number; total: number } | null = null;
  #diskTold = false;
  /** Called when the tree was looked at for the first time. */
  #onFirst: (() => void)[] = [];
  /** One look at a time. */
  #looking: Promise<IndexChange> | null = null;

  private constructor(
    readonly root: string,
    private readonly now: () => number,
  ) {}

  /** An index of a folder, in which nothing was looked at yet. Throws inputError for what is no folder. */
  static async open(dir: string, now: () => number = Date.now): Promise<StudioIndex> {
    const root = await withFsErrors(dir, "open folder", () => realpath(dir));
    await withFsErrors(dir, "read folder", () => readdir(root)).catch((cause: unknown) => {
      throw inputError("this is no folder that can be read", { where: dir, hint: "name a folder with runs", cause });
    });
    return new StudioIndex(root, now);
  }

  /** All rows, in no particular order. */
  get rows(): readonly RunRow[] {
    return [...this.#entries.values()].map(({ row }) => row);
  }

  get found(): Found {
    return this.#found;
  }

  get disk(): { readonly free: number; readonly total: number } | null {
    return this.#disk;
  }

  /** Counts the looks at the whole tree. */
  get trees(): number {
    return this.#trees;
  }

  /** Runs whose logs were not read to their ends yet. */
  get unread(): number {
    let count = 0;
    for (const { isRead } of this.#entries.values()) if (!isRead) count++;
    return count;
  }

  get alerts(): readonly StudioAlert[] {
    return [...this.#diskAlerts(), ...[...this.#entries.values()].flatMap(({ alerts }) => alerts)];
  }

  /** A run by its name; undefined for any other word, whatever a request may hold. */
  run(name: string): RunEntry | undefined {
    return this.#entries.get(name);
  }

  /** The path of a name that a look has found. */
  pathOf(name: string): string {
    return join(this.root, name);
  }

  /** Waits until it is known what there is; logs may still be read. */
  async known(): Promise<void> {
    if (this.#trees > 0) return;
    const first = new Promise<void>((done) => this.#onFirst.push(done));
    await Promise.race([first, this.look()]);
  }

  /** Looks for what is new; a look that is under way is waited for. */
  look(): Promise<IndexChange> {
    this.#looking ??= this.#lookNow().finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  async #lookNow(): Promise<IndexChange> {
    const now = this.now();
    const breathe = breather();
    const isTreeDue = now - this.#treeAt > Math.max(treeMs, 20 * this.#treeTook);
    const gone = isTreeDue ? await this.#lookAtTree(breathe) : [];
    const rows: RunRow[] = [];
    const alerts: StudioAlert[] = isTreeDue ? [...(await this.#lookAtDisk())] : [];
    // What was never read comes first, newest names last, so that a list fills from its top.
    for (const entry of this.#entries.values()) {
      const isLive = !entry.isRead || entry.row.state === "running" || now - entry.row.changed < freshMs;
      if (!isLive && !isTreeDue) continue;
      await breathe();
      const found = await entry.refresh(this.now(), breathe);
      if (found.changed) rows.push(entry.row);
      alerts.push(...found.alerts);
    }
    return { rows, gone, alerts, tree: isTreeDue };
  }

  async #lookAtTree(breathe: () => Promise<void>): Promise<string[]> {
    const started = this.now();
    this.#found = await scan(this.root, breathe);
    const names = new Set(this.#found.runs);
    const gone = [...this.#entries.keys()].filter((name) => !names.has(name));
    for (const name of gone) this.#entries.delete(name);
    for (const name of names) {
      if (this.#entries.has(name)) continue;
      const study = this.#found.studies.filter((one) => one === "" || name.startsWith(`${one}/`)).at(-1) ?? null;
      this.#entries.set(name, new RunEntry(name, this.pathOf(name), study));
    }
    this.#treeAt = this.now();
    this.#trees++;
    for (const done of this.#onFirst.splice(0)) done();
    this.#treeTook = this.#treeAt - started;
    return gone;
  }

  async #lookAtDisk(): Promise<readonly StudioAlert[]> {
    const info = await statfs(this.root).catch(() => null);
    this.#disk = info === null ? null : { free: info.bavail * info.bsize, total: info.blocks * info.bsize };
    const alerts = this.#diskAlerts();
    const isNew = alerts.length > 0 && !this.#diskTold;
    this.#diskTold = alerts.length > 0;
    return isNew ? alerts : [];
  }

  /** A disk is short where it could not hold the largest run's checkpoints once more, or is nearly full. */
  #diskAlerts(): readonly StudioAlert[] {
    if (this.#disk === null || this.#disk.total === 0) return [];
    const { free, total } = this.#disk;
    const running = [...this.#entries.values()].filter(({ row }) => row.state === "running");
    const needed = Math.max(0, ...running.map(({ row }) => row.bytes));
    if (free > leastFree * total && free > needed) return [];
    const message =
      free > needed
        ? `the disk is nearly full: ${Math.round(free / 1e6)} MB are free`
        : `${Math.round(free / 1e6)} MB are free, the next checkpoint may need ${Math.round(needed / 1e6)} MB`;
    return [{ level: free > needed ? "warning" : "error", kind: "disk", run: null, step: null, message, count: 1 }];
  }
}

/** Lets requests be answered while much is read. */
function breather(): () => Promise<void> {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < turnMs) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
    since = performance.now();
  };
}
