/** The run folder of a study: which study it holds, whether the disk has room, where each part lies. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import { countParams } from "../model/cost/params.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { readJson } from "../files/io/ranges.js";
import { requireFreeSpace } from "../files/io/space.js";
import { changeWords, changesBetween, type Change } from "../train/changes.js";
import { requireSamePast } from "../train/claim.js";
import { savedProgress } from "../train/saved.js";
import { requireSameSources, sourcesOf } from "../train/sources.js";
import type { Sources } from "../train/types.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { requireUnclaimed } from "../train/fresh.js";
import type { TrainingData } from "../train/training-data.js";
import type { PlannedArm } from "./plan.js";
import type { StudyOptions, StudyRequest } from "./types.js";

/** `study.json`. */
interface StudyRecord {
  readonly config: StudyRequest;
  readonly startedAt: string;
  /** Seconds of earlier commands on this folder, save those that were killed. */
  readonly seconds: number;
  /** Fingerprints of the files that the study is made from; absent in old records. */
  readonly sources?: Sources;
  /** `result.json` holds what this study found. */
  readonly finished?: boolean;
}

/**
 * Creates the folder with the resolved config, or checks that it holds this very study. The study's trainings may have
 * become longer, as long as everything done so far would have been the same. Throws inputError that names what differs.
 */
export async function claimStudyFolder({ config, dir, threads, signal }: StudyOptions): Promise<StudyRecord> {
  const path = join(dir, "study.json");
  const request = JSON.parse(JSON.stringify({ ...config, threads })) as StudyRequest;
  const sources = await sourcesOf({ model: config.parent ?? null, text: config.text, signal });
  const record = await existingRecord(dir, path);
  if (record === null) {
    await requireFreeSpace(dir, 64 * 1024 ** 2);
    return writeRecord(path, { config: request, startedAt: new Date().toISOString(), seconds: 0, sources });
  }
  const changes = changesBetween(asData(record.config), asData(request));
  requireSameStudy(dir, changes);
  if (changes.length > 0) await requireSamePasts(dir, record.config, request, changes);
  requireSameSources(record.sources, sources, "study");
  if (changes.length === 0 && record.sources !== undefined) return record;
  return writeRecord(path, {
    ...record,
    config: request,
    sources,
    ...(changes.length === 0 ? {} : { finished: false }),
  });
}

/**
 * The record of the study that this folder holds; null where the folder is free. A study that was refused before it
 * made anything, for a mistyped path for example, may be corrected, so its record does not count. Throws inputError for
 * a folder that holds something else.
 */
async function existingRecord(dir: string, path: string): Promise<StudyRecord | null> {
  if (!(await exists(path))) {
    await requireUnclaimed(dir, ["tokenizer", "parent", "arms", "result.json", "report.html"], "study.json of a study");
    return null;
  }
  const record = await readRecord(path);
  const hasBegun = (await readdir(dir)).some((name) => name !== "study.json" && name !== ".lock");
  return hasBegun ? record : null;
}

/** Throws inputError unless all changes are about the length of trainings. */
function requireSameStudy(dir: string, changes: readonly Change[]): void {
  const others = changes.filter(({ key }) => !isLength(key));
  if (others.length === 0) return;
  throw inputError(`this folder holds another study: ${changeWords(others)}`, {
    where: dir,
    hint: "put it back to go on, choose another --out, or remove the folder to start again",
  });
}

async function writeRecord(path: string, record: StudyRecord): Promise<StudyRecord> {
  await writeJson(path, record);
  return record;
}

/** Throws inputError for a file of this name that no study has written. */
async function readRecord(path: string): Promise<StudyRecord> {
  const data = (await readJson(path)) as Partial<StudyRecord> | null;
  if (
    typeof data?.config === "object" &&
    data.config !== null &&
    typeof data.startedAt === "string" &&
    typeof data.seconds === "number"
  )
    return data as StudyRecord;
  throw inputError("this is not the record of a study", {
    where: path,
    hint: "choose another --out, or move the file away",
  });
}

const asData = (config: StudyRequest): Readonly<Record<string, unknown>> =>
  config as unknown as Readonly<Record<string, unknown>>;

/** Whether a key says how long a training is or how its learning rate goes, so that it may change if the past stays. */
const isLength = (key: string): boolean => /^(pretrain|continue)\.(steps|saveEvery|lr\..*)$/.test(key);

/** Throws inputError unless every training that has begun can be resumed. */
async function requireSamePasts(
  dir: string,
  before: StudyRequest,
  now: StudyRequest,
  changes: readonly Change[],
): Promise<void> {
  const stepsOf = async (run: string): Promise<number> => (await savedProgress(join(dir, run, "last")))?.step ?? 0;
  const check = (key: "pretrain" | "continue", run: string, done: number): void =>
    requireSamePast(before[key] as TrainingBlock, now[key] as TrainingBlock, { done, key, where: join(dir, run) });
  const longer = changes.filter(({ key }) => /^pretrain\.(steps|lr)/.test(key));
  if (longer.length > 0 && (await exists(join(dir, "arms")))) {
    throw inputError(`the arms have begun with the parent as it was: ${changeWords(longer)}`, {
      where: dir,
      hint: "put it back to go on, or choose another --out",
    });
  }
  if (longer.length > 0) check("pretrain", "parent", await stepsOf("parent"));
  for (const id of Object.keys(now.arms)) {
    for (const seed of now.seeds) check("continue", armPath(id, seed), await stepsOf(armPath(id, seed)));
  }
}

/**
 * Throws stopError where the disk has too little room for what is still to be written. Every run keeps its last
 * checkpoint with two moments and its best one; an upcycled arm also its start. One more checkpoint is on disk while it
 * replaces the last. Runs that have a checkpoint already have taken most of their space.
 */
export async function requireSpace(
  { config, dir }: StudyOptions,
  data: TrainingData,
  arms: readonly PlannedArm[],
): Promise<void> {
  const weights = (spec: DecoderSpec): number => 4 * countParams(spec).total;
  const runs = [
    ...(config.parent === undefined ? [{ path: "parent", bytes: 4 * weights(data.spec) }] : []),
    ...arms.flatMap((arm) =>
      config.seeds.map((seed) => ({
        path: armPath(arm.id, seed),
        bytes: (arm.recipe === null ? 4 : 5) * weights(arm.spec),
      })),
    ),
  ];
  let total = 3 * Math.max(...arms.map(({ spec }) => weights(spec)));
  for (const { path, bytes } of runs) if (!(await exists(join(dir, path, "last")))) total += bytes;
  await requireFreeSpace(dir, total);
}

/** Name of a study's result in its folder. */
export const resultFile = "result.json";

/** Whether all parts of a finished study are still there: a part that somebody has removed is made again. */
export async function isStudyComplete({ config, dir }: StudyOptions): Promise<boolean> {
  const runs = Object.keys(config.arms).flatMap((id) => config.seeds.map((seed) => armPath(id, seed)));
  const paths = [
    resultFile,
    ...[...(config.parent === undefined ? ["parent"] : []), ...runs].map((run) => join(run, "last")),
  ];
  return (await Promise.all(paths.map((path) => exists(join(dir, path))))).every(Boolean);
}

/** Folder of an arm's run within the study's folder. */
export const armPath = (id: string, seed: number): string => join("arms", id, `seed-${seed}`);
