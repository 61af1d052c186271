/** Models side by side: each against the first, group by group and task by task. */
import { pairedDifference, type PairedDifference } from "../tasks/paired.js";
import type { MetricName, SampleValue } from "../tasks/metrics.js";
import { inGroups, type Group } from "../tasks/select.js";
import type { ModelOutcome, TaskOutcome } from "./evaluate.js";

/** How two models differ on one task, or on the samples of all tasks of a group together. */
export interface TaskDifferences {
  readonly task: string;
  readonly differences: readonly PairedDifference[];
}

/** How a model differs from another on the same tasks, asked alike: `groups` first. */
export function differencesOf(
  first: ModelOutcome,
  second: ModelOutcome,
  groups: readonly Group[],
): readonly TaskDifferences[] {
  const pairs = first.tasks.flatMap((task, i): Pair[] => {
    const other = second.tasks[i];
    return other === undefined ? [] : [[task, other]];
  });
  const byName = new Map(groups.map((group) => [group.name, group]));
  const ordered = new Set(inGroups(groups, []).flatMap(({ name }) => byName.get(name) ?? []));
  return [
    ...[...ordered].map((group) => ({ task: group.name, differences: groupDifferences(group, pairs) })),
    ...pairs.map(([task, other]) => ({ task: task.result.name, differences: taskDifferences(task, other) })),
  ].filter(({ differences }) => differences.length > 0);
}

type Pair = readonly [first: TaskOutcome, second: TaskOutcome];

const valuesOf = ({ records }: TaskOutcome, filter: string, metric: MetricName): SampleValue[] =>
  records.flatMap(({ results }) => {
    const value = results.find((one) => one.filter === filter)?.metrics[metric];
    return value === undefined ? [] : [value];
  });

function taskDifferences(first: TaskOutcome, second: TaskOutcome): readonly PairedDifference[] {
  const { filters, metrics } = first.task.config;
  return filters.flatMap(({ name: filter }) =>
    metrics.flatMap(({ name: metric, aggregation, higherIsBetter }) => {
      const values = (outcome: TaskOutcome) => valuesOf(outcome, filter, metric);
      const paired = { metric, filter, aggregation, higherIsBetter, first: values(first), second: values(second) };
      return pairedDifference(paired) ?? [];
    }),
  );
}

/** Means over all samples of a group, for the metrics that it weighs by samples. */
function groupDifferences({ tasks, metrics }: Group, all: readonly Pair[]): readonly PairedDifference[] {
  const pairs = all.filter(([{ result }]) => tasks.includes(result.name));
  const [example] = pairs;
  if (example === undefined) return [];
  const { config } = example[0].task;
  return config.filters.flatMap(({ name: filter }) =>
    config.metrics.flatMap(({ name: metric, aggregation, higherIsBetter }) => {
      const isShown = metrics.some(
        (one) => one.metric === metric && one.weightBySize && (one.filters === null || one.filters.includes(filter)),
      );
      const isEverywhere = pairs.every(([{ task }]) => task.config.metrics.some(({ name }) => name === metric));
      if (!isShown || !isEverywhere || aggregation !== "mean") return [];
      const values = (side: 0 | 1) => pairs.flatMap((pair) => valuesOf(pair[side], filter, metric));
      return (
        pairedDifference({ metric, filter, aggregation, higherIsBetter, first: values(0), second: values(1) }) ?? []
      );
    }),
  );
}
