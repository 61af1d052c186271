/**
 * Evaluates models on tasks:
 *
 *   task files -> documents -> prompts -> answers of each model, logged batch by batch -> results -> files
 *
 * Everything that the user gave is checked and every prompt is built before a model is opened. Answers that a log holds
 * are not asked for again; since batches depend on all samples, a run that was killed ends with the same numbers as one
 * that was not.
 */
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { interruptedError } from "../../base/errors.js";
import { makeFolders } from "../../files/io/folders.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import type { AnsweringModel } from "../scoring/model.js";
import { warningsOf } from "../tasks/checks.js";
import type { TaskConfig } from "../tasks/config.js";
import { loadTask, splitsOf, type LoadedTask, type Sample, type SampleSettings } from "../tasks/prompt.js";
import { judgeOf, type FilteredResult, type Judge, type Response } from "../tasks/sample-results.js";
import type { Selection } from "../tasks/select.js";
import { BOOTSTRAP_ITERATIONS } from "../tasks/standard-errors.js";
import { groupResult, taskResult, type TaskResult } from "../tasks/task-results.js";
import { openAnswerLog, requestsKey } from "./answer-log.js";
import type { DataReader } from "./data.js";

/** A task with its prompts. */
export interface PreparedTask {
  readonly task: LoadedTask;
  readonly judge: Judge;
  readonly samples: readonly Sample[];
  /** Hash of each sample's requests. */
  readonly keys: readonly string[];
  readonly numFewshot: number;
}

/** How samples are made and judged. */
export interface EvaluationSettings {
  /** Examples in front of each question, in place of the tasks' own numbers. */
  readonly numFewshot?: number | undefined;
  /** Only the first so many documents of each task. */
  readonly limit?: number | undefined;
  /** Seed of the draws of examples. */
  readonly seed?: number | undefined;
  /** Resamples of bootstrapped standard errors. */
  readonly bootstrapIterations?: number | undefined;
  /** Stands in front of all prompts. */
  readonly systemInstruction?: string | undefined;
}

/** Reads the documents of each task and builds its prompts. Throws inputError for all that is wrong with them. */
export async function prepareTasks(
  { tasks }: Selection,
  data: DataReader,
  settings: EvaluationSettings & Pick<SampleSettings, "chat">,
  signal?: AbortSignal,
): Promise<readonly PreparedTask[]> {
  const prepared: PreparedTask[] = [];
  for (const config of tasks) {
    if (signal?.aborted === true) throw interruptedError("stopped while prompts were built");
    const numFewshot = shotsOf(config, settings.numFewshot);
    const task = loadTask(config, await data.splits(config, splitsOf(config, numFewshot)));
    const samples = task.samples({ ...settings, numFewshot });
    prepared.push({ task, judge: judgeOf(task), samples, keys: samples.map(requestsKey), numFewshot });
    await setImmediate();
  }
  return prepared;
}

/** A task that says 0 itself stays at 0, as in the harness: its prompts make no sense with examples. */
const shotsOf = ({ raw, numFewshot }: TaskConfig, asked: number | undefined): number =>
  asked === undefined || raw.num_fewshot === 0 ? numFewshot : asked;

/** A sample with all that is known of it. */
export interface SampleRecord {
  readonly sample: Sample;
  readonly responses: readonly Response[];
  readonly truncated: number;
  readonly results: readonly FilteredResult[];
}

/** What came of one task. */
export interface TaskOutcome extends PreparedTask {
  readonly records: readonly SampleRecord[];
  readonly result: TaskResult;
  /** What makes the result worthless, in words. */
  readonly warnings: readonly string[];
}

/** What came of one model. */
export interface ModelOutcome {
  readonly tasks: readonly TaskOutcome[];
  readonly groups: readonly TaskResult[];
  /** Samples whose answers were in the log. */
  readonly known: number;
  readonly seconds: number;
}

/** How far an evaluation is. */
export type EvaluationEvent =
  /** `known` of `total` samples of a task need not be asked. */
  | { readonly type: "task"; readonly task: string; readonly known: number; readonly total: number }
  /** Tokens of all tasks: `done` of `total`; `fresh` of those were computed by this call. */
  | {
      readonly type: "progress";
      readonly task: string;
      readonly samples: number;
      readonly done: number;
      readonly fresh: number;
      readonly total: number;
    }
  /** Standard errors of a task are estimated. */
  | { readonly type: "judging"; readonly task: string };

/** What is asked of one model. */
export interface EvaluationRequest {
  readonly model: AnsweringModel;
  readonly prepared: readonly PreparedTask[];
  readonly selection: Selection;
  readonly settings: EvaluationSettings;
  /** Folder of the logs of this model; null: nothing is logged. */
  readonly logFolder: string | null;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Asks one model all samples. Throws inputError for prompts that do not fit the model, before it computes anything, and
 * interruptedError once the signal is raised: the log has every batch that was finished.
 */
export async function* evaluateModel({
  model,
  prepared,
  selection,
  settings,
  logFolder,
  signal,
}: EvaluationRequest): AsyncGenerator<EvaluationEvent, ModelOutcome> {
  const start = performance.now();
  const questions = [];
  for (const { task, samples } of prepared)
    questions.push(await model.prepare(samples, `${task.config.file}: task ${task.config.name}`));
  if (logFolder !== null) await withFsErrors(logFolder, "create folder", () => makeFolders(logFolder));
  const total = questions.reduce((sum, { tokens }) => sum + tokens.reduce((own, count) => own + count, 0), 0);
  const tasks: TaskOutcome[] = [];
  let [done, fresh, known] = [0, 0, 0];
  for (const [i, one] of prepared.entries()) {
    const { task, samples, keys } = one;
    const name = task.config.name;
    const { tokens, answers } = questions[i]!;
    const log = logFolder === null ? null : await openAnswerLog(join(logFolder, `${fileName(name)}.jsonl`));
    const found = new Map<number, { readonly responses: readonly Response[]; readonly truncated: number }>();
    try {
      keys.forEach((key, sample) => {
        const answer = log?.get(key);
        if (answer !== undefined) found.set(sample, answer);
      });
      known += found.size;
      yield { type: "task", task: name, known: found.size, total: samples.length };
      for (const sample of found.keys()) done += tokens[sample]!;
      const isKnown = new Set(found.keys());
      for await (const batch of ahead(answers((sample) => isKnown.has(sample), signal))) {
        await log?.add(batch.map(({ sample, responses, truncated }) => ({ key: keys[sample]!, responses, truncated })));
        for (const { sample, responses, truncated } of batch) {
          found.set(sample, { responses, truncated });
          if (isKnown.has(sample)) continue;
          done += tokens[sample]!;
          fresh += tokens[sample]!;
        }
        yield { type: "progress", task: name, samples: found.size, done, fresh, total };
      }
      if (signal?.aborted === true)
        throw interruptedError(`stopped after ${found.size} of ${samples.length} samples of ${name}`, {
          hint: "the same command goes on from there",
        });
    } finally {
      await log?.close();
    }
    yield { type: "judging", task: name };
    tasks.push(await outcomeOf(one, found, { settings, signal, changes: model.generationChanges ?? [] }));
  }
  const byName = new Map(tasks.map(({ result }) => [result.name, result]));
  return {
    tasks,
    groups: selection.groups.map((group) => groupResult(group, byName)),
    known,
    seconds: (performance.now() - start) / 1000,
  };
}

/** The same values, of which the next one is computed while one is used. What was begun is waited for at the end. */
async function* ahead<Value>(values: AsyncGenerator<Value>): AsyncGenerator<Value> {
  let next = values.next();
  try {
    for (;;) {
      const result = await next;
      if (result.done === true) return;
      next = values.next();
      next.catch(() => undefined);
      yield result.value;
    }
  } finally {
    await next.catch(() => undefined);
    await values.return(undefined);
  }
}

/** A name that can be a file's everywhere; `group::task` has colons. */
export const fileName = (name: string): string => name.replace(/[^A-Za-z0-9._-]/g, "_");

async function outcomeOf(
  prepared: PreparedTask,
  found: ReadonlyMap<number, { readonly responses: readonly Response[]; readonly truncated: number }>,
  {
    settings: { bootstrapIterations = BOOTSTRAP_ITERATIONS },
    signal,
    changes,
  }: Pick<EvaluationRequest, "settings" | "signal"> & { readonly changes: readonly string[] },
): Promise<TaskOutcome> {
  const { task, judge, samples } = prepared;
  const records = samples.map((sample, i): SampleRecord => {
    const { responses, truncated } = found.get(i)!;
    return { sample, responses, truncated, results: judge.judge(sample, responses) };
  });
  const result = await taskResult(
    task.config,
    records.map(({ results }) => results),
    {
      iterations: bootstrapIterations,
      async breathe() {
        await setImmediate();
        if (signal?.aborted === true) throw interruptedError("stopped while standard errors were estimated");
      },
    },
  );
  return { ...prepared, records, result, warnings: warningsOf(task, judge, records, changes) };
}
