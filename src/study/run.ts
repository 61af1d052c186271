/**
 * A study: one parent, several arms, several seeds; the same further tokens for all.
 *
 *   1 read and split text   2 tokenizer   3 parent (train or open)   4 per seed and arm: convert, measure preservation, train
 *   5 result.json, report.html
 *
 * Every part lands in the run folder when it is finished, so the same command goes on where the last one was stopped.
 */
import { join } from "node:path";
import type { ModelSource } from "../checkpoint/open.js";
import { writeJson } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { lockFolder } from "../io/lock.js";
import { findings } from "../report/findings.js";
import type { ArmResult, ArmRun, StudyResult } from "../report/result.js";
import { describeText, type Ground } from "../train/ground.js";
import { readCorpus, type Corpus } from "../train/text.js";
import { environment } from "./environment.js";
import { claimFolder, requireSpace } from "./folder.js";
import { FlopMeter } from "./meter.js";
import { prepareGround } from "./parent.js";
import { planArms, type PlannedArm } from "./plan.js";
import { makeParent, runArm } from "./trainings.js";
import type { StudyEvent, StudyOptions } from "./types.js";

export type { StudyEvent, StudyOptions, StudyRequest } from "./types.js";

/**
 * Runs, or goes on with, a study. Throws inputError for a folder that holds another study, for text, a parent or a recipe that cannot be
 * used; stopError and interruptedError like `trainRun`.
 */
export async function* runStudy(options: StudyOptions): AsyncGenerator<StudyEvent, StudyResult> {
  const started = Date.now();
  await withFsErrors(options.dir, "create run folder", () => makeFolders(options.dir));
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
  const ground = await prepareGround(config, corpus, dir, options.signal);
  const arms = planArms(config, ground.spec);
  yield { type: "note", text: describeText(ground) };

  await requireSpace(options, ground, arms);
  const meter = new FlopMeter(config, ground, arms);
  const parent = yield* makeParent(options, ground, meter);
  const runs = new Map<string, ArmRun[]>(arms.map(({ id }) => [id, []]));
  for (const seed of config.seeds) {
    for (const arm of arms) runs.get(arm.id)!.push(yield* runArm(options, ground, parent.source, arm, seed, meter));
  }
  const found: Omit<StudyResult, "findings"> = {
    version: 1,
    name: config.name,
    startedAt,
    seconds: seconds(),
    environment: environment(options.threads),
    text: textFacts(corpus, ground, config.evaluation.tokens),
    parent: parent.result,
    arms: arms.map((arm): ArmResult => {
      const { id, label, kind, params, flopsPerToken, router, recipeName } = arm;
      return { id, label, kind, params, flopsPerToken, router, recipe: recipeName, runs: runs.get(id)! };
    }),
    commands: [options.command, ...conversionCommands(options, parent.source, arms)],
    seeds: config.seeds,
  };
  const result: StudyResult = { ...found, findings: findings(found) };
  await writeJson(join(dir, "result.json"), result);
  return result;
}

function conversionCommands({ config, dir, conversionCommands: commandsOf }: StudyOptions, parent: ModelSource, arms: readonly PlannedArm[]): string[] {
  return arms.flatMap(({ id, recipe }) =>
    recipe === null || commandsOf === undefined
      ? []
      : config.seeds.flatMap((seed) => [...commandsOf(parent, recipe(seed), join(dir, `${id}-seed-${seed}`))]),
  );
}

function textFacts(corpus: Corpus, { tokens, tokenizer }: Ground, evaluationTokens: number): StudyResult["text"] {
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
