/**
 * How far a conversion is, noted beside the folder that it makes, so that `upcycle studio` shows it from outside:
 *
 *   .NAME.progress.json   beside NAME and `.NAME.unfinished`, from the first event to the end of the command
 *
 * The record decides nothing: a conversion is resumed by its journal (`files/checkpoint/resumable-write.ts`). It is
 * written now and then, without a flush to disk, while the work goes on, and a failure to write it is nobody's
 * business. After the end it stays only beside unfinished work, and says why that stopped.
 */
import { open, rename, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { UpcycleError } from "../../base/errors.js";
import { exists } from "../../files/io/atomic.js";
import { readCommand, type NotedCommand } from "../../files/io/command-file.js";
import { makeFolders } from "../../files/io/folders.js";
import { isFolderLocked } from "../../files/io/lock.js";
import { unfinishedName } from "../../files/io/resumable-directory.js";
import type { WorkflowEvent } from "./workflow.js";

/** What a conversion does: it measures on text what its plan needs, writes, and measures what it has written. */
const conversionPhases = ["starting", "measuring", "writing", "proving"] as const;
/** What a conversion does. */
type ConversionPhase = (typeof conversionPhases)[number];

/** How far a conversion is. */
export interface ConversionProgress {
  readonly command: NotedCommand | null;
  /** What it makes, such as a recipe; null before it is planned, and where it has no name. */
  readonly name: string | null;
  /** The models that are read, the base first. */
  readonly sources: readonly string[];
  readonly phase: ConversionPhase;
  /** The tensor that was worked on last; null before. */
  readonly tensor: string | null;
  /** Bytes of weights while it writes, those of an earlier attempt included, layers or sequences otherwise. */
  readonly done: number;
  readonly total: number;
  /** Bytes that an earlier attempt had written. */
  readonly found: number;
  /** Bytes per second of this attempt; null before anything is written. */
  readonly bytesPerSecond: number | null;
  /** When the command began, and when this was written, in milliseconds since 1970. */
  readonly started: number;
  readonly updated: number;
  readonly host: string;
  readonly pid: number;
  /** Why it stopped; null while it is at work, and where it was killed. */
  readonly ended: string | null;
}

/** Milliseconds between two writes of a record at least, and at most while nothing happens. */
const writeMs = 500;
const beatMs = 5000;

/** The record beside the folder that a conversion makes. */
export function progressFile(out: string): string {
  const target = resolve(out);
  return join(dirname(target), `.${basename(target)}.progress.json`);
}

/** The folder's name in the name of such a record; null for another file. */
export const progressOf = (file: string): string | null => /^\.(.+)\.progress\.json$/.exec(file)?.[1] ?? null;

const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value);

/** The progress in the content of such a file; null for any other content. */
export function readProgress(content: unknown): ConversionProgress | null {
  const found = (content ?? {}) as Partial<ConversionProgress>;
  const { name, sources, phase, tensor, done, total, started, updated, host, pid, ended } = found;
  const isOurs =
    (name === null || typeof name === "string") &&
    Array.isArray(sources) &&
    sources.every((source) => typeof source === "string") &&
    conversionPhases.some((one) => one === phase) &&
    (tensor === null || typeof tensor === "string") &&
    [done, total, started, updated, pid, found.found].every(isNumber) &&
    (found.bytesPerSecond === null || isNumber(found.bytesPerSecond)) &&
    typeof host === "string" &&
    (ended === null || typeof ended === "string");
  if (!isOurs) return null;
  return { ...(found as ConversionProgress), command: readCommand(found.command) };
}

/** Keeps the record of one conversion. It never fails, and nothing waits for it but `end`. */
export class ProgressRecord {
  readonly #out: string;
  readonly #path: string;
  #now: ConversionProgress;
  #writtenAt = -Infinity;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> = Promise.resolve();
  #isOver = false;
  readonly #beat: NodeJS.Timeout;

  constructor(out: string, about: Pick<ConversionProgress, "command" | "sources">) {
    this.#out = out;
    this.#path = progressFile(out);
    const now = Date.now();
    this.#now = {
      ...about,
      name: null,
      phase: "starting",
      tensor: null,
      done: 0,
      total: 0,
      found: 0,
      bytesPerSecond: null,
      started: now,
      updated: now,
      host: hostname(),
      pid: process.pid,
      ended: null,
    };
    // A long computation tells nothing, and is at work nevertheless.
    this.#beat = setInterval(() => this.#due(), beatMs);
    this.#beat.unref();
  }

  /** Takes note of what the conversion makes. */
  name(name: string | null): void {
    this.#now = { ...this.#now, name };
  }

  /** Takes note of what a conversion tells. */
  take(event: WorkflowEvent): void {
    const next = stepOf(this.#now, event);
    if (next === null) return;
    this.#now = next;
    this.#due();
  }

  /** Ends the record; `cause` is why the conversion failed, and is left out where it did not. */
  async end(cause?: unknown): Promise<void> {
    this.#isOver = true;
    clearInterval(this.#beat);
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#writing;
    const room = unfinishedName(this.#out);
    // Another command at work there keeps a record of its own.
    if (cause !== undefined && (await isFolderLocked(room).catch(() => true))) return;
    const isUnfinished = cause !== undefined && (await exists(room).catch(() => false));
    if (!isUnfinished) return removed(this.#path);
    this.#now = { ...this.#now, ended: cause instanceof UpcycleError ? cause.line : (cause as Error).message };
    await this.#write();
  }

  #due(): void {
    if (this.#isOver || this.#timer !== null) return;
    const wait = Math.max(0, this.#writtenAt + writeMs - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#writing = this.#write();
    }, wait);
    this.#timer.unref();
  }

  async #write(): Promise<void> {
    await this.#writing;
    this.#writtenAt = performance.now();
    this.#now = { ...this.#now, updated: Date.now() };
    await replaced(this.#path, `${JSON.stringify({ version: 1, ...this.#now })}\n`).catch(() => undefined);
  }
}

/** The progress after an event; null where it says nothing of it. */
function stepOf(before: ConversionProgress, event: WorkflowEvent): ConversionProgress | null {
  switch (event.type) {
    case "prompts":
    case "reading":
      return { ...before, phase: "measuring", done: event.done, total: event.total };
    case "planned":
      return { ...before, phase: "writing", done: 0, total: 0 };
    case "resumed":
      return { ...before, phase: "writing", found: event.done, done: event.done, total: event.total };
    case "progress": {
      const { tensor, done, total, bytesPerSecond } = event;
      return { ...before, phase: "writing", tensor, done, total, bytesPerSecond };
    }
    case "proof":
      return event.event.type === "measuring"
        ? { ...before, phase: "proving", tensor: null, done: 0, total: 0 }
        : { ...before, phase: "proving", tensor: null, done: event.event.done, total: event.event.total };
    default:
      return null;
  }
}

/** Writes a file under another name first, so that nobody reads half of it. */
async function replaced(path: string, text: string): Promise<void> {
  const partial = `${path}.new`;
  await makeFolders(dirname(path));
  await rm(partial, { force: true });
  // What lies there is never followed: it may be a link to something else.
  const handle = await open(partial, "wx");
  try {
    await handle.writeFile(text);
  } finally {
    await handle.close();
  }
  await rename(partial, path);
}

async function removed(path: string): Promise<void> {
  for (const file of [path, `${path}.new`]) await rm(file, { force: true }).catch(() => undefined);
}
