/**
 * A study in pieces: a piece is one whole training, of a parent or of an arm with a seed. Pieces may be trained by
 * commands of their own, and what a finished one has found is read from its record and its log, without weights.
 */
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { entryOf } from "../base/at.js";
import { inputError, stopError } from "../base/errors.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import { completeFolder, exists } from "../files/io/atomic.js";
import { unlessGone } from "../files/io/model-folder.js";
import { readRunRecord } from "../train/claim.js";
import { endOf, metricsFile, readMetrics, type RunMetrics } from "../train/records.js";
import { savedProgress } from "../train/saved.js";
import type { PlannedParent, PlannedRun, StudyPlan } from "./plan.js";

/** How a run of an arm is called in `--only`. */
const pieceName = ({ arm, seed }: Pick<PlannedRun, "arm" | "seed">): string => `${arm.id}/${seed}`;

/** The pieces that a command trains, by their keys. */
interface Pieces {
  readonly parents: ReadonlySet<string>;
  readonly runs: ReadonlySet<string>;
}

/**
 * The pieces that names stand for: an arm with all seeds, `ARM/SEED`, or a parent; all pieces without names. Throws
 * inputError for a name that is none of them.
 */
function piecesOf({ parents, runs }: StudyPlan, only: readonly string[] | undefined): Pieces {
  const keysOf = (some: readonly { readonly key: string }[]): Set<string> => new Set(some.map(({ key }) => key));
  if (only === undefined) return { parents: keysOf(parents), runs: keysOf(runs) };
  const [chosenParents, chosenRuns]: [PlannedParent[], PlannedRun[]] = [[], []];
  for (const name of only) {
    const named = runs.filter((run) => [run.arm.arm, run.arm.id, pieceName(run)].includes(name));
    const trained = parents.filter(({ parent, path }) => parent.id === name && path !== null);
    if (named.length + trained.length === 0) {
      const arms = [...new Set(runs.map(({ arm }) => arm.arm))];
      const seeds = [...new Set(runs.map(({ seed }) => seed))];
      // An arm's name stands for it behind all parents.
      const forms = parents.length > 1 ? "ARM, ARM@PARENT, ARM@PARENT/SEED" : "ARM, ARM/SEED";
      throw inputError(`"${name}" is no training of this study`, {
        where: "--only",
        hint:
          `write ${forms} or the name of a parent that is trained: ` +
          `arms ${arms.join(", ")}; seeds ${seeds.join(", ")}`,
      });
    }
    if (named.length > 0) chosenRuns.push(...named);
    else chosenParents.push(...trained);
  }
  return { parents: keysOf(chosenParents), runs: keysOf(chosenRuns) };
}

/** Whether a run's folder holds the weights of its last checkpoint. */
export async function hasWeights(dir: string): Promise<boolean> {
  const last = join(dir, "last");
  if ((await savedProgress(last)) === null) return false;
  // None where the folder has just been replaced or removed.
  const names = (await unlessGone(readdir(await completeFolder(last)))) ?? [];
  return names.some((name) => name.startsWith("model") && name.endsWith(".safetensors"));
}

/** Whether the log of a run says that it has come to the end of its schedule. */
export async function isFinished(dir: string, training: Pick<TrainingBlock, "steps">): Promise<boolean> {
  if (!(await exists(join(dir, metricsFile))) || (await readRunRecord(dir)) === null) return false;
  return (await endOf(dir))?.step === training.steps;
}

/** A run whose weights a piece needs, and which may have to be trained again for them. */
export interface Weights {
  /** Folder of the record, within the store. */
  readonly recorded: string;
  /** Folder of the run that has the weights, within the store. */
  readonly path: string;
}

/** Where a finished run without weights is trained again; what is recorded of it stays as it is. */
const againFolder = (path: string): string => join("again", basename(path));

/** The folder of a run that is needed with its weights: its own, or a second one where it is finished without them. */
async function folderWithWeights(
  store: string,
  path: string,
  training: Pick<TrainingBlock, "steps">,
): Promise<Weights> {
  const dir = join(store, path);
  const isGone = !(await hasWeights(dir)) && (await isFinished(dir, training));
  return { recorded: path, path: isGone ? againFolder(path) : path };
}

/** The first number in which a training that was made again differs from its record, in words; null if none does. */
function differenceOf(recorded: RunMetrics, again: RunMetrics): string | null {
  for (const kind of ["steps", "evals"] as const) {
    const losses = new Map(again[kind].map(({ step, loss }) => [step, loss]));
    for (const { step, loss } of recorded[kind]) {
      const other = losses.get(step);
      const what = kind === "steps" ? "loss of step" : "held-out loss after step";
      if (other !== loss) return `the ${what} ${step} was ${loss}, and is ${other ?? "not there"}`;
    }
  }
  return null;
}

/**
 * Throws stopError where a run that was trained again has not the losses that are recorded, to the last bit: runs that
 * start from its weights would not belong to those that are there.
 */
export async function requireSameLosses(store: string, { recorded, path }: Weights): Promise<void> {
  if (recorded === path) return;
  const difference = differenceOf(await readMetrics(join(store, recorded)), await readMetrics(join(store, path)));
  if (difference === null) return;
  throw stopError(`trained again for its weights, this run is another one: ${difference}`, {
    where: join(store, path),
    hint:
      "train all pieces on devices and versions that compute alike, on a GPU with the same choices/ of UPCYCLE_CACHE " +
      "or UPCYCLE_CUDA_TUNE=off, or begin the study anew in another --store",
  });
}

/** What a command trains, and what it finds. */
export interface Work {
  /** Parents and runs that are trained or found, by their keys; others are no part of the result. */
  readonly parents: ReadonlySet<string>;
  readonly runs: ReadonlySet<string>;
  /** Where runs lie that are there as a record without weights, and need none, by their keys. */
  readonly recorded: ReadonlyMap<string, string>;
  /** Runs whose weights are needed, by their keys. */
  readonly weights: ReadonlyMap<string, Weights>;
  /** Whether the result is that of the whole study. */
  readonly isWhole: boolean;
}

/**
 * What a command does: it trains the chosen pieces, the parents that they are compared with, and what their first
 * weights come from; it finds all that is finished.
 */
export async function workOf(plan: StudyPlan, { store, located, only }: WorkOptions): Promise<Work> {
  const chosen = piecesOf(plan, only);
  const [parents, runs] = [new Set(chosen.parents), new Set<string>()];
  // A parent that is asked for by name is asked for with its weights.
  const needed = new Set(only === undefined ? [] : chosen.parents);
  const parentKeys = new Map(plan.parents.map(({ parent, key }) => [parent.id, key]));
  const folderOf = ({ key, path }: { readonly key: string; readonly path: string }): string => located.get(key) ?? path;
  const isThere = (run: PlannedRun): Promise<boolean> => isFinished(join(store, folderOf(run)), run.arm.training);
  const need = (run: PlannedRun): void => {
    const parent = entryOf(parentKeys, run.arm.parent);
    runs.add(run.key);
    parents.add(parent);
    if (run.arm.kind !== "scratch") needed.add(parent);
    if (run.start?.kind !== "multiplied") return;
    needed.add(run.start.of.key);
    need(run.start.of);
  };
  for (const run of plan.runs) {
    if (await isThere(run)) runs.add(run.key);
    else if (chosen.runs.has(run.key)) need(run);
  }
  const recorded = new Map<string, string>();
  const weights = new Map<string, Weights>();
  const look = async (key: string, path: string, training: TrainingBlock): Promise<boolean> => {
    const isRecorded = await isFinished(join(store, path), training);
    if (needed.has(key)) weights.set(key, await folderWithWeights(store, path, training));
    else if (isRecorded && !(await hasWeights(join(store, path)))) recorded.set(key, path);
    return isRecorded;
  };
  for (const { parent, key, path } of plan.parents) {
    if (parent.kind === "given" || path === null) parents.add(key);
    else if (await look(key, folderOf({ key, path }), parent.pretrain)) parents.add(key);
  }
  for (const run of plan.runs) if (runs.has(run.key)) await look(run.key, folderOf(run), run.arm.training);
  // A run counts with its parent alone, which it is compared with.
  const compared = plan.runs.filter(({ key, arm }) => runs.has(key) && parents.has(entryOf(parentKeys, arm.parent)));
  const isWhole = compared.length === plan.runs.length && parents.size === plan.parents.length;
  return { parents, runs: new Set(compared.map(({ key }) => key)), recorded, weights, isWhole };
}

/** What `workOf` goes by: where runs lie, and the names of the pieces that a command is to train. */
export interface WorkOptions {
  readonly store: string;
  readonly located: ReadonlyMap<string, string>;
  readonly only: readonly string[] | undefined;
}
