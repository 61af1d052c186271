/** Conversions below the folder that are at work or unfinished, by what they note beside the folders that they make. */
import { lstat, readdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import type { Identity } from "../../files/checkpoint/resumable-write.js";
import { isElsewhere, isRunning, lockOwner, MOST_LOCK_BYTES, runningHere } from "../../files/io/lock-owner.js";
import { lockName } from "../../files/io/lock.js";
import { journalName, unfinishedName } from "../../files/io/resumable-directory.js";
import { progressFile, readProgress, type ConversionProgress } from "../../surgery/convert/progress-record.js";
import type { ConversionRow, ConversionState } from "../data/model-types.js";
import type { StudioIndex } from "./index.js";
import { beginningOf, openPlain, readPlain, readPlainJson } from "./safe-file.js";

/** A conversion notes that it is there every five seconds; after this long it is silent. */
const silentMs = 20_000;

/** The conversions of a folder. */
export class ConversionShelf {
  /** What the last look has found. */
  #seen = "[]";

  constructor(private readonly index: StudioIndex) {}

  /** All of them, as they are at this moment. */
  async rows(now: number): Promise<readonly ConversionRow[]> {
    const rows: ConversionRow[] = [];
    for (const name of this.index.found.conversions) {
      const row = await rowOf(name, this.index.pathOf(name), now);
      if (row !== null) rows.push(row);
    }
    return rows;
  }

  /** Whether any has changed since the last look. Questions in between hide no change from those who did not ask. */
  async look(now: number): Promise<boolean> {
    const before = this.#seen;
    this.#seen = JSON.stringify(await this.rows(now));
    return this.#seen !== before;
  }
}

/** The row of the conversion that makes `path`; null where none is at work, and nothing is left of one. */
async function rowOf(name: string, path: string, now: number): Promise<ConversionRow | null> {
  const room = await roomOf(path);
  const file = progressFile(path);
  const progress = readProgress(await readPlainJson(file, 1e6));
  if (progress === null) return room === null ? null : unrecordedRow(name, room);
  const state = stateOf(progress, Math.max(progress.updated, await changedOf(file)), now);
  // What was measured, or not, leaves nothing that could be gone on with.
  if (room === null && (state === "dead" || state === "stopped")) return null;
  const { phase, tensor, done, total, found, bytesPerSecond, started, updated, ended, command, sources } = progress;
  const isWriting = phase === "writing" && state === "working" && bytesPerSecond !== null && bytesPerSecond > 0;
  return {
    name,
    state,
    what: progress.name ?? (room === null ? null : ((await identityIn(room))?.name ?? null)),
    sources,
    phase,
    tensor,
    done,
    total,
    found,
    bytesPerSecond: phase === "writing" ? bytesPerSecond : null,
    secondsLeft: isWriting ? (total - done) / bytesPerSecond : null,
    started,
    updated,
    why: ended,
    command,
  };
}

/** Whether whoever wrote the record is at work. On another machine only silence tells that nobody is. */
function stateOf({ ended, host, pid }: ConversionProgress, updated: number, now: number): ConversionState {
  if (ended !== null) return "stopped";
  const isHere = host === hostname();
  if (isHere && !isRunning(pid)) return "dead";
  if (now - updated <= silentMs) return "working";
  return isHere ? "silent" : "dead";
}

/** The row of unfinished work whose record is gone, or was written by an earlier version. */
async function unrecordedRow(name: string, room: string): Promise<ConversionRow | null> {
  const identity = await identityIn(room);
  if (identity === null) return null;
  const owner = lockOwner((await readPlain(join(room, lockName), MOST_LOCK_BYTES))?.toString("utf8") ?? "");
  const { done, total } = await writtenIn(join(room, "folder"));
  const journal = await openPlain(join(room, journalName));
  await journal?.close();
  return {
    name,
    state: owner && (isElsewhere(owner) || runningHere(owner) !== null) ? "working" : "stopped",
    what: identity.name,
    sources: [...new Set(Object.keys(identity.sources).map((file) => basename(dirname(file))))],
    phase: "writing",
    tensor: null,
    done,
    total,
    found: 0,
    bytesPerSecond: null,
    secondsLeft: null,
    started: null,
    updated: journal?.changed ?? 0,
    why: null,
    command: null,
  };
}

/** The place of unfinished work; null where there is none. A link is none. */
async function roomOf(path: string): Promise<string | null> {
  const room = unfinishedName(path);
  const info = await lstat(room).catch(() => null);
  return info?.isDirectory() === true ? room : null;
}

/** What the journal of unfinished work says is being made; null for work of another kind. */
async function identityIn(room: string): Promise<Pick<Identity, "name" | "sources"> | null> {
  const beginning = await beginningOf(join(room, journalName), 1 << 20);
  const [line = ""] = beginning?.bytes.toString("utf8").split("\n", 1) ?? [];
  try {
    const { begun } = JSON.parse(line) as { readonly begun?: Partial<Identity> };
    const isOurs = typeof begun?.name === "string" && typeof begun.sources === "object" && begun.sources !== null;
    return isOurs ? { name: begun.name, sources: begun.sources } : null;
  } catch {
    return null;
  }
}

/** Bytes of the files in a folder that are on disk: files have their full sizes from the beginning, with holes. */
async function writtenIn(folder: string): Promise<{ readonly done: number; readonly total: number }> {
  let [done, total] = [0, 0];
  for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
    if (!entry.isFile()) continue;
    const info = await stat(join(folder, entry.name)).catch(() => null);
    total += info?.size ?? 0;
    done += Math.min(info?.size ?? 0, 512 * (info?.blocks ?? 0));
  }
  return { done, total };
}

async function changedOf(file: string): Promise<number> {
  const info = await lstat(file).catch(() => null);
  return info?.mtimeMs ?? 0;
}
