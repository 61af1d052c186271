/** The quickstart's models on the tasks that come along: what a loss comes to in right answers. */
import { join } from "node:path";
import { at } from "../base/at.js";
import { resultOf } from "../base/events.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { openModel } from "../evals/model.js";
import { localModel } from "../evals/scoring/model.js";
import { DataReader } from "../evals/suite/data.js";
import { differencesOf } from "../evals/suite/differences.js";
import { evaluateModel, prepareTasks, type ModelOutcome } from "../evals/suite/evaluate.js";
import { modelIdentity } from "../evals/suite/models.js";
import { readTasks } from "../evals/suite/task-files.js";
import { inGroups } from "../evals/tasks/select.js";
import { writeJson } from "../files/io/atomic.js";
import type { StudyResult, TaskScore } from "../model/results/result.js";
import { resultFile } from "../study/folder.js";
import { openTokenizer } from "../text/tokenizer/load.js";
import type { Terminal } from "./terminal.js";

/** The group of tasks, and how many documents of each are asked. */
const GROUP = "offline";
const MOST_DOCUMENTS = 200;

interface ScoringOptions {
  /** Folder of the study. */
  readonly dir: string;
  readonly backend: Backend;
  readonly threads: number;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
}

/**
 * The study with the scores of its models, which are written into `result.json` too: the studio shows the study from
 * that file, and a finished study is read from it.
 */
export async function withTaskScores(result: StudyResult, options: ScoringOptions): Promise<StudyResult> {
  const scored = { ...result, tasks: await taskScores(result, options) };
  await writeJson(join(options.dir, resultFile), scored);
  return scored;
}

/**
 * The parent and each arm's run with the first seed on the tasks that come along. Answers are kept in the study's
 * folder, so that the next call only reads them.
 */
async function taskScores(result: StudyResult, options: ScoringOptions): Promise<readonly TaskScore[]> {
  const { dir, terminal, signal } = options;
  const selection = await readTasks({ tasks: [GROUP] });
  const data = new DataReader({
    fetchSplit: () => Promise.reject(new Error("the documents of these tasks come along")),
  });
  const prepared = await prepareTasks(selection, data, { limit: MOST_DOCUMENTS }, signal);
  const ask = async (name: string, folder: string): Promise<ModelOutcome> => {
    const tokenizer = await openTokenizer(folder, { signal });
    const opened = await openModel(folder, options.backend, options.threads).catch(async (cause: unknown) => {
      await tokenizer.close();
      throw cause;
    });
    const model = await localModel(opened, tokenizer);
    try {
      const identity = await modelIdentity(folder, { backend: options.backend, maxLength: model.maxLength });
      const settings = { bootstrapIterations: 0, limit: MOST_DOCUMENTS };
      const logFolder = join(dir, "tasks", identity);
      return await resultOf(
        evaluateModel({ model, prepared, selection, settings, logFolder, signal }),
        (event) => void (event.type === "progress" && terminal.progress("asking tasks that come along", name)),
      );
    } finally {
      await model.close();
    }
  };
  const origin = at(result.parents, 0);
  const parent = await ask("parent", join(dir, origin.path));
  const arms: { readonly id: string; readonly outcome: ModelOutcome }[] = [];
  for (const { id, runs, parent: own } of result.arms) {
    const run = runs.find(({ finalLoss }) => Number.isFinite(finalLoss));
    if (own === origin.id && run !== undefined) arms.push({ id, outcome: await ask(id, join(dir, run.path, "last")) });
  }
  const scoresOf = ({ tasks, groups }: ModelOutcome) =>
    new Map([...groups, ...tasks.map(({ result: one }) => one)].map((one) => [one.name, one]));
  const before = scoresOf(parent);
  const chances = new Map(
    prepared.map(({ task, samples }) => [
      task.config.name,
      samples.reduce((sum, { doc }) => sum + 1 / task.choices(doc).length, 0) / samples.length,
    ]),
  );
  const after = arms.map(({ id, outcome }) => ({
    id,
    scores: scoresOf(outcome),
    differences: new Map(
      differencesOf(parent, outcome, selection.groups).map(({ task, differences }) => [task, differences[0]]),
    ),
  }));
  const members = new Map(selection.groups.map(({ name, tasks }) => [name, tasks]));
  const shown = inGroups(selection.groups, []).filter(({ name }) => (before.get(name)?.metrics.length ?? 0) > 0);
  // The group of all has no score of its own and is not shown.
  const outermost = Math.min(...shown.map(({ level }) => level));
  return shown.map(({ name, level }): TaskScore => {
    const own = members.get(name);
    const [first = name] = own ?? [];
    const score = before.get(name)!;
    return {
      task: name,
      level: level - outermost,
      isGroup: own !== undefined,
      samples: score.size,
      // Tasks of one group have the same number of choices.
      chance: chances.get(first) ?? NaN,
      parent: at(score.metrics, 0).value,
      arms: after.map(({ id, scores, differences }) => ({
        id,
        value: at(scores.get(name)!.metrics, 0).value,
        interval: differences.get(name)?.interval ?? null,
        p: differences.get(name)?.p,
      })),
    };
  });
}
