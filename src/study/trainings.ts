/** The trainings of a study: its parents, and one arm with one seed. */
import { join, relative } from "node:path";
import { entryOf } from "../base/at.js";
import { resultOf } from "../base/events.js";
import { foldersOf } from "../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../files/checkpoint/open.js";
import { lineageKey } from "../files/checkpoint/write.js";
import { upcycling } from "../surgery/convert/convert.js";
import { readLineage } from "../surgery/convert/lineage.js";
import { trainedFiles } from "../surgery/convert/trained-card.js";
import { makeByWorkflow } from "../surgery/convert/workflow.js";
import { countParams } from "../model/cost/params.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { compareModels, meanLoss } from "../evals/compare.js";
import { openModel } from "../evals/model.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { readJson } from "../files/io/ranges.js";
import type { ArmRun, LossPoint, ParentResult, Preservation } from "../model/results/result.js";
import { onlyParent } from "../base/schemas/study-grid.js";
import { DivergedError } from "../train/diverged.js";
import { freshTensor } from "../train/init.js";
import { tokensPerStep } from "../train/loop.js";
import { readMetrics, tokensPerSecond, type RunMetrics } from "../train/records.js";
import { trainRun, type RunOptions } from "../train/run.js";
import { similarityTo } from "../train/similarity.js";
import type { TrainingData } from "../train/training-data.js";
import { contentKey, prefixKey, type Surroundings } from "./keys.js";
import type { FlopMeter } from "./meter.js";
import { tokensOf, type PlannedArm, type PlannedParent, type PlannedRun } from "./plan.js";
import type { Prefixes } from "./prefix.js";
import { runName } from "./schedule.js";
import type { StudyEvent, StudyOptions } from "./types.js";

/** Preservation is a spot check: enough tokens for three digits of loss, few enough to wait for. */
const PRESERVATION_TOKENS = 8192;

/** A parent of a study as its arms see it. */
export interface Parent {
  readonly source: ModelSource;
  readonly result: ParentResult;
}

/** What all trainings of a study share. */
export interface Workshop {
  readonly options: StudyOptions;
  readonly surroundings: Surroundings;
  /** Folder that runs are kept in. */
  readonly store: string;
  /** Tokens and tokenizer by parent. */
  readonly data: ReadonlyMap<string, TrainingData>;
  readonly meter: FlopMeter;
  /** Folders of runs within the store, by key. */
  readonly located: ReadonlyMap<string, string>;
  readonly prefixes: Prefixes;
  /** Models that arms start from and what they preserve, being made once, by their place. */
  readonly starts: Map<string, Promise<Preservation>>;
}

/** Trains a parent, or measures one that the user brought. */
export async function* makeParent(
  { options, store, data: allData, meter, located }: Workshop,
  { parent, key, path }: PlannedParent,
): AsyncGenerator<StudyEvent, Parent> {
  const data = entryOf(allData, parent.id);
  const { total, active } = countParams(data.spec);
  const base = { id: parent.id, params: { total, active } };
  if (parent.kind === "given" || path === null) {
    if (parent.kind !== "given") throw new Error(`parent ${parent.id} has no folder to be trained in`);
    yield { type: "phase", label: parent.id === onlyParent ? "measuring the parent" : `measuring parent ${parent.id}` };
    const loss = await parentLoss(options, data, parent.source);
    const label = foldersOf(parent.source).join("+");
    return { source: parent.source, result: { ...base, label, path: label, tokens: null, loss, points: [] } };
  }
  const { pretrain: block, seed } = parent;
  const flopsPerToken = trainFlopsPerToken(data.spec, block.sequence);
  const dir = join(store, located.get(key) ?? path);
  const run = trainRun({
    ...commonOptions(options, data),
    dir,
    spec: data.spec,
    block,
    seed,
    initial: (slot) => Promise.resolve(freshTensor(data.spec, slot, seed)),
    identity: { key },
  });
  const name = parent.id === onlyParent ? "dense parent" : `parent ${parent.id}`;
  const result = yield* meter.watch({ run: name, flopsPerToken }, run);
  return {
    source: result.last,
    result: {
      ...base,
      loss: result.finalLoss,
      label: parent.id === onlyParent ? "dense parent, trained here" : `${parent.id}, trained here`,
      path: relative(options.dir, result.last),
      tokens: tokensOf(block),
      points: pointsOf(result.metrics, flopsPerToken),
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

type CommonOptions = Pick<
  RunOptions,
  "text" | "documentEnd" | "carry" | "threads" | "backend" | "signal" | "evaluationTokens" | "log"
>;

function commonOptions(options: StudyOptions, data: TrainingData): CommonOptions {
  return {
    text: { train: data.tokens.train, heldOut: data.tokens.heldOut },
    documentEnd: data.tokens.end,
    carry: data.carry,
    threads: options.threads,
    backend: options.backend,
    signal: options.signal,
    evaluationTokens: options.config.evaluation.tokens,
    log: options.log,
  };
}

/** Converts the parent and measures what was preserved if the arm is upcycled; then trains the arm with one seed. */
export async function* runArm(
  workshop: Workshop,
  dense: ModelSource,
  run: PlannedRun,
): AsyncGenerator<StudyEvent, ArmRun> {
  const { options, store, data: allData, meter, located, surroundings, prefixes } = workshop;
  const { arm, seed, key, beginning } = run;
  const data = entryOf(allData, arm.parent);
  const path = located.get(key) ?? run.path;
  const dir = join(store, path);
  const preservation = run.start === null ? null : yield* makeStart(workshop, data, dense, run);
  const from = startOf(arm, dense, run, store);
  const source = from === null ? null : await openCheckpoint(from);
  let parent: Checkpoint | null = null;
  try {
    if (arm.kind === "upcycled") parent = await openCheckpoint(dense);
    const lineage = source === null ? null : await readLineage(source);
    const prefix = prefixKey(beginning, arm.training, seed, surroundings);
    const identity = { key, prefix };
    await prefixes.adopt({ dir, identity, training: arm.training });
    const training = trainRun({
      ...commonOptions(options, data),
      dir,
      spec: arm.spec,
      seed,
      block: arm.training,
      initial: (slot) => source?.readFloat32(slot.key) ?? Promise.resolve(freshTensor(arm.spec, slot, seed)),
      identity: { ...identity, kind: arm.kind, recipe: run.start?.recipe ?? null },
      similarity: parent === null ? undefined : await similarityTo([parent], arm.spec, lineage),
      lineage: source?.config[lineageKey],
      texts: source === null ? undefined : await trainedFiles(source),
    });
    const { flopsPerToken } = arm;
    const common = { seed, path: relative(options.dir, dir), preservation };
    try {
      const result = yield* meter.watch({ run: runName(run), flopsPerToken }, training);
      return { ...common, ...measured(result.metrics, arm), finalLoss: result.finalLoss };
    } catch (cause) {
      if (!(cause instanceof DivergedError)) throw cause;
      // A run that diverges is a result of its arm. What is left of its steps is nothing to wait for.
      yield { type: "note", text: `${runName(run)}: ${cause.message}` };
      return { ...common, ...measured(await readMetrics(dir), arm), finalLoss: NaN, diverged: cause.message };
    }
  } finally {
    await source?.close();
    await parent?.close();
  }
}

/** The model that an arm's training begins with; null for fresh weights. */
function startOf(arm: PlannedArm, dense: ModelSource, { start }: PlannedRun, store: string): ModelSource | null {
  if (arm.kind === "scratch") return null;
  return start === null ? dense : join(store, start.path);
}

/** Makes the model that upcycled arms start from, unless it is there, and measures what it has preserved; once. */
async function* makeStart(
  workshop: Workshop,
  data: TrainingData,
  dense: ModelSource,
  run: PlannedRun,
): AsyncGenerator<StudyEvent, Preservation> {
  const { options, store, surroundings, starts } = workshop;
  if (run.start === null) throw new Error(`${runName(run)} starts from its parent`);
  const start = join(store, run.start.path);
  const { sequence } = run.arm.training;
  const file = `${start}.${contentKey({ ...surroundings, sequence })}.json`;
  const begun = starts.get(file);
  if (begun !== undefined) return begun;
  const name = runName(run);
  if (!(await exists(start))) yield { type: "phase", label: `${name}: converting` };
  yield { type: "phase", label: `${name}: measuring preservation` };
  const made = starts.get(file) ?? makeAndMeasure(options, data, dense, { ...run.start, start, file, sequence });
  starts.set(file, made);
  const preservation = await made;
  yield { type: "note", text: preservationNote(name, preservation) };
  return preservation;
}

async function makeAndMeasure(
  options: StudyOptions,
  data: TrainingData,
  dense: ModelSource,
  {
    recipe,
    start,
    file,
    sequence,
  }: NonNullable<PlannedRun["start"]> & {
    readonly start: string;
    readonly file: string;
    readonly sequence: number;
  },
): Promise<Preservation> {
  const { backend, threads, config, signal } = options;
  if (!(await exists(start))) {
    const surgery = upcycling({ source: dense, recipe, dtype: "F32" });
    const each = { prompts: 1, calibration: threads, writing: 1, proof: threads };
    const tools = { backend, threads: each, text: config.text.files, signal };
    await resultOf(makeByWorkflow(surgery, { ...tools, out: start, report: false }));
  }
  return measurePreservation(options, data, dense, { start, file, sequence });
}

/** What a run has measured, finished or not. */
function measured(
  metrics: RunMetrics,
  { training, flopsPerToken }: PlannedArm,
): Pick<ArmRun, "points" | "tokensPerSecond" | "peakRssBytes" | "load" | "similarity"> {
  const evals = metrics.evals.filter(({ step }) => isMeasured(step, training));
  return {
    points: pointsOf({ ...metrics, evals }, flopsPerToken),
    tokensPerSecond: tokensPerSecond(metrics.steps, tokensPerStep(training)),
    peakRssBytes: metrics.done?.peakRssBytes ?? 0,
    load: evals.filter(({ load }) => load.length > 0).map(({ step, load }) => ({ step, layers: load })),
    similarity: evals
      .filter(({ similarity }) => similarity.length > 0)
      .map(({ step, similarity }) => ({ step, layers: similarity })),
  };
}

/** Whether this training measures at a step: a run that it has begun with may have ended, and measured, in between. */
const isMeasured = (step: number, { evalEvery, steps }: PlannedArm["training"]): boolean =>
  step === 0 || step === steps || step % evalEvery === 0;

function pointsOf({ evals }: RunMetrics, flopsPerToken: number): LossPoint[] {
  return evals.map(({ step, tokens, loss }) => ({ step, tokens, loss, flops: tokens * flopsPerToken }));
}

/** The measurement that `file` holds; where there is none, it is made and written. */
async function measurePreservation(
  options: StudyOptions,
  data: TrainingData,
  dense: ModelSource,
  { start, file, sequence }: { readonly start: string; readonly file: string; readonly sequence: number },
): Promise<Preservation> {
  if (await exists(file)) return (await readJson(file)) as Preservation;
  const { config, backend, threads, signal } = options;
  const parent = await openModel(dense, backend, threads);
  const child = await openModel(start, backend, threads);
  try {
    const limitTokens = Math.min(PRESERVATION_TOKENS, config.evaluation.tokens);
    const comparison = await compareModels(parent, child, data.tokens.heldOut, { sequence, limitTokens, signal });
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
