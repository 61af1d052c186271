/**
 * Standard errors as the LM Evaluation Harness gives them: closed form for means, bootstrap with CPython's own draws
 * for what has none, pooled for groups.
 */
import { aggregate, type AggregationName, type SampleValue } from "./metrics.js";
import { PythonRandom } from "./python-random.js";

/** Resamples where a caller does not say. */
export const BOOTSTRAP_ITERATIONS = 100_000;
/** Resamples that share one seed: the number of their chunk. */
const CHUNK = 1000;

/** Aggregations whose standard error is estimated by resampling. */
const resampled: ReadonlySet<AggregationName> = new Set(["median", "matthews_corrcoef", "f1", "perplexity", "nanmean"]);

/** Standard deviation of a sample, with n - 1. */
function sampleDeviation(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  const mean = sum / values.length;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i]! - mean) ** 2;
  return Math.sqrt(squares / (values.length - 1));
}

/** How standard errors are estimated. */
export interface StandardErrorSettings {
  /** Resamples of a bootstrap; 0: no standard errors at all. */
  readonly iterations: number;
  /** Waited for between two chunks of resamples, so that signals are heard. */
  readonly breathe?: (() => Promise<void>) | undefined;
}

/**
 * The standard error of an aggregate; null where the harness says "N/A": for one sample, and for ratios of sums and
 * Brier scores.
 */
export async function standardError(
  name: AggregationName,
  samples: readonly SampleValue[],
  { iterations, breathe }: StandardErrorSettings,
): Promise<number | null> {
  if (iterations <= 0 || samples.length < 2) return null;
  if (name === "mean") return sampleDeviation(samples as readonly number[]) / Math.sqrt(samples.length);
  if (!resampled.has(name)) return null;
  const chunk = Math.min(CHUNK, iterations);
  const chunks = Math.floor(iterations / chunk);
  const values = new Float64Array(chunks * chunk);
  const statistic = statisticOf(name, samples);
  const drawn = new Int32Array(samples.length);
  for (let i = 0; i < chunks; i++) {
    const random = new PythonRandom(i);
    for (let k = 0; k < chunk; k++) values[i * chunk + k] = statistic(random.choices(samples.length, drawn));
    await breathe?.();
  }
  return sampleDeviation(values);
}

/** The aggregate of the samples at the drawn places; perplexities need no array for that. */
function statisticOf(name: AggregationName, samples: readonly SampleValue[]): (drawn: Int32Array) => number {
  if (name !== "perplexity")
    return (drawn) =>
      aggregate(
        name,
        Array.from(drawn, (place) => samples[place]!),
      );
  const numbers = Float64Array.from(samples as readonly number[]);
  return (drawn) => {
    let sum = 0;
    for (const place of drawn) sum += numbers[place]!;
    return Math.exp(-(sum / drawn.length));
  };
}

/** A subtask's share of a group. */
export interface GroupPart {
  readonly value: number;
  /** Null where the subtask has none. */
  readonly stderr: number | null;
  /** Samples of the subtask. */
  readonly size: number;
}

/** Value and standard error of a group, as `lm_eval/api/group.py` aggregates them; at least one part. */
export function aggregateGroup(
  parts: readonly GroupPart[],
  weightBySize: boolean,
): { readonly value: number; readonly stderr: number | null } {
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  const sizes = parts.map(({ size }) => (weightBySize ? size : 1));
  const value = sum(parts.map((part, i) => part.value * sizes[i]!)) / sum(sizes);
  const stderrs = parts.flatMap(({ stderr }) => (stderr === null ? [] : [stderr]));
  if (stderrs.length < parts.length) return { value, stderr: null };
  if (!weightBySize) return { value, stderr: Math.sqrt(sum(stderrs.map((stderr) => stderr ** 2))) / stderrs.length };
  const pooled = sum(parts.map(({ size }, i) => (size - 1) * stderrs[i]! ** 2 * size)) / (sum(sizes) - parts.length);
  return { value, stderr: Math.sqrt(pooled / sum(sizes)) };
}
