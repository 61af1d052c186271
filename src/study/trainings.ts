/** The trainings of a study: its parent, and one arm with one seed. */
import { join, relative } from "node:path";
import { at } from "../base/at.js";
import { resultOf } from "../base/events.js";
import { foldersOf } from "../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../files/checkpoint/open.js";
import { lineageKey } from "../files/checkpoint/write.js";
import { convertCheckpoint } from "../surgery/convert/convert.js";
import { readLineage } from "../surgery/convert/lineage.js";
import { trainedFiles } from "../surgery/convert/trained-card.js";
import { countParams } from "../model/cost/params.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { compareModels, meanLoss } from "../evals/compare.js";
import { openModel } from "../evals/model.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { readJson } from "../files/io/ranges.js";
import type { ArmRun, LossPoint, Preservation, StudyResult } from "../model/results/result.js";
import { isMoe } from "../model/decoder/types.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import { freshTensor } from "../train/init.js";
import { trainRun, type RunOptions, type RunResult } from "../train/run.js";
import { similarityTo } from "../train/similarity.js";
import { armPath } from "./folder.js";
import type { FlopMeter } from "./meter.js";
import type { TrainingData } from "../train/training-data.js";
import { tokensOf, type PlannedArm } from "./plan.js";
import type { StudyEvent, StudyOptions } from "./types.js";

/** Preservation is a spot check: enough tokens for three digits of loss, few enough to wait for. */
const PRESERVATION_TOKENS = 8192;

/** The parent of a study as its arms see it. */
export interface Parent {
  readonly source: ModelSource;
  readonly result: StudyResult["parent"];
}

/** Trains the parent, or measures the one that the user brought. */
export async function* makeParent(
  options: StudyOptions,
  data: TrainingData,
  meter: FlopMeter,
): AsyncGenerator<StudyEvent, Parent> {
  const { config, dir } = options;
  const { total, active } = countParams(data.spec);
  const base = { params: { total, active } };
  if (config.parent !== undefined) {
    yield { type: "phase", label: "measuring the parent" };
    const loss = await parentLoss(options, data, config.parent);
    const path = foldersOf(config.parent).join("+");
    return { source: config.parent, result: { ...base, label: path, path, tokens: null, loss, points: [] } };
  }
  const block = config.pretrain;
  if (block === undefined)
    throw new Error("a study without a parent needs a pretrain block, which its schema asks for");
  const seed = at(config.seeds, 0);
  const flopsPerToken = trainFlopsPerToken(data.spec, block.sequence);
  const run = trainRun({
    ...commonOptions(options, data),
    dir: join(dir, "parent"),
    spec: data.spec,
    block,
    seed,
    initial: (slot) => Promise.resolve(freshTensor(data.spec, slot, seed)),
    identity: { study: config.name, arm: "parent", text: config.text },
  });
  const result = yield* meter.watch("dense parent", flopsPerToken, run);
  const loss = result.finalLoss;
  return {
    source: result.last,
    result: {
      ...base,
      loss,
      label: "dense parent, trained here",
      path: relative(dir, result.last),
      tokens: tokensOf(block),
      points: pointsOf(result, flopsPerToken),
    },
  };
}

async function parentLoss(
  { config, backend, threads, signal }: StudyOptions,
  data: TrainingData,
  source: ModelSource,
): Promise<number> {
  const model = await openModel(source, backend, threads);
  try {
    const { sequence } = config.continue;
    return (await meanLoss(model, data.tokens.heldOut, { sequence, limitTokens: config.evaluation.tokens, signal }))
      .loss;
  } finally {
    await model.close();
  }
}

function commonOptions(
  options: StudyOptions,
  data: TrainingData,
): Pick<RunOptions, "text" | "documentEnd" | "carry" | "threads" | "backend" | "signal" | "evaluationTokens"> {
  return {
    text: { train: data.tokens.train, heldOut: data.tokens.heldOut },
    documentEnd: data.tokens.end,
    carry: data.carry,
    threads: options.threads,
    backend: options.backend,
    signal: options.signal,
    evaluationTokens: options.config.evaluation.tokens,
  };
}

/** Converts the parent and measures what was preserved if the arm is upcycled; then trains the arm with one seed. */
export async function* runArm(
  options: StudyOptions,
  data: TrainingData,
  dense: ModelSource,
  arm: PlannedArm,
  seed: number,
  meter: FlopMeter,
): AsyncGenerator<StudyEvent, ArmRun> {
  const { config, dir } = options;
  const name = `${arm.label}, seed ${seed}`;
  const path = armPath(arm.id, seed);
  const start = join(dir, path, "start");
  const preservation =
    arm.recipe === null ? null : yield* makeStart(options, data, dense, { name, path, recipe: arm.recipe(seed) });
  const source = arm.kind === "scratch" ? null : await openCheckpoint(arm.kind === "dense" ? dense : start);
  let parent: Checkpoint | null = null;
  try {
    if (arm.kind === "upcycled") parent = await openCheckpoint(dense);
    const lineage = source === null ? null : await readLineage(source);
    const run = trainRun({
      ...commonOptions(options, data),
      dir: join(dir, path),
      spec: arm.spec,
      seed,
      block: isMoe(arm.spec) ? config.continue : { ...config.continue, routing: undefined },
      initial: (slot) => source?.readFloat32(slot.key) ?? Promise.resolve(freshTensor(arm.spec, slot, seed)),
      identity: {
        study: config.name,
        arm: arm.id,
        text: config.text,
        kind: arm.kind,
        recipe: arm.recipe?.(seed) ?? null,
      },
      similarity: parent === null ? undefined : await similarityTo([parent], arm.spec, lineage),
      lineage: source?.config[lineageKey],
      texts: source === null ? undefined : await trainedFiles(source),
    });
    const result = yield* meter.watch(name, arm.flopsPerToken, run);
    return armRun(seed, path, preservation, result, arm.flopsPerToken);
  } finally {
    await source?.close();
    await parent?.close();
  }
}

/** An upcycled arm with one seed. */
interface UpcycledRun {
  readonly name: string;
  /** Its folder within the study's. */
  readonly path: string;
  readonly recipe: UpcycleRecipe;
}

/** Makes the model that an upcycled arm starts from, unless it is there, and measures what it has preserved. */
async function* makeStart(
  options: StudyOptions,
  data: TrainingData,
  dense: ModelSource,
  { name, path, recipe }: UpcycledRun,
): AsyncGenerator<StudyEvent, Preservation> {
  const { dir, signal } = options;
  const start = join(dir, path, "start");
  if (!(await exists(start))) {
    yield { type: "phase", label: `${name}: converting` };
    await resultOf(convertCheckpoint({ source: dense, recipe, out: start, dtype: "F32", signal }));
  }
  yield { type: "phase", label: `${name}: measuring preservation` };
  const preservation = await measurePreservation(options, data, dense, start, join(dir, path, "preservation.json"));
  yield { type: "note", text: preservationNote(name, preservation) };
  return preservation;
}

function armRun(
  seed: number,
  path: string,
  preservation: Preservation | null,
  result: RunResult,
  flopsPerToken: number,
): ArmRun {
  const { evals } = result.metrics;
  return {
    seed,
    path,
    preservation,
    points: pointsOf(result, flopsPerToken),
    finalLoss: result.finalLoss,
    tokensPerSecond: result.tokensPerSecond,
    peakRssBytes: result.peakRssBytes,
    load: evals.filter(({ load }) => load.length > 0).map(({ step, load }) => ({ step, layers: load })),
    similarity: evals
      .filter(({ similarity }) => similarity.length > 0)
      .map(({ step, similarity }) => ({ step, layers: similarity })),
  };
}

function pointsOf(result: RunResult, flopsPerToken: number): LossPoint[] {
  return result.metrics.evals.map(({ step, tokens, loss }) => ({ step, tokens, loss, flops: tokens * flopsPerToken }));
}

/** The measurement that `file` holds; where there is none, it is made and written. */
async function measurePreservation(
  options: StudyOptions,
  data: TrainingData,
  dense: ModelSource,
  childDir: string,
  file: string,
): Promise<Preservation> {
  if (await exists(file)) return (await readJson(file)) as Preservation;
  const { config, backend, threads, signal } = options;
  const parent = await openModel(dense, backend, threads);
  const child = await openModel(childDir, backend, threads);
  try {
    const limitTokens = Math.min(PRESERVATION_TOKENS, config.evaluation.tokens);
    const comparison = await compareModels(parent, child, data.tokens.heldOut, {
      sequence: config.continue.sequence,
      limitTokens,
      signal,
    });
    await writeJson(file, comparison);
    return comparison;
  } finally {
    await parent.close();
    await child.close();
  }
}

function preservationNote(name: string, { parentLoss, childLoss, maxAbsLogitDiff, maxAbsLogit }: Preservation): string {
  return (
    `${name}: loss ${childLoss.toFixed(4)} against the parent's ${parentLoss.toFixed(4)}, largest logit difference ` +
    `${maxAbsLogitDiff.toExponential(1)} of ${maxAbsLogit.toPrecision(3)}`
  );
}
