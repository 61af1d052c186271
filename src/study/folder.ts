/** The folder of a study: which study it holds, and what of it is there. Runs lie in the store under their keys. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { lockNames } from "../files/io/lock.js";
import { readJson } from "../files/io/ranges.js";
import { requireFreeSpace } from "../files/io/space.js";
import { commandFile } from "../files/io/command-file.js";
import { requireUnclaimed } from "../train/fresh.js";
import { requireSameSources, sourcesOf } from "../train/sources.js";
import type { Sources } from "../train/types.js";
import { contentKey } from "./keys.js";
import { reportFiles } from "./report.js";
import type { StudyOptions, StudyRequest } from "./types.js";

/** `study.json`. */
export interface StudyRecord {
  readonly version: 2;
  readonly config: StudyRequest;
  readonly threads: number;
  readonly startedAt: string;
  /** Seconds of earlier commands on this folder, save those that were killed. */
  readonly seconds: number;
  /** Fingerprints of the files that the study is made from. */
  readonly sources: Sources;
  /** What `result.json` was made of; another file has other runs, so that the result is made anew. */
  readonly finished?: string | undefined;
}

const recordFile = "study.json";

/** Name of a study's result in its folder. */
export const resultFile = "result.json";

/** What a result depends on: the runs by their keys, and the words of the file. */
export const resultKey = ({ config }: StudyOptions, runs: readonly { readonly key: string }[]): string =>
  contentKey({ config, runs: runs.map(({ key }) => key) });

/** Threads that the study in a folder was begun with; null where there is none. Throws inputError for another file. */
export async function recordedThreads(dir: string): Promise<number | null> {
  const path = join(dir, recordFile);
  return (await exists(path)) ? (await readRecord(path)).threads : null;
}

/**
 * Throws inputError for a folder that holds something else than a study of this name, whose settings may be others,
 * since runs are told apart by what they are, and for models and texts that were changed in place. Writes nothing.
 */
export async function requireStudyFolder(options: StudyOptions): Promise<void> {
  await begunStudy(options);
}

/** Creates or updates the folder's record. Throws inputError like `requireStudyFolder`. */
export async function claimStudyFolder(options: StudyOptions): Promise<StudyRecord> {
  const { config, dir, store = dir, threads } = options;
  const path = join(dir, recordFile);
  const { begun, sources } = await begunStudy(options);
  const request = JSON.parse(JSON.stringify(config)) as StudyRequest;
  if (begun !== null) return writeRecord(path, { ...begun, config: request, threads, sources });
  await requireFreeSpace(store, 64 * 1024 ** 2);
  const startedAt = new Date().toISOString();
  return writeRecord(path, { version: 2, config: request, threads, startedAt, seconds: 0, sources });
}

/** The record of the study in the folder, null for a free one, and what the study is made from now. */
async function begunStudy({
  config,
  dir,
  signal,
}: StudyOptions): Promise<{ readonly begun: StudyRecord | null; readonly sources: Sources }> {
  const sources = await studySources(config, signal);
  const begun = await existingRecord(dir, join(dir, recordFile));
  if (begun === null) return { begun, sources };
  if (begun.config.name !== config.name) {
    throw inputError(`this folder holds the study ${begun.config.name}, not ${config.name}`, {
      where: dir,
      hint: "choose another --out; --store lets several studies share their runs",
    });
  }
  requireUnchanged(begun.sources, sources);
  return { begun, sources };
}

/** Fingerprints of all parents that are given and of the text, by path. */
async function studySources(config: StudyRequest, signal: AbortSignal | undefined): Promise<Sources> {
  const given = [config.parent, ...Object.values(config.parents ?? {}).map((entry) => entry.path)];
  let sources: Sources = await sourcesOf({ model: null, text: config.text, signal });
  for (const model of given) {
    if (model === undefined) continue;
    sources = { ...sources, ...(await sourcesOf({ model, text: { ...config.text, files: undefined }, signal })) };
  }
  return sources;
}

/** A file that is new or no longer used is a setting; one whose content changed under its name was an accident. */
function requireUnchanged(was: Sources, is: Sources): void {
  const both = (sources: Sources): Sources =>
    Object.fromEntries(Object.entries(sources).filter(([path]) => was[path] !== undefined && is[path] !== undefined));
  requireSameSources(both(was), both(is), "study");
}

/**
 * The record of the study that this folder holds; null where the folder is free. A study that was refused before it
 * made anything, for a mistyped path for example, may be corrected, so its record does not count. Throws inputError for
 * a folder that holds something else.
 */
async function existingRecord(dir: string, path: string): Promise<StudyRecord | null> {
  if (!(await exists(path))) {
    await requireUnclaimed(dir, ["parents", "starts", "arms", resultFile, ...reportFiles], "study.json of a study");
    return null;
  }
  const record = await readRecord(path);
  const hasBegun = (await readdir(dir)).some((name) => ![recordFile, commandFile, ...lockNames].includes(name));
  return hasBegun ? record : null;
}

async function writeRecord(path: string, record: StudyRecord): Promise<StudyRecord> {
  await writeJson(path, record);
  return record;
}

/** Notes the time that a study has taken, and what its result was made of. */
export const updateRecord = (dir: string, record: StudyRecord): Promise<StudyRecord> =>
  writeRecord(join(dir, recordFile), record);

/** Throws inputError for a file of this name that no study has written, and for a study of an earlier version. */
async function readRecord(path: string): Promise<StudyRecord> {
  const data = (await readJson(path)) as Partial<Omit<StudyRecord, "version">> & { readonly version?: number };
  const isStudy = typeof data?.config === "object" && typeof data.startedAt === "string";
  if (isStudy && data.version === 2 && typeof data.seconds === "number" && typeof data.threads === "number")
    return data as StudyRecord;
  if (isStudy && data.version === undefined)
    throw inputError("this study was begun by an earlier version, which kept its runs in another way", {
      where: path,
      hint: "choose another --out; upcycle fit and upcycle runs still read the folder",
    });
  throw inputError("this is not the record of a study", {
    where: path,
    hint: "choose another --out, or move the file away",
  });
}
