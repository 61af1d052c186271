/** Trainings that `upcycle launch` has started, and what their logs say, as `upcycle watch` reads them. */
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { RunMonitor, type Alert } from "../../cluster/logs/monitor.js";
import { parseLine } from "../../files/formats/megatron-log.js";
import type { JobRow, StudioAlert } from "../data/types.js";
import type { StudioIndex } from "./index.js";
import { openPlain, readPlainJson } from "./safe-file.js";

/** Bytes of each log, at its end, that are read when it is seen for the first time, and at most at a time. */
const tailBytes = 4 << 20;
/**
 * Bytes without a line's end that are passed over: programs that show their progress on one line write for hours
 * without one, and would be read from there on at every look.
 */
const longestLine = 1 << 16;

interface Followed {
  at: number;
  inode: number;
}

class Job {
  readonly #monitor = new RunMonitor();
  readonly #files = new Map<string, Followed>();
  readonly #alerts = new Map<string, StudioAlert>();

  constructor(
    readonly name: string,
    private readonly folder: string,
  ) {}

  /** Reads on in all logs. Returns alerts that are new. */
  async look(now: number): Promise<StudioAlert[]> {
    const found: StudioAlert[] = [];
    const names = await this.#logs();
    for (const name of names.filter((file) => /\.(log|out|err)$/.test(file)).sort())
      for (const line of await this.#newLines(join(this.folder, "logs", name))) {
        const event = parseLine(line);
        if (event !== null) found.push(...this.#monitor.take(event, now).map((alert) => this.#note(alert)));
      }
    return [...found, ...this.#monitor.tick(now).map((alert) => this.#note(alert))];
  }

  /** Files below its folder of logs; nothing where that is a link, which may lead anywhere. */
  async #logs(): Promise<string[]> {
    const folder = join(this.folder, "logs");
    const info = await lstat(folder).catch(() => null);
    return info?.isDirectory() === true ? readdir(folder, { recursive: true }).catch(() => []) : [];
  }

  async row(): Promise<JobRow> {
    const { iteration, of, loss, tokensPerSecond, secondsLeft, restarts, ended } = this.#monitor.state;
    const record = (await readPlainJson(join(this.folder, "launch.json"), 1e6)) as {
      readonly slurm?: readonly string[];
      readonly kubernetes?: string;
    } | null;
    const ids = record?.slurm ?? (record?.kubernetes === undefined ? [] : [record.kubernetes]);
    return {
      name: this.name,
      where: record?.slurm !== undefined ? "slurm" : record?.kubernetes !== undefined ? "kubernetes" : "local",
      ids: ids.map(String),
      iteration,
      of,
      loss: loss !== null && Number.isFinite(loss) ? loss : null,
      tokensPerSecond,
      secondsLeft,
      restarts,
      ended,
      alerts: [...this.#alerts.values()],
    };
  }

  #note({ level, kind, iteration, message }: Alert): StudioAlert {
    const count = (this.#alerts.get(kind)?.count ?? 0) + 1;
    const alert = { level, kind, run: this.name, step: iteration, message, count };
    this.#alerts.set(kind, alert);
    return alert;
  }

  async #newLines(path: string): Promise<string[]> {
    const file = await openPlain(path);
    if (file === null) return [];
    try {
      const known = this.#files.get(path);
      const isOther = known === undefined || known.inode !== file.inode || file.size < known.at;
      let at = isOther ? Math.max(0, file.size - tailBytes) : known.at;
      const buffer = Buffer.alloc(Math.min(tailBytes, file.size - at));
      const bytesRead = await file.read(buffer, 0, buffer.length, at);
      const end = buffer.subarray(0, bytesRead).lastIndexOf(10) + 1;
      at += end === 0 && bytesRead > longestLine ? bytesRead : end;
      this.#files.set(path, { at, inode: file.inode });
      return end === 0 ? [] : buffer.toString("utf8", 0, end).split("\n").slice(0, -1);
    } finally {
      await file.close();
    }
  }
}

/** Launched trainings of a folder. */
export class JobShelf {
  readonly #jobs = new Map<string, Job>();

  constructor(private readonly index: StudioIndex) {}

  /** Reads on in the logs of all. Returns alerts that are new. */
  async look(now: number): Promise<StudioAlert[]> {
    const names = new Set(this.index.found.jobs);
    for (const name of this.#jobs.keys()) if (!names.has(name)) this.#jobs.delete(name);
    const found: StudioAlert[] = [];
    for (const name of names) {
      const job = this.#jobs.get(name) ?? new Job(name, this.index.pathOf(name));
      this.#jobs.set(name, job);
      found.push(...(await job.look(now)));
    }
    return found;
  }

  async rows(): Promise<JobRow[]> {
    const rows: JobRow[] = [];
    for (const job of this.#jobs.values()) rows.push(await job.row());
    return rows;
  }
}
