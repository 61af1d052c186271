/** The run folder of a study: whose it is, whether there is room, where each part lies. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { countParams } from "../cost/params.js";
import { exists, writeJson } from "../io/atomic.js";
import { readJson } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import type { DecoderSpec } from "../spec/types.js";
import { requireUnclaimed } from "../train/fresh.js";
import type { Ground } from "../train/ground.js";
import type { PlannedArm } from "./plan.js";
import type { StudyOptions, StudyRequest } from "./types.js";

export interface StudyRecord {
  readonly config: StudyRequest;
  readonly startedAt: string;
  /** Of earlier commands on this folder, save those that were killed. */
  readonly seconds: number;
}

/** Creates the folder with the resolved config, or checks that it holds this very study. */
export async function claimFolder({ config, dir, threads }: StudyOptions): Promise<StudyRecord> {
  const path = join(dir, "study.json");
  const resolved = JSON.parse(JSON.stringify({ ...config, threads })) as StudyRequest;
  if (await exists(path)) {
    const found = await readRecord(path);
    const keys = [...new Set([...Object.keys(found.config), ...Object.keys(resolved)])] as (keyof StudyRequest)[];
    const other = keys.find((key) => JSON.stringify(found.config[key]) !== JSON.stringify(resolved[key]));
    // A study that was refused before it made anything, for a mistyped path say, may be corrected.
    if (other !== undefined && (await readdir(dir)).some((name) => name !== "study.json" && name !== ".lock")) {
      throw inputError(`this folder holds a study with another "${other}"`, { where: dir, hint: "choose another --out, or remove the folder to start again" });
    }
    if (other === undefined) return found;
  } else await requireUnclaimed(dir, ["tokenizer", "parent", "arms", "result.json", "report.html"], "study.json of a study");
  const record: StudyRecord = { config: resolved, startedAt: new Date().toISOString(), seconds: 0 };
  await requireFreeSpace(dir, 64 * 1024 ** 2);
  await writeJson(path, record);
  return record;
}

/** Throws inputError for a file of this name that is not ours. */
async function readRecord(path: string): Promise<StudyRecord> {
  const found = (await readJson(path)) as Partial<StudyRecord> | null;
  if (typeof found?.config === "object" && found.config !== null && typeof found.startedAt === "string" && typeof found.seconds === "number") return found as StudyRecord;
  throw inputError("this is not the record of a study", { where: path, hint: "choose another --out, or move the file away" });
}

/**
 * Every run keeps its last checkpoint with two moments and its best one; an upcycled arm also its start. One more checkpoint is on
 * disk while it replaces the last. Runs that have a checkpoint already have taken most of their space.
 */
export async function requireSpace({ config, dir }: StudyOptions, ground: Ground, arms: readonly PlannedArm[]): Promise<void> {
  const weights = (spec: DecoderSpec): number => 4 * countParams(spec).total;
  const runs = [
    ...(config.parent === undefined ? [{ path: "parent", bytes: 4 * weights(ground.spec) }] : []),
    ...arms.flatMap((arm) => config.seeds.map((seed) => ({ path: armPath(arm.id, seed), bytes: (arm.recipe === null ? 4 : 5) * weights(arm.spec) }))),
  ];
  let needed = 3 * Math.max(...arms.map(({ spec }) => weights(spec)));
  for (const { path, bytes } of runs) if (!(await exists(join(dir, path, "last")))) needed += bytes;
  await requireFreeSpace(dir, needed);
}

export const armPath = (id: string, seed: number): string => join("arms", id, `seed-${seed}`);
