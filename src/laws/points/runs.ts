/**
 * Points from folders of runs, at any depth: the tool's own studies (`result.json`) and trainings (`run.json`,
 * `metrics.jsonl`), those of Hugging Face's Trainer (`trainer_state.json`) and logs of Megatron-LM (`*.log`). Only
 * the LAST evaluation of a run counts: losses in the middle of a learning-rate schedule belong to no
 * finished model.
 */
import { readdir, readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { inputError } from "../../base/errors.js";
import { countParams } from "../../model/cost/params.js";
import { exists } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { readJsonl } from "../../files/io/jsonl.js";
import { readJson } from "../../files/io/ranges.js";
import type { Law } from "../forms/types.js";
import type { ArmResult, ArmRun, ParentResult, StudyResult } from "../../model/results/result.js";
import { studyResultOf } from "../../model/results/earlier-result.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { specFromConfig } from "../../model/decoder/config.js";
import type { Table } from "./cells.js";
import { readTable } from "./table.js";
import { isMegatronLog, isTrainerState, trainerTable } from "./training-logs.js";

/** One finished model. N is the dense model's size, or the size of the parent of an upcycled one. */
interface RunPoint {
  readonly run: string;
  readonly group: "dense" | "moe" | "upcycled";
  /** Null where a log does not say it. */
  readonly N: number | null;
  readonly active: number | null;
  readonly total: number | null;
  /** Tokens of this model's own training; of a continued dense model those of its parent too. */
  readonly D: number | null;
  readonly D1: number | null;
  readonly D2: number | null;
  readonly loss: number;
}

const headers = ["run", "group", "N", "active", "total", "D", "D1", "D2", "loss"] as const;

/**
 * Points of all runs below a folder as a table; those of the kind a law is about. Throws inputError where there are
 * none.
 */
export async function readRuns(dir: string, law: Law): Promise<Table> {
  const all = await pointsBelow(dir, dir, 0);
  if (all.length === 0) {
    throw inputError("no finished run in this folder", {
      where: dir,
      hint:
        "expected result.json of a study, run.json with metrics.jsonl of a training, trainer_state.json, or *.log of " +
        "Megatron-LM",
    });
  }
  const upcycled = law.columns.some(({ name }) => name === "D2") && law.groups === undefined;
  const points = law.groups !== undefined ? all : all.filter(({ group }) => (group === "upcycled") === upcycled);
  if (points.length === 0) {
    throw inputError(
      `no ${upcycled ? "upcycled" : "dense or from-scratch"} run among the ${all.length} of this folder`,
      { where: dir, hint: `the law ${law.id} is about those` },
    );
  }
  return {
    headers,
    rows: points.map((point) => headers.map((name) => (point[name] === null ? "" : String(point[name])))),
    lines: points.map((_, i) => i + 1),
  };
}

/** Folders inside each other that are searched. */
const deepest = 6;

/** Points of the runs in a folder and in those below it; `root` is where the names of runs start. */
async function pointsBelow(root: string, dir: string, depth: number): Promise<RunPoint[]> {
  // Other programs, too, write files by these names: those are passed by, and the search goes on.
  const result = (await exists(join(dir, "result.json"))) ? await readJson(join(dir, "result.json")) : null;
  if (isStudyResult(result)) return ofStudy(studyResultOf(result), relative(root, dir));
  const hasRun = (await exists(join(dir, "run.json"))) && (await exists(join(dir, "metrics.jsonl")));
  const spec = hasRun ? runSpec(await readJson(join(dir, "run.json"))) : null;
  if (spec !== null) return ofRun(dir, spec, relative(root, dir));
  const entries = await withFsErrors(dir, "read folder", () => readdir(dir, { withFileTypes: true }));
  const trainer = await ofTrainer(
    dir,
    relative(root, dir),
    entries.map(({ name }) => name),
  );
  if (trainer !== null) return trainer;
  const points: RunPoint[] = [];
  for (const { name } of entries.filter((entry) => entry.isFile() && entry.name.endsWith(".log")))
    points.push(...(await ofLog(join(dir, name), relative(root, join(dir, name)))));
  if (depth === deepest) return points;
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.isDirectory() && !entry.name.startsWith("."))
      points.push(...(await pointsBelow(root, join(dir, entry.name), depth + 1)));
  }
  return points;
}

/** Whether this is what a study found. */
function isStudyResult(data: unknown): boolean {
  const { version, arms, parents, parent } = (data ?? {}) as Readonly<Record<string, unknown>>;
  const hasParents = version === 1 ? typeof parent === "object" && parent !== null : Array.isArray(parents);
  return (version === 1 || version === 2) && Array.isArray(arms) && hasParents;
}

/** The model of a run's record; null for any other file. */
function runSpec(record: unknown): DecoderSpec | null {
  const { spec } = (record ?? {}) as { readonly spec?: Partial<DecoderSpec> | null };
  return Array.isArray(spec?.layers) ? (spec as DecoderSpec) : null;
}

/**
 * The last evaluation of a run of Hugging Face's Trainer: its own state, or that of its last checkpoint. Null where the
 * folder holds neither.
 */
async function ofTrainer(dir: string, name: string, entries: readonly string[]): Promise<RunPoint[] | null> {
  const step = (entry: string): number => Number(/^checkpoint-(\d+)$/.exec(entry)?.[1] ?? NaN);
  const last = entries.filter((entry) => step(entry) >= 0).sort((a, b) => step(b) - step(a))[0];
  const places = [dir, ...(last === undefined ? [] : [join(dir, last)])];
  for (const place of places) {
    const file = join(place, "trainer_state.json");
    if (!(await exists(file))) continue;
    const state = await readJson(file);
    if (!isTrainerState(state)) continue;
    const config = join(place, "config.json");
    return lastRow(trainerTable(state), name, (await exists(config)) ? await sizeOf(config) : null);
  }
  return null;
}

/** Total and active parameters of a model in Hugging Face's format; null where it is of no family that we know. */
async function sizeOf(config: string): Promise<{ readonly active: number; readonly total: number } | null> {
  const value = await readJson(config);
  try {
    return countParams(specFromConfig(value, config));
  } catch {
    return null;
  }
}

/** The last row of a log of Megatron-LM; none of any other log. */
async function ofLog(file: string, name: string): Promise<RunPoint[]> {
  const text = await withFsErrors(file, "read", () => readFile(file, "utf8"));
  return isMegatronLog(text) ? lastRow(await readTable(file), name, null) : [];
}

function lastRow(
  { headers: names, rows }: Table,
  run: string,
  size: { readonly active: number; readonly total: number } | null,
): RunPoint[] {
  const cells = rows.at(-1) ?? [];
  const value = (name: string): number | null => {
    const text = cells[names.indexOf(name)] ?? "";
    return text === "" ? null : Number(text);
  };
  const loss = value("loss");
  if (loss === null) return [];
  const total = size?.total ?? value("params");
  const isDense = size === null || size.active === size.total;
  const counts = { N: total, active: size?.active ?? total, total, D: value("tokens"), D1: null, D2: null };
  return [{ run, group: isDense ? "dense" : "moe", ...counts, loss }];
}

/** Points of all runs of a study; `name` is the path of its folder, for the names of the runs. */
export function ofStudy({ parents, arms }: StudyResult, name: string): RunPoint[] {
  return parents.flatMap((parent) => {
    const own = arms.filter((arm) => arm.parent === parent.id);
    const runs = own.flatMap((arm) => arm.runs.flatMap((run) => pointOfRun(parent, arm, run, name)));
    if (parent.tokens === null) return runs;
    const size = parent.params.total;
    const point: RunPoint = {
      run: join(name, parent.id),
      group: "dense",
      N: size,
      active: parent.params.active,
      total: size,
      D: parent.tokens,
      D1: null,
      D2: null,
      loss: parent.loss,
    };
    return [point, ...runs];
  });
}

/** The point of one run of an arm; none where the run saw no tokens. */
function pointOfRun(parent: ParentResult, { kind, params }: ArmResult, run: ArmRun, name: string): RunPoint[] {
  const tokens = run.points.at(-1)?.tokens ?? 0;
  // A run that diverged has no final loss, in JSON null.
  if (tokens === 0 || !Number.isFinite(run.finalLoss)) return [];
  const { active, total } = params;
  const common = { run: join(name, run.path), active, total, loss: run.finalLoss };
  switch (kind) {
    case "dense": {
      const D = parent.tokens === null ? null : parent.tokens + tokens;
      return [{ ...common, group: "dense", N: total, D, D1: null, D2: null }];
    }
    case "scratch":
      return [{ ...common, group: "moe", N: parent.params.total, D: tokens, D1: null, D2: null }];
    case "upcycled":
      return [{ ...common, group: "upcycled", N: parent.params.total, D: null, D1: parent.tokens, D2: tokens }];
    case "multiplied":
      // Its experts have seen two trainings, which no law of ours tells apart.
      return [];
  }
}

/**
 * A training started by `upcycle train`: what it began from is not known to be a dense parent's tokens, so D counts its
 * own.
 */
async function ofRun(dir: string, spec: DecoderSpec, name: string): Promise<RunPoint[]> {
  const records = (await readJsonl(join(dir, "metrics.jsonl"))) as ({
    type?: string;
    tokens?: number;
    loss?: number;
  } | null)[];
  const last = records.findLast((record) => record?.type === "eval");
  if (last?.tokens === undefined || last.loss === undefined || last.tokens === 0) return [];
  if (!records.some((record) => record?.type === "done")) return [];
  const { active, total } = countParams(spec);
  return [
    {
      run: name,
      group: active === total ? "dense" : "moe",
      N: total,
      active,
      total,
      D: last.tokens,
      D1: null,
      D2: null,
      loss: last.loss,
    },
  ];
}
