/**
 * A model folder that is written over several attempts: what was written and flushed is recorded in a journal beside
 * it, and the next attempt of the same work goes on from there. A chunk that the journal does not name is written
 * again; writing it again gives the same bytes.
 *
 * `.NAME.unfinished/folder` becomes NAME by a rename; `.NAME.unfinished/journal.jsonl` begins with what is being made,
 * so that nothing of another recipe or another source is ever taken for this one.
 */
import { mkdir, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { inputError } from "../../base/errors.js";
import {
  exists,
  journalName,
  stageForAttempts,
  syncDirectory,
  writeFileSynced,
  type AttemptedDirectory,
} from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openJsonl, readJsonl, type JsonlWriter } from "../io/jsonl.js";
import { removeModelFolder, type Overwrite } from "../io/model-folder.js";
import type { PlannedFile } from "./plan-files.js";
import { createWeightFiles } from "./weight-files.js";

/** What a folder is made of: equal identities give equal bytes. */
export interface Identity {
  /** In words for people, such as the recipe's name; compared like the rest. */
  readonly name: string;
  /** Hash of everything else that was asked for. */
  readonly request: string;
  /** What each source file looked like, by its path. */
  readonly sources: Readonly<Record<string, string>>;
}

export interface Attempt {
  /** The folder being made. */
  readonly path: string;
  /** Indices of chunks that are on disk. */
  readonly done: ReadonlySet<number>;
  /** Set where an unfinished folder of other work was removed. */
  readonly replaced: string | null;
  /** An earlier attempt had finished but for tidying up, which has been done: nothing is left to do. */
  readonly finished: boolean;
  /** Remembers chunks that have been flushed to disk. */
  record(chunks: readonly number[]): Promise<void>;
  commit(): Promise<void>;
  /** Leaves everything for the next attempt. */
  leave(): Promise<void>;
  discard(): Promise<void>;
}

export interface AttemptOptions {
  readonly overwrite?: Overwrite | undefined;
  readonly identity: Identity;
  readonly files: readonly PlannedFile[];
}

type Entry =
  | { readonly begun: Identity }
  | { readonly done: readonly (readonly [number, number])[] }
  | { readonly committing: true };

/**
 * Begins or goes on. Throws inputError if `dir` is taken, another process is at work there, or a source is not what it
 * was when the work began.
 */
export async function openAttempt(dir: string, { overwrite, identity, files }: AttemptOptions): Promise<Attempt> {
  const stage = await stageForAttempts(dir, { overwrite });
  try {
    const journal = join(stage.room, journalName);
    const entries = await readEntries(journal);
    const begun = entries.length > 0 && "begun" in entries[0]! ? entries[0].begun : null;
    const same = begun?.request === identity.request && begun.name === identity.name;
    if (same) requireSameSources(begun, identity, stage.room);
    if (
      same &&
      entries.some((entry) => "committing" in entry) &&
      !(await exists(stage.path)) &&
      (await exists(join(dir, "config.json")))
    ) {
      await stage.discard();
      return { ...attemptOf(stage, null, new Set(), null), finished: true };
    }
    await stage.requireFree();
    const usable = same && (await holdsFiles(stage.path, files));
    if (!usable) await begin(stage, journal, identity, files);
    const done = new Set(
      usable
        ? entries.flatMap((entry) => ("done" in entry ? entry.done.flatMap(([from, to]) => range(from, to)) : []))
        : [],
    );
    return attemptOf(stage, await openJsonl(journal), done, begun !== null && !same ? begun.name : null);
  } catch (cause) {
    await stage.release();
    throw cause;
  }
}

function attemptOf(
  stage: AttemptedDirectory,
  journal: JsonlWriter | null,
  done: ReadonlySet<number>,
  replaced: string | null,
): Attempt {
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

/** A journal that cannot be read is none: the work starts over. */
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

async function holdsFiles(folder: string, files: readonly PlannedFile[]): Promise<boolean> {
  for (const { file, header } of files) {
    const info = await stat(join(folder, file)).catch(() => null);
    if (info?.size !== header.fileBytes) return false;
  }
  return true;
}

/**
 * Whatever lies there is removed, its journal first. The new journal appears when all files have their sizes and
 * headers on disk.
 */
async function begin(
  { room, path }: AttemptedDirectory,
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
