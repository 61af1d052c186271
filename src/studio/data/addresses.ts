/** Addresses of answers, written in one way, so that a page in one file finds in itself what it would ask a server. */
import type { Metric } from "./types.js";

/** Measures that a comparison offers. */
export const viewMetrics: readonly Metric[] = [
  "eval/loss",
  "train/loss",
  "train/tokens_per_second",
  "eval/dead_experts",
];

/** A path with its settings. */
export function answerAddress(path: string, settings: readonly (readonly [string, string])[] = []): string {
  const query = queryOf(settings).toString();
  return query === "" ? path : `${path}?${query}`;
}

/** Settings as a query; a key may stand several times. */
export function queryOf(settings: readonly (readonly [string, string])[]): URLSearchParams {
  const query = new URLSearchParams();
  for (const [key, value] of settings) query.append(key, value);
  return query;
}

/** What asks for a measure of runs over tokens. */
export const curvesAddress = (runs: readonly string[], metric: Metric): string =>
  answerAddress("/api/curves", [...runs.map((run) => ["run", run] as const), ["metric", metric]]);

/** Curves over tokens, under which a file keeps them whatever their columns. */
export const curveAddress = (runs: readonly string[], metric: Metric): string =>
  answerAddress("/api/curves", [...[...runs].sort().map((run) => ["run", run] as const), ["metric", metric]]);
