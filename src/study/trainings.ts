/** The trainings of a study: its parents, and one arm with one seed. */
import { join, relative } from "node:path";
import { entryOf } from "../base/at.js";
import { resultOf } from "../base/events.js";
import { foldersOf } from "../files/checkpoint/model-source.js";
import { openCheckpoint, type Checkpoint, type ModelSource } from "../files/checkpoint/open.js";
import { lineageKey } from "../files/checkpoint/write.js";
import { upcycling } from "../surgery/convert/convert.js";
import { multiplying } from "../surgery/convert/multiply.js";
import { readLineage } from "../surgery/convert/lineage.js";
import { trainedFiles } from "../surgery/convert/trained-card.js";
import { makeByWorkflow } from "../surgery/convert/workflow.js";
import type { Backend } from "../engine/runtime/runtime.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import type { Slot } from "../model/tensors/slots.js";
import { countParams } from "../model/cost/params.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { compareModels, meanLoss } from "../evals/compare.js";
import { openModel } from "../evals/model.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { readJson } from "../files/io/ranges.js";
import type { ArmRun, ParentResult, Preservation } from "../model/results/result.js";
import { onlyParent } from "../base/schemas/study-grid.js";
import { DivergedError } from "../train/diverged.js";
import { freshTensor } from "../train/init.js";
import { readRunRecord } from "../train/claim.js";
import { tokensPerStep } from "../train/loop.js";
import { preservationFile, readMetrics, tokensPerSecond } from "../train/records.js";
import { trainRun, type RunOptions, type RunResult, type TrainEvent } from "../train/run.js";
import { similarityTo } from "../train/similarity.js";
import { requireSameSources, textHash } from "../train/sources.js";
import type { TrainingData } from "../train/training-data.js";
import { megatronRun } from "./megatron.js";
import { contentKey, prefixKey, type Surroundings } from "./keys.js";
import { measured, pointsOf } from "./measured.js";
import { requireSameLosses, type Work } from "./pieces.js";
import type { FlopMeter } from "./meter.js";
import { tokensOf, type PlannedArm, type PlannedParent, type PlannedRun } from "./plan.js";
import type { Prefixes } from "./prefix.js";
import { runName } from "./schedule.js";
import { afterOthers, inTurn } from "./turns.js";
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
  /** What runs the training in hand. */
  readonly backend: Backend;
  readonly surroundings: Surroundings;
  /** Folder that runs are kept in. */
  readonly store: string;
  /** Tokens and tokenizer by parent. */
  readonly data: ReadonlyMap<string, TrainingData>;
  readonly meter: FlopMeter;
  /** Folders of runs within the store, by key. */
  readonly located: ReadonlyMap<string, string>;
  /** What is trained, and what is found. */
  readonly work: Work;
  readonly prefixes: Prefixes;
  /** Models that arms start from and what they preserve, being made once, by their place. */
  readonly starts: Map<string, Promise<Preservation>>;
}

/** Trains a parent, or measures one that the user brought. */
export async function* makeParent(
  workshop: Workshop,
  { parent, key, path }: PlannedParent,
): AsyncGenerator<StudyEvent, Parent> {
  const { options, store, data: allData, meter, located, work } = workshop;
  const data = entryOf(allData, parent.id);
  const { total, active } = countParams(data.spec);
  const base = { id: parent.id, params: { total, active } };
  if (parent.kind === "given" || path === null) {
    if (parent.kind !== "given") throw new Error(`parent ${parent.id} has no folder to be trained in`);
    yield { type: "phase", label: parent.id === onlyParent ? "measuring the parent" : `measuring parent ${parent.id}` };
    const loss = await parentLoss(workshop, data, parent.source);
    const label = foldersOf(parent.source).join("+");
    return { source: parent.source, result: { ...base, label, path: label, tokens: null, loss, points: [] } };
  }
  const { pretrain: block, seed } = parent;
  const flopsPerToken = trainFlopsPerToken(data.spec, block.sequence);
  const weights = work.weights.get(key);
  const folder = weights?.recorded ?? located.get(key) ?? path;
  const dir = join(store, weights?.path ?? folder);
  const run = (): AsyncGenerator<TrainEvent, RunResult> =>
    work.recorded.has(key)
      ? recordedRun(dir, data, block)
      : trainRun({
          ...commonOptions(workshop, data),
          dir,
          spec: data.spec,
          block,
          seed,
          initial: (slot) => Promise.resolve(freshTensor(data.spec, slot, seed)),
          identity: { key },
        });
  const name = parent.id === onlyParent ? "dense parent" : `parent ${parent.id}`;
  const result = yield* inTurn(name, options.signal, () => meter.watch({ run: name, flopsPerToken }, run()));
  if (weights !== undefined) await requireSameLosses(store, weights);
  return {
    source: result.last,
    result: {
      ...base,
      loss: result.finalLoss,
      label: parent.id === onlyParent ? "dense parent, trained here" : `${parent.id}, trained here`,
      path: relative(options.dir, join(store, folder, "last")),
      tokens: tokensOf(block),
      points: pointsOf(result.metrics, flopsPerToken),
    },
  };
}

async function parentLoss(
  { options: { config, threads, signal }, backend }: Workshop,
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

function commonOptions({ options, backend }: Workshop, data: TrainingData): CommonOptions {
  return {
    text: { train: data.tokens.train, heldOut: data.tokens.heldOut },
    documentEnd: data.tokens.end,
    carry: data.carry,
    threads: options.threads,
    backend,
    signal: options.signal,
    evaluationTokens: options.config.evaluation.tokens,
    log: options.log,
  };
}

/**
 * The end of a run that is there as its record and its log. Throws inputError where it was trained on other tokens than
 * those at hand.
 */
async function* recordedRun(
  dir: string,
  { tokens }: TrainingData,
  training: TrainingBlock,
): AsyncGenerator<TrainEvent, RunResult> {
  requireSameSources((await readRunRecord(dir))?.sources, textHash(tokens), "run");
  const metrics = await readMetrics(dir);
  const result: RunResult = {
    metrics,
    last: join(dir, "last"),
    found: true,
    finalLoss: metrics.evals.at(-1)?.loss ?? NaN,
    tokensPerSecond: tokensPerSecond(metrics.steps, tokensPerStep(training)),
    mfu: null,
    peakRssBytes: metrics.done?.peakRssBytes ?? 0,
  };
  yield { type: "done", result };
  return result;
}

/** The run of an arm that is there as its record and its log. */
async function* recordedArm(workshop: Workshop, run: PlannedRun, path: string): AsyncGenerator<StudyEvent, ArmRun> {
  const { options, store, data: allData, meter, surroundings } = workshop;
  const { arm, seed, start } = run;
  const dir = join(store, path);
  const events = recordedRun(dir, entryOf(allData, arm.parent), arm.training);
  const result = yield* meter.watch({ run: runName(run), flopsPerToken: arm.flopsPerToken }, events);
  const files = [join(dir, preservationFile)];
  if (start !== null) files.push(measuredFile(join(store, start.path), surroundings, arm.training));
  let preservation: Preservation | null = null;
  for (const file of files)
    if (preservation === null && (await exists(file))) preservation = (await readJson(file)) as Preservation;
  const common = { seed, path: relative(options.dir, dir), preservation };
  return { ...common, ...measured(result.metrics, arm), finalLoss: result.finalLoss };
}

/** Beside a model that arms start from: what it preserves, measured on sequences of a training's length. */
const measuredFile = (start: string, surroundings: Surroundings, { sequence }: TrainingBlock): string =>
  `${start}.${contentKey({ ...surroundings, sequence })}.json`;

/** Converts the parent and measures what was preserved if the arm is upcycled; then trains the arm with one seed. */
export async function* runArm(
  workshop: Workshop,
  dense: ModelSource,
  run: PlannedRun,
): AsyncGenerator<StudyEvent, ArmRun> {
  const { options, store, data: allData, meter, located, work, surroundings, prefixes } = workshop;
  const { arm, seed, key, beginning } = run;
  const recorded = work.recorded.get(key);
  if (recorded !== undefined) return yield* recordedArm(workshop, run, recorded);
  const data = entryOf(allData, arm.parent);
  const weights = work.weights.get(key);
  const folder = weights?.recorded ?? located.get(key) ?? run.path;
  const dir = join(store, weights?.path ?? folder);
  const preservation = run.start === null ? null : yield* makeStart(workshop, data, dense, run);
  const from = startOf(arm, dense, run, store);
  const source = from === null ? null : await openCheckpoint(from);
  let parent: Checkpoint | null = null;
  try {
    if (isTraceable(run)) parent = await openCheckpoint(dense);
    const lineage = source === null ? null : await readLineage(source);
    const prefix = prefixKey(beginning, arm.training, seed, surroundings);
    const identity = { key, ...(arm.megatron === null ? { prefix } : { megatron: arm.megatron }) };
    const request = {
      ...commonOptions(workshop, data),
      dir,
      spec: arm.spec,
      seed,
      block: arm.training,
      identity: { ...identity, kind: arm.kind, ...recordedStart(run.start) },
      similarity: parent === null ? undefined : await similarityTo([parent], arm.spec, lineage),
      lineage: source?.config[lineageKey],
      texts: source === null ? undefined : await trainedFiles(source),
    };
    const notes: string[] = [];
    let training: () => AsyncGenerator<TrainEvent, RunResult>;
    if (arm.megatron === null) {
      await prefixes.adopt({ dir, identity: { key, prefix }, training: arm.training });
      const initial = (slot: Slot): Promise<Float32Array> =>
        source?.readFloat32(slot.key) ?? Promise.resolve(freshTensor(arm.spec, slot, seed));
      training = () => trainRun({ ...request, initial });
    } else {
      if (from === null) throw new Error(`${runName(run)} has no checkpoint to begin with`);
      const { megatron } = arm;
      const note = (text: string): number => notes.push(text);
      training = () => megatronRun({ arm, megatron, from, run: request, study: options, note });
    }
    const { flopsPerToken } = arm;
    const common = { seed, path: relative(options.dir, join(store, folder)), preservation };
    try {
      const result = yield* inTurn(runName(run), options.signal, () =>
        meter.watch({ run: runName(run), flopsPerToken }, training(), notes),
      );
      if (weights !== undefined) await requireSameLosses(store, weights);
      if (preservation !== null) await writeJson(join(dir, preservationFile), preservation);
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

/** Whether it is known which part of the parent's FFN each expert is; a split by activation keeps no record of it. */
function isTraceable({ start }: PlannedRun): boolean {
  if (start === null) return false;
  return start.kind === "upcycled" ? start.recipe.split === null : isTraceable(start.of);
}

/** What the record of a run says of the model that was made for it. */
function recordedStart(start: PlannedRun["start"]): Readonly<Record<string, unknown>> {
  if (start?.kind === "multiplied") return { recipe: null, multiplied: start.recipe, of: start.of.key };
  return { recipe: start?.recipe ?? null };
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
  const { store, surroundings, starts } = workshop;
  if (run.start === null) throw new Error(`${runName(run)} starts from its parent`);
  const start = join(store, run.start.path);
  const { sequence } = run.arm.training;
  const file = measuredFile(start, surroundings, run.arm.training);
  const begun = starts.get(file);
  if (begun !== undefined) return begun;
  const name = runName(run);
  if (!(await exists(start))) yield { type: "phase", label: `${name}: converting` };
  yield { type: "phase", label: `${name}: measuring preservation` };
  const made =
    starts.get(file) ?? makeAndMeasure(workshop, data, dense, { start: run.start, folder: start, file, sequence });
  starts.set(file, made);
  const preservation = await made;
  yield { type: "note", text: preservationNote(name, preservation) };
  return preservation;
}

/** A model to be made, its folder, and the file with what it preserves, measured on sequences of so many tokens. */
interface StartPlace {
  readonly start: NonNullable<PlannedRun["start"]>;
  readonly folder: string;
  readonly file: string;
  readonly sequence: number;
}

async function makeAndMeasure(
  workshop: Workshop,
  data: TrainingData,
  dense: ModelSource,
  { start, folder, file, sequence }: StartPlace,
): Promise<Preservation> {
  const { options, backend, store, located, work } = workshop;
  const { threads, config, signal } = options;
  const lies = ({ key, path }: PlannedRun): string => work.weights.get(key)?.path ?? located.get(key) ?? path;
  const source = start.kind === "upcycled" ? dense : join(store, lies(start.of), "last");
  const make = async (): Promise<void> => {
    const each = { prompts: 1, calibration: threads, writing: 1, proof: threads };
    // What is held out is never calibrated on.
    const encoded = { ids: data.tokens.train, source: "the study's training text" };
    const calibration = { encoded, tokens: config.calibration.tokens };
    const tools = { backend, threads: each, calibration, signal, out: folder, report: false };
    const settings = { source, dtype: "F32" } as const;
    if (start.kind === "upcycled")
      await resultOf(makeByWorkflow(upcycling({ ...settings, recipe: start.recipe }), tools));
    else await resultOf(makeByWorkflow(multiplying({ ...settings, recipe: start.recipe }), tools));
  };
  await afterOthers(signal, async () => {
    if (await exists(folder)) return;
    await make().catch(async (cause: unknown) => {
      // A folder is there when it is complete: another command was quicker.
      if (!(await exists(folder))) throw cause;
    });
  });
  return measurePreservation(workshop, data, source, { start: folder, file, sequence });
}

/** The measurement that `file` holds; where there is none, it is made and written. */
async function measurePreservation(
  { options, backend }: Workshop,
  data: TrainingData,
  dense: ModelSource,
  { start, file, sequence }: { readonly start: string; readonly file: string; readonly sequence: number },
): Promise<Preservation> {
  if (await exists(file)) return (await readJson(file)) as Preservation;
  const { config, threads, signal } = options;
  const parent = await openModel(dense, backend, threads);
  try {
    const child = await openModel(start, backend, threads);
    try {
      const limitTokens = Math.min(PRESERVATION_TOKENS, config.evaluation.tokens);
      const comparison = await compareModels(parent, child, data.tokens.heldOut, { sequence, limitTokens, signal });
      await writeJson(file, comparison);
      return comparison;
    } finally {
      await child.close();
    }
  } finally {
    await parent.close();
  }
}

function preservationNote(name: string, { parentLoss, childLoss, maxAbsLogitDiff, maxAbsLogit }: Preservation): string {
  return (
    `${name}: loss ${childLoss.toFixed(4)} against the parent's ${parentLoss.toFixed(4)}, largest logit difference ` +
    `${maxAbsLogitDiff.toExponential(1)} of ${maxAbsLogit.toPrecision(3)}`
  );
}
