/**
 * Points from the tool's own runs: folders of studies (`result.json`) and of trainings (`run.json`, `metrics.jsonl`),
 * at any depth. Only the LAST evaluation of a run counts: losses in the middle of a learning-rate schedule belong to no
 * finished model.
 */
import { readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { inputError } from "../../base/errors.js";
import { countParams } from "../../model/cost/params.js";
import { exists } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { readJsonl } from "../../files/io/jsonl.js";
import { readJson } from "../../files/io/ranges.js";
import type { Law } from "../forms/types.js";
import type { ArmResult, ArmRun, StudyResult } from "../../model/results/result.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Table } from "./table.js";

/** One finished model. N is the dense model's size, or the size of the parent of an upcycled one. */
interface RunPoint {
  readonly run: string;
  readonly group: "dense" | "moe" | "upcycled";
  readonly N: number;
  readonly active: number;
  readonly total: number;
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
      hint: "expected result.json of a study, or run.json with metrics.jsonl of a training",
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
  if (await exists(join(dir, "result.json")))
    return ofStudy((await readJson(join(dir, "result.json"))) as StudyResult, relative(root, dir));
  if ((await exists(join(dir, "run.json"))) && (await exists(join(dir, "metrics.jsonl"))))
    return ofRun(dir, relative(root, dir));
  if (depth === deepest) return [];
  const entries = await withFsErrors(dir, "read folder", () => readdir(dir, { withFileTypes: true }));
  const points: RunPoint[] = [];
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.isDirectory() && !entry.name.startsWith("."))
      points.push(...(await pointsBelow(root, join(dir, entry.name), depth + 1)));
  }
  return points;
}

/** Points of all runs of a study; `name` is the path of its folder, for the names of the runs. */
export function ofStudy({ parent, arms }: StudyResult, name: string): RunPoint[] {
  const runs = arms.flatMap((arm) => arm.runs.flatMap((run) => pointOfRun(parent, arm, run, name)));
  if (parent.tokens === null) return runs;
  const size = parent.params.total;
  const own: RunPoint = {
    run: join(name, "parent"),
    group: "dense",
    N: size,
    active: parent.params.active,
    total: size,
    D: parent.tokens,
    D1: null,
    D2: null,
    loss: parent.loss,
  };
  return [own, ...runs];
}

/** The point of one run of an arm; none where the run saw no tokens. */
function pointOfRun(parent: StudyResult["parent"], { kind, params }: ArmResult, run: ArmRun, name: string): RunPoint[] {
  const tokens = run.points.at(-1)?.tokens ?? 0;
  if (tokens === 0) return [];
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
  }
}

/**
 * A training started by `upcycle train`: what it began from is not known to be a dense parent's tokens, so D counts its
 * own.
 */
async function ofRun(dir: string, name: string): Promise<RunPoint[]> {
  const { spec } = (await readJson(join(dir, "run.json"))) as { spec?: DecoderSpec };
  const records = (await readJsonl(join(dir, "metrics.jsonl"))) as { type?: string; tokens?: number; loss?: number }[];
  const last = records.findLast(({ type }) => type === "eval");
  if (spec === undefined || last?.tokens === undefined || last.loss === undefined || last.tokens === 0) return [];
  if (!records.some(({ type }) => type === "done")) return [];
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
