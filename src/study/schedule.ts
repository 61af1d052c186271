/** What a study still has to do: every training with its cost, whether it is there, and what the disk needs. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { TrainingBlock } from "../base/schemas/index.js";
import { exists } from "../files/io/atomic.js";
import { requireFreeSpace } from "../files/io/space.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { countParams } from "../model/cost/params.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { readMetrics, tokensPerSecond } from "../train/records.js";
import { savedProgress } from "../train/saved.js";
import { tokensPerStep } from "../train/loop.js";
import { isFinished, workOf, type Work } from "./pieces.js";
import { tokensOf, type PlannedRun, type StudyPlan } from "./plan.js";
import { guessedSeconds } from "./time-left.js";
import type { StudyOptions } from "./types.js";

/** One training of a study. */
export interface ScheduledRun {
  readonly name: string;
  /** Its folder within the store, where it lies or will lie. */
  readonly path: string;
  readonly steps: number;
  /** Steps whose numbers are saved; all of a run that is there without weights, which it does not need. */
  readonly doneSteps: number;
  readonly tokens: number;
  readonly flops: number;
  /** Bytes on disk once it is finished. */
  readonly bytes: number;
  /** FLOP/s that a finished run has had; null where it is not known. */
  readonly speed: number | null;
}

/** The trainings of a study that a command makes or finds, parents first. */
export interface StudySchedule {
  readonly runs: readonly ScheduledRun[];
  readonly work: Work;
  /** Bytes that the disk has to have free. */
  readonly bytes: number;
  /** FLOPs still to do, and about how many seconds they take. */
  readonly flops: number;
  readonly seconds: number;
}

/** The folders of a plan's runs: by key, so that a run whose arm has another name by now is found. */
export async function locateRuns(plan: StudyPlan, store: string): Promise<ReadonlyMap<string, string>> {
  const present = new Map<string, string[]>();
  const arms = (await foldersIn(join(store, "arms"))).map((name) => join("arms", name));
  for (const folder of ["parents", ...arms]) {
    for (const name of await foldersIn(join(store, folder))) {
      const key = name.slice(name.lastIndexOf("-") + 1);
      present.set(key, [...(present.get(key) ?? []), join(folder, name)]);
    }
  }
  const located = new Map<string, string>();
  for (const { key, path } of [...plan.parents, ...plan.runs]) {
    const found = present.get(key) ?? [];
    if (path !== null && !located.has(key)) located.set(key, found.includes(path) ? path : (found[0] ?? path));
  }
  return located;
}

async function foldersIn(folder: string): Promise<string[]> {
  if (!(await exists(folder))) return [];
  const entries = await readdir(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** The schedule of a plan, with what the store holds already. */
export async function scheduleOf(
  { threads, jobs = 1, dir, store = dir, only }: Pick<StudyOptions, "threads" | "jobs" | "dir" | "store" | "only">,
  plan: StudyPlan,
  located: ReadonlyMap<string, string>,
): Promise<StudySchedule> {
  const runs: ScheduledRun[] = [];
  const work = await workOf(plan, { store, located, only });
  const placeOf = (key: string, path: string): string => work.weights.get(key)?.path ?? located.get(key) ?? path;
  for (const { parent, key, path, spec } of plan.parents) {
    if (parent.kind === "given" || path === null || !work.parents.has(key)) continue;
    const { pretrain } = parent;
    const flopsPerToken = trainFlopsPerToken(spec, pretrain.sequence);
    const place = placeOf(key, path);
    runs.push(await scheduled(store, { name: `parent ${parent.id}`, path: place, spec, flopsPerToken }, pretrain));
  }
  for (const { run, isFirst } of distinct(plan.runs)) {
    if (!isFirst || !work.runs.has(run.key)) continue;
    const { arm, key, path } = run;
    const name = runName(run);
    const place = placeOf(key, path);
    const { spec, flopsPerToken, training } = arm;
    runs.push(await scheduled(store, { name, path: place, spec, flopsPerToken }, training));
  }
  const made = plan.runs.filter(({ key }) => work.runs.has(key) && !work.recorded.has(key));
  const starts = new Map(made.flatMap(({ start, arm }) => (start === null ? [] : [[start.path, arm.spec]])));
  let bytes = 0;
  for (const [path, spec] of starts) if (!(await exists(join(store, path)))) bytes += weightBytes(spec);
  // One more checkpoint of each run in hand is on disk while it replaces the last.
  const largest = Math.max(0, ...made.map(({ arm }) => weightBytes(arm.spec)));
  bytes += 3 * jobs * largest + sum(runs.filter(({ doneSteps }) => doneSteps === 0).map((run) => run.bytes));
  const flops = sum(runs.map((run) => (run.flops * (run.steps - run.doneSteps)) / run.steps));
  const open = runs.filter(({ doneSteps, steps }) => doneSteps < steps).length;
  const seconds = (secondsFor(flops, runs, threads) + open * secondsBetween) / jobs;
  return { runs, work, bytes, flops, seconds: open === 0 ? 0 : seconds };
}

/** What opening, measuring and saving take for a run besides its steps, as seconds of a small model. */
const secondsBetween = 2;

/** Runs in their order; of several that are the same training, only the first is one. */
export function distinct(runs: readonly PlannedRun[]): { readonly run: PlannedRun; readonly isFirst: boolean }[] {
  const seen = new Set<string>();
  return runs.map((run) => {
    const isFirst = !seen.has(run.key);
    seen.add(run.key);
    return { run, isFirst };
  });
}

/** How a run is called in progress and schedules. */
export const runName = ({ arm, seed }: Pick<PlannedRun, "arm" | "seed">): string => `${arm.label}, seed ${seed}`;

interface RunCost {
  readonly name: string;
  readonly path: string;
  readonly spec: DecoderSpec;
  readonly flopsPerToken: number;
}

async function scheduled(
  store: string,
  { name, path, spec, flopsPerToken }: RunCost,
  training: TrainingBlock,
): Promise<ScheduledRun> {
  const dir = join(store, path);
  const saved = Math.min(training.steps, (await savedProgress(join(dir, "last")))?.step ?? 0);
  const doneSteps = saved < training.steps && (await isFinished(dir, training)) ? training.steps : saved;
  const tokens = tokensOf(training);
  // `last` has weights and two moments, `best` weights.
  const bytes = 4 * weightBytes(spec);
  const speed = doneSteps === 0 ? null : tokensPerSecond((await readMetrics(dir)).steps, tokensPerStep(training));
  return {
    name,
    path,
    steps: training.steps,
    doneSteps,
    tokens,
    flops: tokens * flopsPerToken,
    bytes,
    speed: speed === null || speed === 0 ? null : speed * flopsPerToken,
  };
}

const weightBytes = (spec: DecoderSpec): number => 4 * countParams(spec).total;
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Seconds for FLOPs by the speed that runs of this study have had, else by that of usual processors. */
function secondsFor(flops: number, runs: readonly ScheduledRun[], threads: number): number {
  const speeds = runs.flatMap(({ speed }) => (speed === null ? [] : [speed]));
  if (speeds.length === 0) return guessedSeconds(flops, threads);
  return (flops * sum(speeds.map((speed) => 1 / speed))) / speeds.length;
}

/** Throws stopError where the disk has too little room for what is still to be written. */
export async function requireSpace(store: string, { bytes }: StudySchedule): Promise<void> {
  await requireFreeSpace(store, bytes);
}
