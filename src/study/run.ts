/**
 * A study: one parent, several arms, several seeds, and the same further tokens for all. Its steps are:
 *
 *   1. read and split the text;
 *   2. learn the tokenizer, or take the parent's;
 *   3. train the parent, or open it;
 *   4. for each seed and arm: convert, measure what was preserved, train;
 *   5. write result.json.
 *
 * Every finished part lies in the run folder, so the same command resumes where the last one was stopped.
 */
import { join } from "node:path";
import { at } from "../base/at.js";
import { interruptedError } from "../base/errors.js";
import { duration, flops } from "../base/format.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import { writeJson } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { lockFolder } from "../files/io/lock.js";
import { readJson } from "../files/io/ranges.js";
import { findings } from "../report/study/findings.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { ArmResult, ArmRun, StudyResult } from "../model/results/result.js";
import { describeText, type TrainingData } from "../train/training-data.js";
import { readCorpus, type Corpus } from "../train/text.js";
import { environment } from "./environment.js";
import { claimStudyFolder, isStudyComplete, requireSpace, resultFile } from "./folder.js";
import { FlopMeter } from "./meter.js";
import { parentShape, prepareParentData } from "./parent.js";
import { planArms, type PlannedArm } from "./plan.js";
import { guessedSeconds } from "./time-left.js";
import { makeParent, runArm } from "./trainings.js";
import type { StudyEvent, StudyOptions } from "./types.js";

export type { StudyEvent, StudyOptions, StudyRequest } from "./types.js";

/**
 * Runs or resumes a study, yields its events and returns its result, which is also written as `result.json`. A finished
 * study is only read. Throws inputError for a folder that holds another study, and for text, a parent or a recipe that
 * cannot be used; stopError and interruptedError like `trainRun`.
 */
export async function* runStudy(options: StudyOptions): AsyncGenerator<StudyEvent, StudyResult> {
  const start = Date.now();
  await withFsErrors(options.dir, "create run folder", () => makeFolders(options.dir));
  const release = await lockFolder(options.dir);
  try {
    return yield* lockedStudy(options, start);
  } finally {
    await release();
  }
}

/** The study in a folder that no other process uses; `start` is when the command began, in milliseconds. */
async function* lockedStudy(options: StudyOptions, start: number): AsyncGenerator<StudyEvent, StudyResult> {
  const record = await claimStudyFolder(options);
  const seconds = (): number => record.seconds + (Date.now() - start) / 1000;
  const remember = (finished?: true): Promise<void> =>
    writeJson(join(options.dir, "study.json"), { ...record, finished, seconds: seconds() });
  if (record.finished === true && (await isStudyComplete(options))) {
    yield { type: "phase", label: "already finished, nothing was trained" };
    return (await readJson(join(options.dir, resultFile))) as StudyResult;
  }
  try {
    const result = yield* measureStudy(options, record.startedAt, seconds);
    await remember(true);
    return result;
  } catch (cause) {
    // A stopped command's time counts too, but failing to note it must not hide why it stopped.
    await remember().catch(() => undefined);
    // Between two trainings there is nothing to save: every finished part is on disk.
    const isStopRequest = options.signal?.aborted === true && cause === options.signal.reason;
    throw isStopRequest
      ? interruptedError("stopped", { where: options.dir, hint: "run the same command again to go on" })
      : cause;
  }
}

/** Reads the text, trains the parent and all arms, and writes the result; finished parts are read from the folder. */
async function* measureStudy(
  options: StudyOptions,
  startedAt: string,
  seconds: () => number,
): AsyncGenerator<StudyEvent, StudyResult> {
  const { config, dir, signal } = options;
  // The parent's shape is known before its tokenizer: what cannot be made is refused now, the rest foretold.
  const early = await parentShape(config);
  yield workNote(options, early, planArms(config, early));
  yield { type: "phase", label: "reading text" };
  const corpus = await readCorpus(config.text, signal);
  yield { type: "phase", label: config.parent === undefined ? "learning the tokenizer" : "opening the parent" };
  const data = await prepareParentData(options, corpus);
  signal?.throwIfAborted();
  const arms = planArms(config, data.spec);
  yield { type: "note", text: describeText(data) };

  await requireSpace(options, data, arms);
  const meter = new FlopMeter(config, data.spec, arms);
  const parent = yield* makeParent(options, data, meter);
  const runs = arms.map((): ArmRun[] => []);
  for (const seed of config.seeds) {
    for (const [i, arm] of arms.entries())
      at(runs, i).push(yield* runArm(options, data, parent.source, arm, seed, meter));
  }
  const measurements: Omit<StudyResult, "findings"> = {
    version: 1,
    name: config.name,
    startedAt,
    seconds: seconds(),
    environment: environment(options.threads),
    text: textFacts(corpus, data, config.evaluation.tokens),
    parent: parent.result,
    arms: arms.map((arm, i) => armResult(arm, at(runs, i))),
    commands: [options.command, ...conversionCommands(options, parent.source, arms)],
    seeds: config.seeds,
  };
  const result: StudyResult = { ...measurements, findings: findings(measurements) };
  await writeJson(join(dir, resultFile), result);
  return result;
}

/** How much there is to train, and about how long it may take, before a step says how fast this machine is. */
function workNote({ config, threads }: StudyOptions, parent: DecoderSpec, arms: readonly PlannedArm[]): StudyEvent {
  const { total } = new FlopMeter(config, parent, arms);
  const trainings = arms.length * config.seeds.length + (config.pretrain === undefined ? 0 : 1);
  const time = duration(guessedSeconds(total, threads));
  return { type: "phase", label: `${trainings} trainings of ${flops(total)} in all: about ${time}, as a first guess` };
}

function armResult(arm: PlannedArm, runs: readonly ArmRun[]): ArmResult {
  const { id, label, kind, params, flopsPerToken, router, recipeName } = arm;
  return { id, label, kind, params, flopsPerToken, router, recipe: recipeName, runs };
}

/** The commands that make the start of every upcycled arm, for each seed. */
function conversionCommands(
  { config, dir, conversionCommands: commandsOf }: StudyOptions,
  parent: ModelSource,
  arms: readonly PlannedArm[],
): string[] {
  return arms.flatMap(({ id, recipe }) =>
    recipe === null || commandsOf === undefined
      ? []
      : config.seeds.flatMap((seed) => [...commandsOf(parent, recipe(seed), join(dir, `${id}-seed-${seed}`))]),
  );
}

function textFacts(corpus: Corpus, { tokens, tokenizer }: TrainingData, evaluationTokens: number): StudyResult["text"] {
  return {
    sources: corpus.sources,
    trainDocuments: corpus.split.train.length,
    heldOutDocuments: corpus.split.heldOut.length,
    trainTokens: tokens.train.length,
    heldOutTokens: tokens.heldOut.length,
    // The first token has nothing before it to predict it from.
    judgedTokens: Math.min(evaluationTokens, tokens.heldOut.length - 1),
    vocab: tokenizer.vocab,
    bytesPerToken: tokens.bytesPerToken,
  };
}
