/** What `upcycle eval` shows: results of each model, warnings above them, and differences between models. */
import { fixed, significant, table } from "../base/format.js";
import { differencesOf, type TaskDifferences } from "../evals/suite/differences.js";
import type { ModelOutcome } from "../evals/suite/evaluate.js";
import { metricKeys, type EvaluatedModel } from "../evals/suite/harness-files.js";
import type { WrittenResults } from "../evals/suite/write-results.js";
import { listTasks } from "../evals/suite/task-files.js";
import type { PairedDifference } from "../evals/tasks/paired.js";
import type { Group } from "../evals/tasks/select.js";
import type { MetricResult, TaskResult } from "../evals/tasks/task-results.js";
import type { CommandContext } from "./context.js";
import type { Terminal } from "./terminal.js";

/** A model with its results. */
export interface EvaluatedOutcome {
  readonly model: EvaluatedModel;
  readonly outcome: ModelOutcome;
  readonly files: WrittenResults;
}

/** Warnings of one model that are shown: 57 subjects may all have the same ones. */
const MOST_WARNINGS = 12;

/** Prints what comes along, or lies in the folders. */
export async function taskList({ terminal, json }: CommandContext, folders?: readonly string[]): Promise<void> {
  const entries = await listTasks(folders);
  const rows = entries.map(({ keys }) => ({
    name: [keys.group, keys.task].find((one) => typeof one === "string") ?? "",
    kind: keys.group === undefined ? "task" : "group",
    tags: [keys.tag ?? []].flat(),
    type: keys.group === undefined ? (keys.output_type ?? "generate_until") : "",
    data: [keys.dataset_path ?? "", keys.dataset_name ?? ""].filter((part) => part !== "").join(" "),
  }));
  if (json) return terminal.json(rows);
  terminal.out(
    table(
      [
        ["task or group", "type", "data set"],
        ...rows.map(({ name, kind, type, data }) => [name, kind === "group" ? "group" : type, data]),
      ],
      ["left", "left", "left"],
      terminal.columns,
    ),
  );
}

/** The document of `--json`. */
export function jsonOf(outcomes: readonly EvaluatedOutcome[], groups: readonly Group[]): unknown {
  const [first, ...others] = outcomes;
  return {
    models: outcomes.map(({ model, outcome, files }) => ({
      model: model.name,
      results: Object.fromEntries(
        [...outcome.tasks.map(({ result }) => result), ...outcome.groups].map((one) => [one.name, metricKeys(one)]),
      ),
      warnings: Object.fromEntries(
        outcome.tasks
          .filter(({ warnings }) => warnings.length > 0)
          .map(({ result, warnings }) => [result.name, warnings]),
      ),
      knownSamples: outcome.known,
      seconds: outcome.seconds,
      files,
    })),
    differences:
      first === undefined
        ? []
        : others.map((other) => ({
            from: first.model.name,
            to: other.model.name,
            tasks: differencesOf(first.outcome, other.outcome, groups),
          })),
  };
}

/** Prints warnings first, then a table of results, then how the other models differ from the first. */
export function shownOutcomes(
  outcomes: readonly EvaluatedOutcome[],
  groups: readonly Group[],
  terminal: Terminal,
): void {
  const several = outcomes.length > 1;
  for (const { model, outcome } of outcomes) {
    const all = outcome.tasks.flatMap(({ result, warnings }) =>
      warnings.map((warning) => `warning: ${several ? `${model.name} ` : ""}${result.name}: ${warning}`),
    );
    terminal.out(all.slice(0, MOST_WARNINGS));
    if (all.length > MOST_WARNINGS)
      terminal.out(`warning: and ${all.length - MOST_WARNINGS} more, which the results have under "warnings"`);
  }
  terminal.out(resultTable(outcomes, terminal.columns));
  const [first, ...others] = outcomes;
  for (const other of others) {
    terminal.out(["", `${other.model.name} minus ${first!.model.name}, on the same samples:`]);
    const differences = differencesOf(first!.outcome, other.outcome, groups);
    terminal.out(differenceTable(differences, terminal.columns));
  }
}

function resultTable(outcomes: readonly EvaluatedOutcome[], columns: number): readonly string[] {
  const [first] = outcomes;
  const all = ({ outcome }: EvaluatedOutcome): readonly TaskResult[] => [
    ...outcome.groups,
    ...outcome.tasks.map(({ result }) => result),
  ];
  const rows = all(first!).flatMap((task, t) =>
    task.metrics.map(({ metric, filter }, m) => [
      m === 0 ? task.name : "",
      filter === "none" ? metric : `${metric}, ${filter}`,
      ...outcomes.map((one) => valueWords(all(one)[t]!.metrics[m]!)),
      m === 0 ? String(task.size) : "",
    ]),
  );
  const heads = outcomes.length === 1 ? ["value"] : outcomes.map(({ model }) => model.name);
  return table(
    [["task", "metric", ...heads, "samples"], ...rows],
    ["left", "left", ...heads.map(() => "right" as const), "right"],
    columns,
  );
}

function valueWords({ value, stderr }: MetricResult): string {
  return stderr === null ? fixed(value, 4) : `${fixed(value, 4)} ± ${fixed(stderr, 4)}`;
}

function differenceTable(all: readonly TaskDifferences[], columns: number): readonly string[] {
  const rows = all.flatMap(({ task, differences }) =>
    differences.map((one, i) => [
      i === 0 ? task : "",
      one.filter === "none" ? one.metric : `${one.metric}, ${one.filter}`,
      `${signed(one.difference)} [${signed(one.interval[0])}, ${signed(one.interval[1])}]`,
      `${one.better} : ${one.worse}`,
      significant(one.p, 2),
      verdict(one),
    ]),
  );
  return table(
    [["task", "metric", "difference\n[95 %]", "better :\nworse", "p (sign\ntest)", ""], ...rows],
    ["left", "left", "right", "right", "right", "left"],
    columns,
  );
}

const signed = (value: number): string => `${value > 0 ? "+" : ""}${fixed(value, 4)}`;

/** Words for a difference: its interval leaves 0 out, or not. */
function verdict({ interval: [low, high], higherIsBetter }: PairedDifference): string {
  if (low <= 0 && high >= 0) return "not distinguishable";
  return low > 0 === higherIsBetter ? "better" : "worse";
}
