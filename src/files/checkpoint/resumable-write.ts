/**
 * Here a conversion survives being killed, by Ctrl-C, a full disk, a power cut or kill -9, and the same command resumes
 * it: a model folder is written through a journal, so that work is lost only since the last flush.
 *
 *   .NAME.unfinished/folder          the folder in the making; it becomes NAME by one rename when all is on disk
 *   .NAME.unfinished/journal.jsonl   first what is being made (`Identity`), then the chunks that are flushed to disk
 *
 * The next write of equal identity skips the chunks that the journal names. A chunk that it does not name is written
 * again, which gives the same bytes. A journal of another identity (another recipe, another source) is never resumed:
 * the folder is begun anew. `write.ts` uses this, `io/resumable-directory.ts` makes, locks and renames the folder.
 */
import { mkdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists, syncDirectory, writeFileSynced } from "../io/atomic.js";
import { journalName, stageResumable, type ResumableDirectory } from "../io/resumable-directory.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openJsonl, readJsonl, type JsonlWriter } from "../io/jsonl.js";
import { removeModelFolder, type Overwrite } from "../io/model-folder.js";
import type { PlannedFile } from "./plan-files.js";
import { createWeightFiles } from "./weight-files.js";

/** What a folder is made of: equal identities give equal bytes. */
export interface Identity {
  /** Name for people, such as the recipe's; compared like the rest. */
  readonly name: string;
  /** Hash of everything else that was asked for. */
  readonly request: string;
  /** What each source file looked like, by its path. */
  readonly sources: Readonly<Record<string, string>>;
}

/** A model folder in the making, whose progress outlives the process. */
export interface ResumableWrite {
  /** The folder being made. */
  readonly path: string;
  /** Indices of chunks that are on disk. */
  readonly done: ReadonlySet<number>;
  /** Name of the other unfinished work that was removed from here; null if there was none. */
  readonly replaced: string | null;
  /** Whether an earlier write was complete but for tidying up, which has been done by now: nothing is left to do. */
  readonly finished: boolean;
  /** Remembers chunks that have been flushed to disk. */
  record(chunks: readonly number[]): Promise<void>;
  /** Gives the folder its name. */
  commit(): Promise<void>;
  /** Leaves everything on disk, to be resumed. */
  leave(): Promise<void>;
  /** Removes everything. */
  discard(): Promise<void>;
}

/** What a resumable write makes, and whether it may replace something. */
interface ResumableWriteOptions {
  readonly overwrite?: Overwrite | undefined;
  readonly identity: Identity;
  readonly files: readonly PlannedFile[];
}

/** A line of the journal. */
type Entry =
  | { readonly begun: Identity }
  | { readonly done: readonly (readonly [number, number])[] }
  | { readonly committing: true };

/**
 * Begins a write to `dir` or resumes one of equal identity. Throws inputError if `dir` is taken, another process is at
 * work there, or a source is not what it was when the work began.
 */
export async function openResumableWrite(
  dir: string,
  { overwrite, identity, files }: ResumableWriteOptions,
): Promise<ResumableWrite> {
  const stage = await stageResumable(dir, { overwrite });
  try {
    const journal = join(stage.room, journalName);
    const entries = await readEntries(journal);
    const earlier = identityOf(entries);
    const isSame = earlier?.request === identity.request && earlier.name === identity.name;
    if (isSame) requireSameSources(earlier, identity, stage.room);
    if (isSame && (await isCommitted(entries, stage, dir))) {
      await stage.discard();
      return { ...resumableWriteOf(stage, null, new Set(), null), finished: true };
    }
    await stage.requireFree();
    const isUsable = isSame && (await hasAllFiles(stage.path, files));
    if (!isUsable) await begin(stage, journal, identity, files);
    const done = isUsable ? chunksDone(entries) : new Set<number>();
    const replaced = earlier !== null && !isSame ? earlier.name : null;
    return resumableWriteOf(stage, await openJsonl(journal), done, replaced);
  } catch (cause) {
    await stage.release();
    throw cause;
  }
}

/** What the journal says is being made; null where there is no journal. */
function identityOf([first]: readonly Entry[]): Identity | null {
  return first !== undefined && "begun" in first ? first.begun : null;
}

/** Whether the folder has its name already: only the tidying up of the place of unfinished work is missing. */
async function isCommitted(entries: readonly Entry[], stage: ResumableDirectory, dir: string): Promise<boolean> {
  if (!entries.some((entry) => "committing" in entry)) return false;
  return !(await exists(stage.path)) && (await exists(join(dir, "config.json")));
}

function chunksDone(entries: readonly Entry[]): Set<number> {
  const ranges = entries.flatMap((entry) => ("done" in entry ? entry.done : []));
  return new Set(ranges.flatMap(([from, to]) => range(from, to)));
}

function resumableWriteOf(
  stage: ResumableDirectory,
  journal: JsonlWriter | null,
  done: ReadonlySet<number>,
  replaced: string | null,
): ResumableWrite {
  const append = async (entry: Entry): Promise<void> => {
    await journal?.append(entry);
    await journal?.sync();
  };
  return {
    path: stage.path,
    done,
    replaced,
    finished: false,
    record: (chunks) => append({ done: ranges(chunks) }),
    async commit() {
      await append({ committing: true });
      await journal?.close();
      await stage.commit();
    },
    async leave() {
      await journal?.close().catch(() => undefined);
      await stage.release();
    },
    async discard() {
      await journal?.close().catch(() => undefined);
      await stage.discard();
    },
  };
}

/** The journal's entries; none where it cannot be read, so that the work starts over. */
async function readEntries(path: string): Promise<Entry[]> {
  if (!(await exists(path))) return [];
  const lines = await readJsonl(path).catch(() => []);
  return lines.every((line) => typeof line === "object" && line !== null) ? (lines as Entry[]) : [];
}

function requireSameSources(begun: Identity, now: Identity, room: string): void {
  for (const path of new Set([...Object.keys(begun.sources), ...Object.keys(now.sources)])) {
    const [before, after] = [begun.sources[path], now.sources[path]];
    if (before === after) continue;
    const what = after === undefined ? "is gone" : before === undefined ? "is new" : `was ${before} and is ${after}`;
    throw inputError(`the source changed since this conversion began: the file ${what}`, {
      where: path,
      hint: `put it back to go on, or remove ${room} to start over with the source as it is`,
    });
  }
}

/** Whether all weight files are there with their full sizes. */
async function hasAllFiles(folder: string, files: readonly PlannedFile[]): Promise<boolean> {
  for (const { file, header } of files) {
    const info = await stat(join(folder, file)).catch(() => null);
    if (info?.size !== header.fileBytes) return false;
  }
  return true;
}

/**
 * Begins anew: whatever lies there is removed, its journal first. The new journal appears when all files have their
 * sizes and headers on disk.
 */
async function begin(
  { room, path }: ResumableDirectory,
  journal: string,
  identity: Identity,
  files: readonly PlannedFile[],
): Promise<void> {
  await withFsErrors(path, "create folder", async () => {
    await rm(journal, { force: true });
    await syncDirectory(room);
    await removeModelFolder(path);
    await mkdir(path);
  });
  await createWeightFiles(path, files, join(dirname(room), basename(room).replace(/^\.|\.unfinished$/g, "")));
  await withFsErrors(path, "create folder", async () => {
    await syncDirectory(path);
    await writeFileSynced(journal, `${JSON.stringify({ begun: identity } satisfies Entry)}\n`);
    await syncDirectory(room);
  });
}

/** The numbers from `from` to before `to`. */
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** [from, to) for runs of numbers that follow each other. */
function ranges(numbers: readonly number[]): [number, number][] {
  const runs: [number, number][] = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last?.[1] === number) last[1] = number + 1;
    else runs.push([number, number + 1]);
  }
  return runs;
}
