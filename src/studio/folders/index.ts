/**
 * The index of a folder: rows of all runs, kept up to date by looking. Runs that are under way are looked at often,
 * the tree now and then; polling works on network file systems, where changes are not announced.
 */
import { readdir, realpath, statfs } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { naturalOrder } from "../data/natural.js";
import type { RunRow, StudioAlert } from "../data/types.js";
import { RunEntry, type RefreshOptions } from "./run-entry.js";
import { filesOf, type FolderFiles } from "./safe-file.js";
import { breather, inTurns } from "./turns.js";
import { nothingFound, scan, type Found } from "./scan.js";

/** Milliseconds between two looks at runs under way, and between two at the whole tree. */
const lookMs = 350;
/**
 * Milliseconds after which a log is read on that grows all the time. What is new is told within a second so, and a
 * training on the same machine needs the time more.
 */
const growMs = 2 * lookMs;
/** Runs that were asked for last: they are looked at as often as those under way, should they go on. */
const mostAsked = 8;
const treeMs = 3000;
/** Looks at the whole tree take at most one part in so many of the time: a training needs it more. */
const treeShare = 50;
/** A run whose log was written this lately is under way, whoever writes it. */
const freshMs = 120_000;
/** Less free space than this share of the disk is told. */
const leastFree = 0.02;

/** What one look has found to be new. */
export interface IndexChange {
  readonly rows: readonly RunRow[];
  readonly gone: readonly string[];
  readonly alerts: readonly StudioAlert[];
  /** Whether the lists of reports, models and jobs may be others. */
  readonly tree: boolean;
}

const nothing: IndexChange = { rows: [], gone: [], alerts: [], tree: false };

/** The index. */
export class StudioIndex {
  #entries: ReadonlyMap<string, RunEntry> = new Map();
  #found: Found = nothingFound;
  #treeAt = -Infinity;
  #treeTook = 0;
  #trees = 0;
  #disk: { free: number; total: number } | null = null;
  #diskTold = false;
  /** Names, the one that was asked for last at the end. */
  #asked: readonly string[] = [];
  /** Called when the tree was looked at for the first time. */
  #onFirst: (() => void)[] = [];
  /** One look of each kind at a time. */
  #lookingAround: Promise<IndexChange> | null = null;
  #lookingAtLive: Promise<IndexChange> | null = null;

  private constructor(
    readonly root: string,
    /** How its files are read. */
    readonly files: FolderFiles,
    private readonly now: () => number,
  ) {}

  /** An index of a folder, in which nothing was looked at yet. Throws inputError for what is no folder. */
  static async open(dir: string, now: () => number = Date.now): Promise<StudioIndex> {
    const root = await withFsErrors(dir, "open folder", () => realpath(dir));
    await withFsErrors(dir, "read folder", () => readdir(root)).catch((cause: unknown) => {
      throw inputError("this is no folder that can be read", { where: dir, hint: "name a folder with runs", cause });
    });
    return new StudioIndex(root, await filesOf(root), now);
  }

  /** All rows, in the order of their names, in which the page shows them at first. */
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

  /** Runs whose logs were not read to their ends yet; of most of them it is known how far they are. */
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
    await Promise.race([first, this.lookAround()]);
  }

  /** Looks for what is new, in the tree where that is due, and in runs under way. */
  async look(): Promise<IndexChange> {
    const around = await this.lookAround();
    const live = await this.lookAtLive(0);
    return { ...around, rows: [...around.rows, ...live.rows], alerts: [...around.alerts, ...live.alerts] };
  }

  /**
   * Reads on in runs under way, but those that were found to have grown less than `apartMs` milliseconds ago. A look
   * that is under way is waited for, as by `lookAround`.
   */
  lookAtLive(apartMs = growMs): Promise<IndexChange> {
    this.#lookingAtLive ??= this.#lookAtLiveNow(apartMs).finally(() => {
      this.#lookingAtLive = null;
    });
    return this.#lookingAtLive;
  }

  /** Looks at the whole tree where that is due, and at all runs that are not under way; reads those that are new. */
  lookAround(): Promise<IndexChange> {
    this.#lookingAround ??= this.#lookAroundNow().finally(() => {
      this.#lookingAround = null;
    });
    return this.#lookingAround;
  }

  async #lookAtLiveNow(apartMs: number): Promise<IndexChange> {
    const breathe = breather();
    return {
      ...nothing,
      ...(await this.#each(this.#live(apartMs), breathe, (entry) => entry.refresh(this.now(), { breathe }))),
    };
  }

  /**
   * Runs under way, those whose logs are written by whom this machine does not know, and those that somebody looks at;
   * without those whose turn has not come.
   */
  #live(apartMs: number): RunEntry[] {
    const now = this.now();
    const isLive = ({ name, state, changed }: RunRow): boolean =>
      state === "running" || (state === "stopped" && now - changed < freshMs) || this.#asked.includes(name);
    // Looks come a little early or late.
    const isDue = (entry: RunEntry): boolean => entry.sinceRead(now) >= apartMs - lookMs / 2;
    return [...this.#entries.values()].filter((entry) => entry.isRead && isLive(entry.row) && isDue(entry));
  }

  /** Somebody looks at a run. */
  ask(name: string): void {
    if (this.#asked.at(-1) === name) return;
    this.#asked = [...this.#asked.filter((other) => other !== name), name].slice(-mostAsked);
  }

  async #lookAroundNow(): Promise<IndexChange> {
    if (this.treeInMs > 0) return nothing;
    const breathe = breather();
    const started = this.now();
    const gone = await this.#lookAtTree(breathe);
    const disk = await this.#lookAtDisk();
    const all = [...this.#entries.values()].filter(({ row }) => row.state !== "running");
    const known = all.filter(({ isRead }) => isRead);
    const fresh = all.filter(({ isRead }) => !isRead);
    const options = (entry: RunEntry): RefreshOptions => ({ folder: this.#found.runs.get(entry.name), breathe });
    const found = await this.#each(known, breathe, (entry) => entry.refresh(this.now(), options(entry)));
    this.#treeTook = this.now() - started;
    // First how far all new ones are, then what is in the middle of long logs.
    const seen = await this.#each(fresh, breathe, (entry) => entry.glance(this.now(), options(entry)));
    const long = fresh.filter(({ isRead }) => !isRead);
    const read = await this.#each(long, breathe, (entry) => entry.refresh(this.now(), options(entry)));
    this.#treeAt = this.now();
    return {
      rows: [...new Set([...found.rows, ...seen.rows, ...read.rows].map(({ name }) => name))].flatMap(
        (name) => this.#entries.get(name)?.row ?? [],
      ),
      gone,
      alerts: [...disk, ...found.alerts, ...seen.alerts, ...read.alerts],
      tree: true,
    };
  }

  /** Milliseconds after which a look at runs under way may find something: one whose turn has not come is not read. */
  get liveInMs(): number {
    const now = this.now();
    const waits = this.#live(0).map((entry) => {
      const since = entry.sinceRead(now);
      return since < growMs ? growMs - since : lookMs;
    });
    return Math.min(growMs, ...waits);
  }

  /** Milliseconds after which a look at the whole tree is due. */
  get treeInMs(): number {
    return Math.max(0, this.#treeAt + this.#treeApartMs - this.now());
  }

  get #treeApartMs(): number {
    return Math.max(treeMs, treeShare * this.#treeTook);
  }

  /** Reads runs, some at once. */
  async #each(
    entries: readonly RunEntry[],
    breathe: () => Promise<void>,
    read: (entry: RunEntry) => ReturnType<RunEntry["refresh"]>,
  ): Promise<Pick<IndexChange, "rows" | "alerts">> {
    const rows: RunRow[] = [];
    const alerts: StudioAlert[] = [];
    await inTurns(entries, this.files.atOnce, async (entry) => {
      await breathe();
      const found = await read(entry);
      if (found.changed) rows.push(entry.row);
      alerts.push(...found.alerts);
    });
    return { rows, alerts };
  }

  async #lookAtTree(breathe: () => Promise<void>): Promise<string[]> {
    this.#found = await scan(this.root, this.files, breathe);
    const { runs, studies } = this.#found;
    const gone = [...this.#entries.keys()].filter((name) => !runs.has(name));
    const isNew = gone.length > 0 || [...runs.keys()].some((name) => !this.#entries.has(name));
    if (isNew) this.#entries = this.#entriesOf([...runs.keys()], studies);
    this.#trees++;
    for (const done of this.#onFirst.splice(0)) done();
    return gone;
  }

  /** Entries of runs in the order of their names; those that are known are kept. */
  #entriesOf(names: readonly string[], studies: readonly string[]): ReadonlyMap<string, RunEntry> {
    const fresh = (name: string): RunEntry => {
      const study = studies.filter((one) => one === "" || name.startsWith(`${one}/`)).at(-1) ?? null;
      return new RunEntry(name, this.pathOf(name), { study, files: this.files });
    };
    const sorted = [...names].sort(naturalOrder(names));
    return new Map(sorted.map((name) => [name, this.#entries.get(name) ?? fresh(name)]));
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
