/**
 * A study: one parent, several arms, several seeds; the same further tokens for all.
 *
 *   1 read and split text   2 tokenizer   3 parent (train or open)   4 per seed and arm: convert, measure preservation, train
 *   5 result.json, report.html
 *
 * Every part lands in the run folder when it is finished, so the same command goes on where the last one was stopped.
 */
import { mkdir, readdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint } from "../checkpoint/open.js";
import type { StudyConfig } from "../config/index.js";
import { convertCheckpoint } from "../convert/convert.js";
import { countParams } from "../cost/params.js";
import { trainFlopsPerToken } from "../cost/flops.js";
import { compareModels, meanLoss } from "../evals/compare.js";
import { openModel } from "../evals/model.js";
import { exists, writeJson } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { readJson } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import { findings } from "../report/findings.js";
import type { ArmResult, ArmRun, LossPoint, Preservation, StudyResult } from "../report/result.js";
import type { DecoderSpec } from "../spec/types.js";
import type { UpcycleRecipe } from "../surgery/recipe.js";
import type { Backend } from "../step/runtime.js";
import { describeText, type Ground } from "../train/ground.js";
import { freshTensor } from "../train/init.js";
import { readCorpus, type Corpus } from "../train/text.js";
import { trainRun, type RunOptions, type RunResult, type TrainEvent } from "../train/run.js";
import { similarityTo } from "../train/similarity.js";
import { environment } from "./environment.js";
import { prepareGround } from "./parent.js";
import { planArms, tokensOf, type PlannedArm } from "./plan.js";

export interface StudyOptions {
  readonly config: StudyConfig;
  readonly dir: string;
  readonly backend: Backend;
  readonly threads: number;
  /** Commands that make this study again, as the user would type them. */
  readonly command: string;
  /** The commands that do one arm's conversion alone, for the report. */
  readonly conversionCommands?: ((parent: string, recipe: UpcycleRecipe, out: string) => readonly string[]) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type StudyEvent =
  | { readonly type: "phase"; readonly label: string }
  | { readonly type: "note"; readonly text: string }
  /** `done` and `total` are FLOPs of all trainings of the study. */
  | { readonly type: "train"; readonly run: string; readonly event: TrainEvent; readonly done: number; readonly total: number };

/** Preservation is a spot check: enough tokens for three digits of loss, few enough to wait for. */
const PRESERVATION_TOKENS = 8192;

/**
 * Runs, or goes on with, a study. Throws inputError for a folder that holds another study, for text, a parent or a recipe that cannot be
 * used; stopError and interruptedError like `trainRun`.
 */
export async function* runStudy(options: StudyOptions): AsyncGenerator<StudyEvent, StudyResult> {
  const started = Date.now();
  await withFsErrors(options.dir, "create run folder", () => mkdir(options.dir, { recursive: true }));
  const release = await lockFolder(options.dir);
  try {
    return yield* lockedStudy(options, started);
  } finally {
    await release();
  }
}

async function* lockedStudy(options: StudyOptions, started: number): AsyncGenerator<StudyEvent, StudyResult> {
  const record = await claimFolder(options);
  const seconds = (): number => record.seconds + (Date.now() - started) / 1000;
  const remember = (): Promise<void> => writeJson(join(options.dir, "study.json"), { ...record, seconds: seconds() });
  try {
    const result = yield* measureStudy(options, record.startedAt, seconds);
    await remember();
    return result;
  } catch (cause) {
    // A stopped command's time counts too, but failing to note it must not hide why it stopped.
    await remember().catch(() => undefined);
    throw cause;
  }
}

async function* measureStudy(options: StudyOptions, startedAt: string, seconds: () => number): AsyncGenerator<StudyEvent, StudyResult> {
  const { config, dir } = options;
  yield { type: "phase", label: "reading text" };
  const corpus = await readCorpus(config.text);
  yield { type: "phase", label: config.parent === undefined ? "learning the tokenizer" : "opening the parent" };
  const ground = await prepareGround(config, corpus, dir);
  const arms = planArms(config, ground.spec);
  yield { type: "note", text: describeText(ground) };

  await requireSpace(options, ground, arms);
  const meter = new FlopMeter(config, ground, arms);
  const parent = yield* makeParent(options, ground, meter);
  const runs = new Map<string, ArmRun[]>(arms.map(({ id }) => [id, []]));
  for (const seed of config.seeds) {
    for (const arm of arms) runs.get(arm.id)!.push(yield* runArm(options, ground, parent.dir, arm, seed, meter));
  }
  const found: Omit<StudyResult, "findings"> = {
    version: 1,
    name: config.name,
    startedAt,
    seconds: seconds(),
    environment: environment(options.threads),
    text: textFacts(corpus, ground),
    parent: parent.result,
    arms: arms.map((arm): ArmResult => {
      const { id, label, kind, params, flopsPerToken, router, recipeName } = arm;
      return { id, label, kind, params, flopsPerToken, router, recipe: recipeName, runs: runs.get(id)! };
    }),
    commands: [options.command, ...conversionCommands(options, parent.dir, arms)],
    seeds: config.seeds,
  };
  const result: StudyResult = { ...found, findings: findings(found) };
  await writeJson(join(dir, "result.json"), result);
  return result;
}

function conversionCommands({ config, dir, conversionCommands: commandsOf }: StudyOptions, parent: string, arms: readonly PlannedArm[]): string[] {
  return arms.flatMap(({ id, recipe }) =>
    recipe === null || commandsOf === undefined
      ? []
      : config.seeds.flatMap((seed) => [...commandsOf(parent, recipe(seed), join(dir, `${id}-seed-${seed}`))]),
  );
}

interface StudyRecord {
  readonly config: StudyConfig;
  readonly startedAt: string;
  /** Of earlier commands on this folder, save those that were killed. */
  readonly seconds: number;
}

/** Creates the folder with the resolved config, or checks that it holds this very study. */
async function claimFolder({ config, dir, threads }: StudyOptions): Promise<StudyRecord> {
  const path = join(dir, "study.json");
  const resolved = JSON.parse(JSON.stringify({ ...config, threads })) as StudyConfig;
  if (await exists(path)) {
    const found = (await readJson(path)) as StudyRecord;
    const keys = [...new Set([...Object.keys(found.config), ...Object.keys(resolved)])] as (keyof StudyConfig)[];
    const other = keys.find((key) => JSON.stringify(found.config[key]) !== JSON.stringify(resolved[key]));
    // A study that was refused before it made anything, for a mistyped path say, may be corrected.
    if (other !== undefined && (await readdir(dir)).some((name) => name !== "study.json" && name !== ".lock")) {
      throw inputError(`this folder holds a study with another "${other}"`, { where: dir, hint: "choose another --out, or remove the folder to start again" });
    }
    if (other === undefined) return found;
  }
  const record: StudyRecord = { config: resolved, startedAt: new Date().toISOString(), seconds: 0 };
  await requireFreeSpace(dir, 64 * 1024 ** 2);
  await writeJson(path, record);
  return record;
}

/**
 * Every run keeps its last checkpoint with two moments and its best one; an upcycled arm also its start. One more checkpoint is on
 * disk while it replaces the last. Runs that have a checkpoint already have taken most of their space.
 */
async function requireSpace({ config, dir }: StudyOptions, ground: Ground, arms: readonly PlannedArm[]): Promise<void> {
  const weights = (spec: DecoderSpec): number => 4 * countParams(spec).total;
  const runs = [
    ...(config.parent === undefined ? [{ path: "parent", bytes: 4 * weights(ground.spec) }] : []),
    ...arms.flatMap((arm) => config.seeds.map((seed) => ({ path: armPath(arm.id, seed), bytes: (arm.recipe === null ? 4 : 5) * weights(arm.spec) }))),
  ];
  let needed = 3 * Math.max(...arms.map(({ spec }) => weights(spec)));
  for (const { path, bytes } of runs) if (!(await exists(join(dir, path, "last")))) needed += bytes;
  await requireFreeSpace(dir, needed);
}

const armPath = (id: string, seed: number): string => join("arms", id, `seed-${seed}`);

/** Share of the study's training that is done, in FLOPs. */
class FlopMeter {
  private finished = 0;
  readonly total: number;

  constructor(config: StudyConfig, ground: Ground, arms: readonly PlannedArm[]) {
    const pretrain = config.pretrain === undefined ? 0 : tokensOf(config.pretrain) * trainFlopsPerToken(ground.spec, config.pretrain.sequence);
    this.total = pretrain + arms.reduce((sum, arm) => sum + config.seeds.length * tokensOf(config.continue) * arm.flopsPerToken, 0);
  }

  async *watch(run: string, flopsPerToken: number, events: AsyncGenerator<TrainEvent, RunResult>): AsyncGenerator<StudyEvent, RunResult> {
    let tokens = 0;
    for (;;) {
      const next = await events.next();
      if (next.done === true) {
        this.finished += tokens * flopsPerToken;
        return next.value;
      }
      const event = next.value;
      if (event.type === "open") tokens = event.step * event.tokensPerStep;
      else if (event.type === "step") tokens = event.tokens;
      else if (event.type === "done") tokens = event.result.metrics.steps.at(-1)?.tokens ?? tokens;
      yield { type: "train", run, event, done: this.finished + tokens * flopsPerToken, total: this.total };
    }
  }
}

interface Parent {
  readonly dir: string;
  readonly result: StudyResult["parent"];
}

async function* makeParent(options: StudyOptions, ground: Ground, meter: FlopMeter): AsyncGenerator<StudyEvent, Parent> {
  const { config, dir } = options;
  const { total, active } = countParams(ground.spec);
  const base = { params: { total, active } };
  if (config.parent !== undefined) {
    yield { type: "phase", label: "measuring the parent" };
    const loss = await parentLoss(options, ground, config.parent);
    return { dir: config.parent, result: { ...base, label: config.parent, path: config.parent, tokens: null, loss, points: [] } };
  }
  const block = config.pretrain!;
  const seed = config.seeds[0]!;
  const flopsPerToken = trainFlopsPerToken(ground.spec, block.sequence);
  const run = trainRun({
    ...commonOptions(options, ground),
    dir: join(dir, "parent"), spec: ground.spec, block, seed,
    initial: (slot) => Promise.resolve(freshTensor(ground.spec, slot, seed)),
    identity: { study: config.name, arm: "parent", text: config.text },
  });
  const result = yield* meter.watch("dense parent", flopsPerToken, run);
  const loss = result.finalLoss;
  return {
    dir: result.last,
    result: {
      ...base, loss, label: "dense parent, trained here", path: relative(dir, result.last), tokens: tokensOf(block),
      points: pointsOf(result, flopsPerToken),
    },
  };
}

async function parentLoss({ config, backend, threads }: StudyOptions, ground: Ground, dir: string): Promise<number> {
  const model = await openModel(dir, backend, threads);
  try {
    const { sequence } = config.continue;
    return (await meanLoss(model, ground.tokens.heldOut, { sequence, limitTokens: config.evaluation.tokens })).loss;
  } finally {
    await model.close();
  }
}

function commonOptions(options: StudyOptions, ground: Ground): Pick<RunOptions, "text" | "carry" | "threads" | "backend" | "signal" | "evaluationTokens"> {
  return {
    text: { train: ground.tokens.train, heldOut: ground.tokens.heldOut },
    carry: ground.carry, threads: options.threads, backend: options.backend, signal: options.signal,
    evaluationTokens: options.config.evaluation.tokens,
  };
}

async function* runArm(
  options: StudyOptions, ground: Ground, parentDir: string, arm: PlannedArm, seed: number, meter: FlopMeter,
): AsyncGenerator<StudyEvent, ArmRun> {
  const { config, dir } = options;
  const name = `${arm.label}, seed ${seed}`;
  const path = armPath(arm.id, seed);
  const start = join(dir, path, "start");
  let preservation: Preservation | null = null;
  if (arm.recipe !== null) {
    if (!(await exists(start))) {
      yield { type: "phase", label: `${name}: converting` };
      await convertCheckpoint({ source: parentDir, recipe: arm.recipe(seed), out: start, dtype: "F32", signal: options.signal });
    }
    yield { type: "phase", label: `${name}: measuring preservation` };
    preservation = await measurePreservation(options, ground, parentDir, start, join(dir, path, "preservation.json"));
    yield { type: "note", text: preservationNote(name, preservation) };
  }
  const source = arm.kind === "scratch" ? null : await openCheckpoint(arm.kind === "dense" ? parentDir : start);
  const parent = arm.kind === "upcycled" ? await openCheckpoint(parentDir) : null;
  try {
    const run = trainRun({
      ...commonOptions(options, ground),
      dir: join(dir, path), spec: arm.spec, block: config.continue, seed,
      initial: (slot) => source?.readFloat32(slot.key) ?? Promise.resolve(freshTensor(arm.spec, slot, seed)),
      identity: { study: config.name, arm: arm.id, text: config.text, kind: arm.kind, recipe: arm.recipe?.(seed) ?? null },
      similarity: parent === null ? undefined : await similarityTo(parent, arm.spec),
    });
    const result = yield* meter.watch(name, arm.flopsPerToken, run);
    return armRun(seed, path, preservation, result, arm.flopsPerToken);
  } finally {
    await source?.close();
    await parent?.close();
  }
}

function armRun(seed: number, path: string, preservation: Preservation | null, result: RunResult, flopsPerToken: number): ArmRun {
  const { evals } = result.metrics;
  return {
    seed, path, preservation,
    points: pointsOf(result, flopsPerToken),
    finalLoss: result.finalLoss,
    tokensPerSecond: result.tokensPerSecond,
    peakRssBytes: result.peakRssBytes,
    load: evals.filter(({ load }) => load.length > 0).map(({ step, load }) => ({ step, layers: load })),
    similarity: evals.filter(({ similarity }) => similarity.length > 0).map(({ step, similarity }) => ({ step, layers: similarity })),
  };
}

function pointsOf(result: RunResult, flopsPerToken: number): LossPoint[] {
  return result.metrics.evals.map(({ step, tokens, loss }) => ({ step, tokens, loss, flops: tokens * flopsPerToken }));
}

async function measurePreservation(options: StudyOptions, ground: Ground, parentDir: string, childDir: string, file: string): Promise<Preservation> {
  if (await exists(file)) return (await readJson(file)) as Preservation;
  const { config, backend, threads } = options;
  const parent = await openModel(parentDir, backend, threads);
  const child = await openModel(childDir, backend, threads);
  try {
    const limitTokens = Math.min(PRESERVATION_TOKENS, config.evaluation.tokens);
    const measured = await compareModels(parent, child, ground.tokens.heldOut, { sequence: config.continue.sequence, limitTokens });
    await writeJson(file, measured);
    return measured;
  } finally {
    await parent.close();
    await child.close();
  }
}

function preservationNote(name: string, { parentLoss, childLoss, maxAbsLogitDiff, maxAbsLogit }: Preservation): string {
  return `${name}: loss ${childLoss.toFixed(4)} against the parent's ${parentLoss.toFixed(4)}, largest logit difference ` +
    `${maxAbsLogitDiff.toExponential(1)} of ${maxAbsLogit.toPrecision(3)}`;
}

function textFacts(corpus: Corpus, { tokens, tokenizer }: Ground): StudyResult["text"] {
  return {
    sources: corpus.sources,
    trainDocuments: corpus.split.train.length,
    heldOutDocuments: corpus.split.heldOut.length,
    trainTokens: tokens.train.length,
    heldOutTokens: tokens.heldOut.length,
    vocab: tokenizer.vocab,
    bytesPerToken: tokens.bytesPerToken,
  };
}
