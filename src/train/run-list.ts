/** Runs below a folder: what each is, how far it is, what it has measured, and how much room its models take. */
import type { Dirent } from "node:fs";
import { readdir, rmdir, stat, unlink } from "node:fs/promises";
import { join, relative } from "node:path";
import { inputError } from "../base/errors.js";
import { exists } from "../files/io/atomic.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { BusyFolderError, isFolderLocked, lockFolder, lockName } from "../files/io/lock.js";
import { entryAt, removeModelFolder, unlessGone } from "../files/io/model-folder.js";
import { countParams } from "../model/cost/params.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { commandFile } from "../files/io/command-file.js";
import { changesBetween } from "./changes.js";
import { readRunRecord, runFile, type RunRecord } from "./claim.js";
import { exportedFiles } from "./exported-logs.js";
import { metricsFile, preservationFile, readMetrics, tokensPerSecond } from "./records.js";
import { tokensPerStep } from "./loop.js";

/** A run as lists show it. */
export interface ListedRun {
  /** Its folder as a path. */
  readonly path: string;
  /** Its folder below the one that was searched. */
  readonly name: string;
  /** Everything that decides its numbers, as its record says. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly kind: "dense" | "moe";
  readonly params: number;
  readonly activeParams: number;
  /** Steps that its log has, and those that it is to have. */
  readonly step: number;
  readonly steps: number;
  readonly state: "finished" | "running" | "stopped";
  readonly tokens: number;
  /** Last and lowest held-out loss; null before the first measurement. */
  readonly loss: number | null;
  readonly bestLoss: number | null;
  readonly tokensPerSecond: number;
  /** Bytes of its checkpoints. */
  readonly bytes: number;
}

/** Folders inside each other that are searched. */
const deepest = 6;
/** Folders of a run that hold models. */
const modelFolders = ["last", "best", "average"] as const;

/** All runs at and below a folder, in the order of their paths. Throws inputError where there is none. */
export async function listRuns(root: string): Promise<ListedRun[]> {
  const runs = await runsBelow(root, root, 0);
  if (runs.length > 0) return runs;
  throw inputError("no run in this folder", {
    where: root,
    hint: "expected folders with run.json and metrics.jsonl, as upcycle train and upcycle study write them",
  });
}

async function runsBelow(root: string, dir: string, depth: number): Promise<ListedRun[]> {
  if ((await exists(join(dir, runFile))) && (await exists(join(dir, metricsFile)))) return [await listedRun(root, dir)];
  if (depth === deepest) return [];
  const entries = await withFsErrors(dir, "read folder", () => readdir(dir, { withFileTypes: true }));
  const runs: ListedRun[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.isDirectory() && !entry.name.startsWith("."))
      runs.push(...(await runsBelow(root, join(dir, entry.name), depth + 1)));
  }
  return runs;
}

/** One run. Throws inputError for a folder that holds none, and for a record or log that is damaged. */
export async function listedRun(root: string, path: string): Promise<ListedRun> {
  const identity = await runIdentity(path);
  const metrics = await readMetrics(path);
  const last = metrics.steps.at(-1);
  const checkpoints = await checkpointsOf(path);
  return {
    path,
    name: relative(root, path) || path,
    config: identity.config,
    kind: identity.kind,
    params: identity.params,
    activeParams: identity.activeParams,
    step: last?.step ?? 0,
    steps: identity.steps,
    state: await stateOf(path, metrics.done !== null),
    tokens: last?.tokens ?? 0,
    loss: metrics.evals.at(-1)?.loss ?? null,
    bestLoss: metrics.evals.length === 0 ? null : Math.min(...metrics.evals.map(({ loss }) => loss)),
    tokensPerSecond: tokensPerSecond(metrics.steps, identity.tokensPerStep),
    bytes: checkpoints.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

/** What the record of a run says of it, before its log is read. */
export interface RunIdentity extends Pick<ListedRun, "config" | "kind" | "params" | "activeParams" | "steps"> {
  readonly spec: DecoderSpec;
  readonly tokensPerStep: number;
}

/** Reads the record of a run. Throws inputError for a folder without one, and for a record that is damaged. */
export async function runIdentity(path: string): Promise<RunIdentity> {
  const record = await readRunRecord(path);
  if (record === null)
    throw inputError("this is no run", { where: path, hint: "name a folder that holds a run.json, or list them" });
  return identityOf(record);
}

/** What a record that was read says of its run. */
export function identityOf(record: RunRecord): RunIdentity {
  const spec = record["spec"] as DecoderSpec;
  const { total, active } = countParams(spec);
  return {
    config: Object.fromEntries(Object.entries(record).filter(([key]) => key !== "sources")),
    kind: isMoe(spec) ? "moe" : "dense",
    params: total,
    activeParams: active,
    steps: record.training.steps,
    spec,
    tokensPerStep: tokensPerStep(record.training),
  };
}

/** How far a run is; `isDone`: its log says that it has ended. */
export async function stateOf(path: string, isDone: boolean): Promise<ListedRun["state"]> {
  if (await isFolderLocked(path)) return "running";
  return isDone ? "finished" : "stopped";
}

/** A checkpoint of a run: a model's folder, its bytes, and when it was written, in milliseconds since 1970. */
export interface RunCheckpoint {
  readonly name: (typeof modelFolders)[number];
  readonly bytes: number;
  readonly written: number;
}

/** How folders are looked at; null for what is not there. */
export interface FolderLook {
  entries(path: string): Dirent[] | null | Promise<Dirent[] | null>;
  /** The size of a file, and when it was written, in milliseconds since 1970. */
  state(path: string): FileState | null | Promise<FileState | null>;
}

interface FileState {
  readonly size: number;
  readonly changed: number;
}

const plainLook: FolderLook = {
  entries: (path) => unlessGone(readdir(path, { withFileTypes: true })),
  state: async (path) => {
    const info = await unlessGone(stat(path));
    return info && { size: info.size, changed: info.mtimeMs };
  },
};

/** The checkpoints in a run's folder; a training may be replacing one just now. */
export async function checkpointsOf(path: string, look = plainLook): Promise<RunCheckpoint[]> {
  const found: RunCheckpoint[] = [];
  for (const name of modelFolders) {
    const folder = join(path, name);
    const entries = await look.entries(folder);
    if (entries === null) continue;
    let [bytes, written] = [0, 0];
    for (const entry of entries) {
      const info = entry.isFile() ? await look.state(join(folder, entry.name)) : null;
      if (info === null) continue;
      bytes += info.size;
      written = Math.max(written, info.changed);
    }
    found.push({ name, bytes, written });
  }
  return found;
}

/** A condition on a run: a key of the list or of its config, a comparison, a value. */
export interface RunFilter {
  readonly key: string;
  readonly comparison: "=" | "!=" | "<" | ">" | "~";
  readonly value: string;
}

/** `kind=moe`, `loss<3.4`, `training.lr.peak=0.001`, `name~coarse`. Throws inputError for another form. */
export function parseFilter(text: string): RunFilter {
  const [, key, comparison, value] = /^([\w.]+)\s*(!=|=|<|>|~)\s*(.+)$/.exec(text) ?? [];
  if (key !== undefined && value !== undefined)
    return { key, comparison: comparison as RunFilter["comparison"], value: value.trim() };
  throw inputError(`"${text}" is no condition`, {
    where: "--filter",
    hint: "write KEY=VALUE, KEY!=VALUE, KEY<NUMBER, KEY>NUMBER or KEY~PART, such as kind=moe or loss<3.4",
  });
}

/** Keys of the list that conditions may name besides those of the config. */
const listedKeys = ["name", "kind", "params", "activeParams", "step", "steps", "state", "tokens", "loss", "bestLoss"];

/**
 * The runs that fit all conditions. Throws inputError for a key that none of them has: by `!=` all runs would fit a key
 * that is misspelt, and `prune` would remove them.
 */
export function fittingRuns(runs: readonly ListedRun[], filters: readonly RunFilter[]): ListedRun[] {
  const unknown = filters.find(({ key }) => runs.every((run) => valueOf(run, key) === undefined));
  if (unknown !== undefined && runs.length > 0)
    throw inputError(`no run here has "${unknown.key}"`, {
      where: "--filter",
      hint: `name one of ${listedKeys.join(", ")}, or a setting of run.json with dots, such as training.lr.peak`,
    });
  return runs.filter((run) => filters.every((filter) => fits(run, filter)));
}

const valueOf = (run: ListedRun, key: string): unknown =>
  listedKeys.includes(key) ? run[key as keyof ListedRun] : valueAtPath(run.config, key);

/** Whether a run fits a condition; one whose key the run does not have it fits only if it says so by `!=`. */
function fits(run: ListedRun, { key, comparison, value }: RunFilter): boolean {
  const found = valueOf(run, key);
  if (found === undefined || found === null) return comparison === "!=";
  const text = typeof found === "string" ? found : JSON.stringify(found);
  const isSame = text === value || (value !== "" && Number(text) === Number(value));
  switch (comparison) {
    case "=":
      return isSame;
    case "!=":
      return !isSame;
    case "<":
      return Number(text) < Number(value);
    case ">":
      return Number(text) > Number(value);
    case "~":
      return text.includes(value);
  }
}

function valueAtPath(config: unknown, path: string): unknown {
  return path
    .split(".")
    .reduce<unknown>(
      (block, key) =>
        typeof block === "object" && block !== null && Object.hasOwn(block, key)
          ? (block as Record<string, unknown>)[key]
          : undefined,
      config,
    );
}

/** Settings in which runs differ, each with the value of every run; the model's shape comes last. */
export function configDifferences(
  runs: readonly Pick<ListedRun, "config">[],
): { readonly key: string; readonly values: readonly unknown[] }[] {
  const [first, ...others] = runs;
  if (first === undefined) return [];
  const keys = new Set(others.flatMap(({ config }) => changesBetween(first.config, config).map(({ key }) => key)));
  const order = (key: string): number => Number(key.startsWith("spec."));
  return [...keys]
    .filter((key) => !["key", "prefix"].includes(key))
    .sort((a, b) => order(a) - order(b))
    .map((key) => ({ key, values: runs.map(({ config }) => valueAtPath(config, key)) }));
}

/** What pruning removes: the checkpoints of a run, which can be trained again, or the run with its log. */
export type Pruned = "checkpoints" | "all";

/**
 * Removes a run's models, and with `all` its record and logs: files by the names that a run writes, one by one. What
 * else lies in its folders stays, and the folder with it. Returns whether all is gone. Throws inputError for a run that
 * a command is working on.
 */
export async function pruneRun(path: string, what: Pruned): Promise<boolean> {
  const release = await lockFolder(path).catch((cause: unknown) => {
    if (!(cause instanceof BusyFolderError)) throw cause;
    throw inputError("a command is working on this run", {
      where: path,
      hint: `wait for it, or stop it first; ${lockName} there says which`,
    });
  });
  let isGone: boolean;
  try {
    isGone = await withFsErrors(path, "remove", () => removeFiles(path, what));
  } finally {
    await release();
  }
  if (what === "checkpoints") return isGone;
  return rmdir(path).then(
    () => isGone,
    () => false,
  );
}

/** Removes what `pruneRun` removes, save the folder itself; whether all models are gone. */
async function removeFiles(path: string, what: Pruned): Promise<boolean> {
  let isGone = true;
  for (const name of modelFolders) isGone = (await removeModelFolder(join(path, name))) && isGone;
  if (what === "checkpoints") return isGone;
  for (const name of [...Object.values(exportedFiles), metricsFile, preservationFile, commandFile, runFile]) {
    const file = join(path, name);
    if ((await entryAt(file))?.isFile() === true) await unlink(file);
  }
  return isGone;
}
