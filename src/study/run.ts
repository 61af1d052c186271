/**
 * A study: parents, arms, seeds, and further text for all. Its steps are:
 *
 *   1. plan: every training with its key, what of it is there, what is left to do;
 *   2. read and split the text, learn tokenizers or take the parents';
 *   3. train the parents, or open them; for each seed and arm: convert, measure what was preserved, train;
 *      several at once where there are jobs for it;
 *   4. write result.json.
 *
 * Every run lies in a folder with its key, so the same command resumes where the last one was stopped, and another
 * file finds the runs that it has in common with earlier ones.
 */
import { join } from "node:path";
import { at, entryOf } from "../base/at.js";
import { eventsOf, resultOf } from "../base/events.js";
import { inputError, interruptedError } from "../base/errors.js";
import { compact, duration, flops } from "../base/format.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import { exists, writeJson } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { lockFolder } from "../files/io/lock.js";
import { readJson } from "../files/io/ranges.js";
import { findings } from "../report/study/findings.js";
import { questionResults } from "../report/study/question-pairs.js";
import type { ArmResult, ArmRun, StudyResult } from "../model/results/result.js";
import { describeText, type TrainingData } from "../train/training-data.js";
import { readCorpus, type Corpus } from "../train/text.js";
import { noteCommand } from "../files/io/command-file.js";
import { environment } from "./environment.js";
import {
  claimStudyFolder,
  requireStudyFolder,
  resultFile,
  resultKey,
  updateRecord,
  type StudyRecord,
} from "./folder.js";
import { FlopMeter } from "./meter.js";
import { haveTokenizers, prepareData, type StudyText } from "./parent.js";
import type { Work } from "./pieces.js";
import { planStudy, withShapes, type PlannedArm, type PlannedRun, type StudyPlan } from "./plan.js";
import { Prefixes } from "./prefix.js";
import { locateRuns, requireSpace, scheduleOf, type StudySchedule } from "./schedule.js";
import { makeParent, runArm, type Parent, type Workshop } from "./trainings.js";
import type { StudyEvent, StudyOptions, StudyRequest } from "./types.js";

export type { StudyEvent, StudyOptions, StudyRequest } from "./types.js";

/** What a study would run: its trainings with their costs, and what of them is there. */
export interface StudyOutlook {
  readonly plan: StudyPlan;
  readonly schedule: StudySchedule;
}

/** Plans a study and looks for what its store holds; writes nothing. Throws inputError like `runStudy`. */
export async function outlookOf(options: StudyOptions): Promise<StudyOutlook> {
  const { dir, store = dir } = options;
  const plan = await planStudy(options);
  return { plan, schedule: await scheduleOf(options, plan, await locateRuns(plan, store)) };
}

/**
 * Runs or resumes a study, yields its events and returns its result, which is also written as `result.json`. A finished
 * study is only read. Throws inputError for a folder that holds another study, and for text, a parent or a recipe that
 * cannot be used; stopError and interruptedError like `trainRun`. A run that diverges is a result.
 */
export async function* runStudy(options: StudyOptions): AsyncGenerator<StudyEvent, StudyResult> {
  const start = Date.now();
  await requireStudyFolder(options);
  const plan = await planStudy(options).catch((cause: unknown) => {
    throw stopped(options, cause);
  });
  await requireWork(options, plan);
  await withFsErrors(options.dir, "create run folder", () => makeFolders(options.dir));
  const release = await lockFolder(options.dir);
  try {
    return yield* lockedStudy(options, plan, start);
  } finally {
    await release();
  }
}

/**
 * Throws inputError for names of pieces that a study has not, and where there would be nothing to compare; stopError
 * where the disk has too little room. A folder is claimed by what passes alone.
 */
async function requireWork(options: StudyOptions, plan: StudyPlan): Promise<void> {
  const { dir, store = dir } = options;
  const schedule = await scheduleOf(options, plan, await locateRuns(plan, store));
  requireCompared(plan, schedule.work);
  await requireSpace(store, schedule);
}

/** The study in a folder that no other process uses; `start` is when the command began, in milliseconds. */
async function* lockedStudy(
  options: StudyOptions,
  plan: StudyPlan,
  start: number,
): AsyncGenerator<StudyEvent, StudyResult> {
  const { dir, store = dir } = options;
  const record = await claimStudyFolder(options);
  const seconds = (): number => record.seconds + (Date.now() - start) / 1000;
  const remember = (finished?: string): Promise<StudyRecord> =>
    updateRecord(dir, { ...record, finished, seconds: seconds() });
  try {
    const key = resultKey(options, plan.runs);
    // Other commands may have trained something since it was looked for.
    const located = await locateRuns(plan, store);
    const schedule = await scheduleOf(options, plan, located);
    if (options.given !== undefined) await noteCommand(dir, options.given);
    const isDone = schedule.work.isWhole && schedule.runs.every(({ doneSteps, steps }) => doneSteps === steps);
    if (record.finished === key && isDone && (await exists(join(dir, resultFile)))) {
      yield { type: "phase", label: "already finished, nothing was trained" };
      const kept = (await readJson(join(dir, resultFile))) as StudyResult;
      // Numbers stay; what an earlier version made of them is said anew, as the studio says it.
      return { ...kept, findings: findings(kept) };
    }
    const result = yield* measureStudy(options, { plan, schedule, located }, record.startedAt, seconds);
    await remember(schedule.work.isWhole ? key : undefined);
    return result;
  } catch (cause) {
    // A stopped command's time counts too, but failing to note it must not hide why it stopped.
    await remember().catch(() => undefined);
    throw stopped(options, cause);
  }
}

/** What is thrown for a cause: where it is the request to stop, there is nothing to save, since what is finished is. */
function stopped({ dir, signal }: StudyOptions, cause: unknown): unknown {
  if (signal?.aborted !== true || cause !== signal.reason) return cause;
  return interruptedError("stopped", { where: dir, hint: "run the same command again to go on" });
}

/** A plan, and what its store holds. */
interface PlannedWork extends StudyOutlook {
  readonly located: ReadonlyMap<string, string>;
}

/** Reads the text, trains parents and arms, and writes the result; finished parts are read from their folders. */
async function* measureStudy(
  options: StudyOptions,
  { plan: early, schedule, located }: PlannedWork,
  startedAt: string,
  seconds: () => number,
): AsyncGenerator<StudyEvent, StudyResult> {
  const { config, dir, store = dir, signal } = options;
  const { work } = schedule;
  yield workNote(schedule);
  const parents = early.parents.map(({ parent }) => parent);
  let corpus: Promise<Corpus> | null = null;
  const text: StudyText = {
    key: early.surroundings.text,
    read: () => (corpus ??= readCorpus(config.text, signal)),
  };
  const isNew = !(await haveTokenizers(options, parents, text));
  if (isNew) {
    yield { type: "phase", label: "reading text" };
    await text.read();
    yield { type: "phase", label: "learning the tokenizer" };
  } else {
    const isGiven = parents.some(({ kind }) => kind === "given");
    yield { type: "phase", label: isGiven ? "opening the parent, reading text" : "reading tokens" };
  }
  const data = await prepareData(options, parents, text);
  signal?.throwIfAborted();
  const plan = withShapes(config, early, new Map([...data].map(([id, { spec }]) => [id, spec])));
  const first = entryOf(data, at(parents, 0).id);
  yield { type: "note", text: describeText(first) };

  const workshop: Workshop = {
    options,
    backend: options.backends[0],
    surroundings: plan.surroundings,
    store,
    data,
    located,
    work,
    meter: new FlopMeter({
      parents: plan.parents.filter(({ key }) => work.parents.has(key)),
      runs: plan.runs.filter(({ key }) => work.runs.has(key)),
    }),
    prefixes: new Prefixes(store),
    starts: new Map(),
  };
  const made = yield* trainAll(workshop, plan);
  const isThere = ({ runs }: ArmResult): boolean => work.isWhole || runs.length > 0;
  const arms = plan.arms.map((arm) => armResult(arm, made.runs.get(arm.id) ?? [])).filter(isThere);
  const seeds = config.seeds.filter((seed) => arms.some(({ runs }) => runs.some((run) => run.seed === seed)));
  const measurements: Omit<StudyResult, "findings"> = {
    version: 2,
    name: config.name,
    startedAt,
    seconds: seconds(),
    environment: await environment(options, arms),
    text: textFacts(first, config.evaluation.tokens),
    parents: made.parents.map(({ result }) => result),
    arms,
    questions: questionResults(askable(config, arms), arms),
    commands: [options.command, ...conversionCommands(options, plan, made.sources)],
    seeds,
  };
  const result: StudyResult = { ...measurements, findings: findings(measurements) };
  await writeJson(join(dir, resultFile), result);
  return result;
}

/** The questions whose arms are both there. */
function askable({ questions }: StudyRequest, arms: readonly ArmResult[]): StudyRequest["questions"] {
  const names = new Set(arms.map(({ arm }) => arm));
  return questions.filter((question) => names.has(question.compare) && names.has(question.with));
}

/** Throws inputError where a result would have nothing to compare. */
function requireCompared({ parents }: StudyPlan, { parents: there, runs }: Work): void {
  if (there.size > 0 && (runs.size > 0 || parents.some(({ key, path }) => there.has(key) && path !== null))) return;
  throw inputError("no training of this study is there", {
    hint: "train some of it first, or give the --store that its runs lie in, with the --threads and --device they had",
  });
}

/** How much there is still to train, and about how long, before a step says how fast this machine is. */
function workNote({ runs, flops: left, seconds }: StudySchedule): StudyEvent {
  const open = runs.filter(({ doneSteps, steps }) => doneSteps < steps).length;
  const found = open === runs.length ? "" : ` (${compact(runs.length - open)} of ${runs.length} are there)`;
  const isMeasured = runs.some(({ speed }) => speed !== null);
  const basis = isMeasured ? "by the speed of earlier runs" : "as a first guess";
  return {
    type: "phase",
    label: `${open} trainings of ${flops(left)} in all${found}: about ${duration(seconds)}, ${basis}`,
  };
}

/** What all trainings have given. */
interface Trained {
  readonly parents: readonly Parent[];
  readonly sources: ReadonlyMap<string, ModelSource>;
  /** By arm, in the order of the seeds. */
  readonly runs: ReadonlyMap<string, readonly ArmRun[]>;
}

/**
 * Trains everything, `jobs` at a time, in the plan's order: parents first, since a run waits for its parent. What fails
 * stops the others, which save.
 */
function trainAll(workshop: Workshop, plan: StudyPlan): AsyncGenerator<StudyEvent, Trained> {
  const { options, work } = workshop;
  const chosenParents = plan.parents.filter(({ key }) => work.parents.has(key));
  const chosenRuns = plan.runs.filter(({ key }) => work.runs.has(key));
  return eventsOf<StudyEvent, Trained>(async (tell, signal) => {
    const failing = new AbortController();
    const all = AbortSignal.any([signal, failing.signal]);
    const { backends } = options;
    /** What a worker's trainings have; each worker keeps to one of what computes. */
    const within = (worker: number): Workshop => ({
      ...workshop,
      options: { ...options, signal: all },
      backend: at(backends, worker % backends.length),
    });
    const parents = new Map<string, Promise<Parent>>();
    const runs = new Map<string, Promise<ArmRun>>();
    const once = <T>(made: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> => {
      const promise = made.get(key) ?? make();
      made.set(key, promise);
      return promise;
    };
    const tasks: Task[] = [
      ...chosenParents.map((parent): Task => (worker) => {
        const { id } = parent.parent;
        return once(parents, id, () => resultOf(makeParent(within(worker), parent), tell));
      }),
      ...chosenRuns.map(
        (run): Task =>
          (worker) =>
            once(runs, run.key, async () => {
              const { source } = await entryOf(parents, run.arm.parent);
              const before = run.start?.kind === "multiplied" ? await entryOf(runs, run.start.of.key) : null;
              all.throwIfAborted();
              if (before?.diverged !== undefined) return notBegun(run, before.diverged);
              return resultOf(runArm(within(worker), source, run), tell);
            }),
      ),
    ];
    await inPool(tasks, options.jobs ?? 1, failing);
    const trained = await Promise.all(chosenParents.map(({ parent }) => entryOf(parents, parent.id)));
    const byArm = new Map<string, ArmRun[]>();
    for (const { arm, key } of chosenRuns) byArm.set(arm.id, [...(byArm.get(arm.id) ?? []), await entryOf(runs, key)]);
    const sources = new Map(trained.map(({ source, result }) => [result.id, source]));
    return { parents: trained, sources, runs: byArm };
  }, options.signal);
}

/** The run of an arm that would start from the end of another, which has none. */
function notBegun({ seed, path }: PlannedRun, why: string): ArmRun {
  const diverged = `the run that it starts from has no end: ${why}`;
  const nothing = { preservation: null, points: [], load: [], similarity: [], tokensPerSecond: 0, peakRssBytes: null };
  return { seed, path, ...nothing, finalLoss: NaN, diverged };
}

/** A piece of work, and the number of the worker that does it. */
type Task = (worker: number) => Promise<unknown>;

/** Runs tasks in their order, so many at once. The first that fails aborts `failing`; its error is thrown last. */
async function inPool(tasks: readonly Task[], jobs: number, failing: AbortController): Promise<void> {
  let next = 0;
  let failure: { readonly cause: unknown } | null = null;
  const work = async (_: unknown, worker: number): Promise<void> => {
    while (next < tasks.length && failure === null) {
      const task = at(tasks, next++);
      try {
        await task(worker);
      } catch (cause) {
        failure ??= { cause };
        failing.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, tasks.length) }, work));
  if (failure !== null) throw (failure as { readonly cause: unknown }).cause;
}

function armResult(planned: PlannedArm, runs: readonly ArmRun[]): ArmResult {
  const { id, arm, parent, label, kind, params, flopsPerToken, router, recipeName } = planned;
  return { id, arm, parent, label, kind, params, flopsPerToken, router, recipe: recipeName, runs };
}

/** The commands that make the models that upcycled arms start from. */
function conversionCommands(
  { dir, store = dir, conversionCommands: commandsOf }: StudyOptions,
  { runs: all }: StudyPlan,
  sources: ReadonlyMap<string, ModelSource>,
): string[] {
  if (commandsOf === undefined) return [];
  const runs = all.filter(({ arm }) => sources.has(arm.parent));
  const lines = runs.flatMap(({ start, arm }) =>
    start?.kind === "upcycled"
      ? [...commandsOf(entryOf(sources, arm.parent), start.recipe, join(store, start.path))]
      : [],
  );
  return [...new Set(lines)];
}

function textFacts({ text, tokens, tokenizer }: TrainingData, evaluationTokens: number): StudyResult["text"] {
  return {
    ...text,
    trainTokens: tokens.train.length,
    heldOutTokens: tokens.heldOut.length,
    // The first token has nothing before it to predict it from.
    judgedTokens: Math.min(evaluationTokens, tokens.heldOut.length - 1),
    vocab: tokenizer.vocab,
    bytesPerToken: tokens.bytesPerToken,
  };
}
