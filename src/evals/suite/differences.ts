/** Models side by side: each against the first, task by task. */
import { pairedDifference, type PairedDifference } from "../tasks/paired.js";
import type { SampleValue } from "../tasks/metrics.js";
import type { ModelOutcome, TaskOutcome } from "./evaluate.js";

/** How two models differ on one task. */
export interface TaskDifferences {
  readonly task: string;
  readonly differences: readonly PairedDifference[];
}

/** How a model differs from another on the same tasks, asked alike. */
export function differencesOf(first: ModelOutcome, second: ModelOutcome): readonly TaskDifferences[] {
  return first.tasks.flatMap((task, i): TaskDifferences[] => {
    const other = second.tasks[i];
    return other === undefined ? [] : [{ task: task.result.name, differences: taskDifferences(task, other) }];
  });
}

function taskDifferences(first: TaskOutcome, second: TaskOutcome): readonly PairedDifference[] {
  const { filters, metrics } = first.task.config;
  return filters.flatMap(({ name: filter }) =>
    metrics.flatMap(({ name: metric, aggregation, higherIsBetter }) => {
      const values = ({ records }: TaskOutcome): SampleValue[] =>
        records.flatMap(({ results }) => {
          const value = results.find((one) => one.filter === filter)?.metrics[metric];
          return value === undefined ? [] : [value];
        });
      const paired = { metric, filter, aggregation, higherIsBetter, first: values(first), second: values(second) };
      return pairedDifference(paired) ?? [];
    }),
  );
}
