/** Results of tasks and groups out of their samples, as the LM Evaluation Harness aggregates them. */
import { aggregate, type SampleValue } from "./metrics.js";
import type { FilteredResult } from "./sample-results.js";
import type { Group } from "./select.js";
import { aggregateGroup, standardError, type StandardErrorSettings } from "./standard-errors.js";
import type { TaskConfig } from "./config.js";

/** One number of a task or group. */
export interface MetricResult {
  readonly metric: string;
  readonly filter: string;
  readonly value: number;
  /** Null where there is none, which the harness calls N/A. */
  readonly stderr: number | null;
  readonly higherIsBetter: boolean;
}

/** The numbers of one task or group. */
export interface TaskResult {
  readonly name: string;
  readonly alias: string;
  /** Samples. */
  readonly size: number;
  readonly metrics: readonly MetricResult[];
}

/** The numbers of a task from the results of all its samples, in the order of the documents. */
export async function taskResult(
  config: TaskConfig,
  samples: readonly (readonly FilteredResult[])[],
  settings: StandardErrorSettings,
): Promise<TaskResult> {
  const metrics: MetricResult[] = [];
  for (const { name: filter } of config.filters) {
    for (const { name: metric, aggregation, higherIsBetter } of config.metrics) {
      const values = samples.flatMap((results): SampleValue[] => {
        const value = results.find((result) => result.filter === filter)?.metrics[metric];
        return value === undefined ? [] : [value];
      });
      if (values.length === 0) continue;
      metrics.push({
        metric,
        filter,
        value: aggregate(aggregation, values),
        stderr: await standardError(aggregation, values, settings),
        higherIsBetter,
      });
    }
  }
  return { name: config.name, alias: config.alias, size: samples.length, metrics };
}

/** The numbers of a group from those of its tasks; none where the group names no metrics. */
export function groupResult(group: Group, tasks: ReadonlyMap<string, TaskResult>): TaskResult {
  const members = group.tasks.flatMap((name) => tasks.get(name) ?? []);
  const metrics = group.metrics.flatMap(({ metric, filters, weightBySize }) => {
    const found = new Set(
      members.flatMap((task) => task.metrics.filter((one) => one.metric === metric).map(({ filter }) => filter)),
    );
    return (filters ?? [...found].sort()).flatMap((filter): MetricResult[] => {
      const parts = members.flatMap((task) =>
        task.metrics
          .filter((one) => one.metric === metric && one.filter === filter)
          .map((one) => ({ ...one, size: task.size })),
      );
      const [first] = parts;
      if (first === undefined) return [];
      const { higherIsBetter } = first;
      return [{ metric, filter, higherIsBetter, ...aggregateGroup(parts, weightBySize) }];
    });
  });
  return {
    name: group.name,
    alias: group.alias,
    size: members.reduce((sum, { size }) => sum + size, 0),
    metrics,
  };
}
