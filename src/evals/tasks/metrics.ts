/**
 * Metrics of the LM Evaluation Harness (lm_eval/api/metrics.py): what one sample gives, and how samples become one
 * number. Sums run in the order of the samples, in float64, as Python's do.
 */
import { inputError } from "../../base/errors.js";
import { pythonRegex, pythonReplace, type Value } from "./python-text.js";

/** How samples become one number. */
export type AggregationName =
  | "mean"
  | "median"
  | "nanmean"
  | "perplexity"
  | "weighted_perplexity"
  | "bits_per_byte"
  | "f1"
  | "matthews_corrcoef"
  | "brier_score";

/** Metrics that are computed. */
export type MetricName =
  | "acc"
  | "acc_norm"
  | "acc_bytes"
  | "acc_mutual_info"
  | "exact_match"
  | "perplexity"
  | "word_perplexity"
  | "byte_perplexity"
  | "bits_per_byte"
  | "brier_score"
  | "likelihood"
  | "mcc"
  | "f1";

/**
 * What one sample gives: a number; [log-likelihood, weight]; [right choice, chosen one]; or [right choice,
 * probabilities of all].
 */
export type SampleValue = number | readonly [number, number] | readonly [number, readonly number[]];

interface Known {
  readonly aggregation: AggregationName;
  readonly higherIsBetter: boolean;
}

const metrics: Readonly<Record<MetricName, Known>> = {
  acc: { aggregation: "mean", higherIsBetter: true },
  acc_norm: { aggregation: "mean", higherIsBetter: true },
  acc_bytes: { aggregation: "mean", higherIsBetter: true },
  acc_mutual_info: { aggregation: "mean", higherIsBetter: true },
  exact_match: { aggregation: "mean", higherIsBetter: true },
  perplexity: { aggregation: "perplexity", higherIsBetter: false },
  word_perplexity: { aggregation: "weighted_perplexity", higherIsBetter: false },
  byte_perplexity: { aggregation: "weighted_perplexity", higherIsBetter: false },
  bits_per_byte: { aggregation: "bits_per_byte", higherIsBetter: false },
  brier_score: { aggregation: "brier_score", higherIsBetter: false },
  likelihood: { aggregation: "mean", higherIsBetter: true },
  mcc: { aggregation: "matthews_corrcoef", higherIsBetter: true },
  f1: { aggregation: "f1", higherIsBetter: true },
};

/** Whether a metric is known. */
export const isMetric = (name: string): name is MetricName => Object.hasOwn(metrics, name);

/** The aggregation that a metric has of itself, and its direction. */
export const aggregationOf = (name: MetricName): Known => metrics[name];

type Numbers = readonly number[];
type Pairs = readonly (readonly [number, number])[];

const sumOf = (values: Numbers): number => values.reduce((sum, value) => sum + value, 0);
const mean = (values: Numbers): number => sumOf(values) / values.length;

/** sum / sum of pairs. */
const weightedMean = (pairs: Pairs): number => sumOf(pairs.map(([a]) => a)) / sumOf(pairs.map(([, b]) => b));

/** F1 of class 1 among classes 0 and 1, as scikit-learn's `f1_score` computes it: 0 where there is none. */
function f1(pairs: Pairs): number {
  const count = (gold: number, chosen: number): number => pairs.filter(([g, c]) => g === gold && c === chosen).length;
  const hits = count(1, 1);
  const total = 2 * hits + count(0, 1) + count(1, 0);
  return total === 0 ? 0 : (2 * hits) / total;
}

/** Matthews's correlation coefficient of any number of classes, as scikit-learn computes it. */
function matthews(pairs: Pairs): number {
  const classes = [...new Set(pairs.flat())];
  const golds = classes.map((one) => pairs.filter(([gold]) => gold === one).length);
  const chosen = classes.map((one) => pairs.filter(([, choice]) => choice === one).length);
  const right = pairs.filter(([gold, choice]) => gold === choice).length;
  const dot = (a: Numbers, b: Numbers): number => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  const total = pairs.length;
  const both = right * total - dot(golds, chosen);
  const spread = (total ** 2 - dot(chosen, chosen)) * (total ** 2 - dot(golds, golds));
  return spread === 0 ? 0 : both / Math.sqrt(spread);
}

/** Mean squared distance of the probabilities from 1 for the right choice and 0 for the others. */
function brier(samples: readonly (readonly [number, Numbers])[]): number {
  return mean(
    samples.map(([gold, probabilities]) =>
      sumOf(probabilities.map((probability, i) => (probability - (i === gold ? 1 : 0)) ** 2)),
    ),
  );
}

const aggregations: Readonly<Record<AggregationName, (samples: readonly SampleValue[]) => number>> = {
  mean: (samples) => mean(samples as Numbers),
  median: (samples) => [...(samples as Numbers)].sort((a, b) => a - b)[Math.floor(samples.length / 2)] ?? NaN,
  nanmean: (samples) => mean((samples as Numbers).filter((value) => !Number.isNaN(value))),
  perplexity: (samples) => Math.exp(-mean(samples as Numbers)),
  weighted_perplexity: (samples) => Math.exp(-weightedMean(samples as Pairs)),
  bits_per_byte: (samples) => -weightedMean(samples as Pairs) / Math.LN2,
  f1: (samples) => f1(samples as Pairs),
  matthews_corrcoef: (samples) => matthews(samples as Pairs),
  brier_score: (samples) => brier(samples as readonly (readonly [number, Numbers])[]),
};

/** Whether an aggregation is known. */
export const isAggregation = (name: string): name is AggregationName => Object.hasOwn(aggregations, name);

/** One number out of all samples, at least one. */
export const aggregate = (name: AggregationName, samples: readonly SampleValue[]): number =>
  aggregations[name](samples);

/** The choice with the largest value; the first of equals; the first NaN, as NumPy's `argmax` has it. */
export function argmax(values: Numbers): number {
  let best = 0;
  for (const [i, value] of values.entries()) {
    if (Number.isNaN(value)) return i;
    if (value > values[best]!) best = i;
  }
  return best;
}

/** Probabilities in proportion to the exponentials. */
export function softmax(values: Numbers): number[] {
  const largest = Math.max(...values);
  const exponentials = values.map((value) => Math.exp(value - largest));
  const total = sumOf(exponentials);
  return exponentials.map((value) => value / total);
}

const punctuation = new Set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");

/** How texts are made alike before they are compared. */
export interface ExactMatchSettings {
  /** Patterns of Python that are taken out, in order. */
  readonly regexes_to_ignore?: Value;
  readonly ignore_case?: Value;
  readonly ignore_punctuation?: Value;
  readonly ignore_numbers?: Value;
}

/** What makes a text ready for comparison. Throws inputError for a pattern that cannot be read. */
export function exactMatchForm(settings: ExactMatchSettings, where: string): (text: string) => string {
  const patterns = Array.isArray(settings.regexes_to_ignore) ? (settings.regexes_to_ignore as readonly Value[]) : [];
  const regexes = patterns.map((pattern) => {
    if (typeof pattern !== "string") throw inputError("regexes_to_ignore holds what is no pattern", { where });
    return pythonRegex(pattern, where);
  });
  const without = (text: string, unwanted: (character: string) => boolean): string =>
    [...text].filter((character) => !unwanted(character)).join("");
  return (text) => {
    let form = regexes.reduce((rest, regex) => pythonReplace(regex, "", rest), text);
    if (settings.ignore_case === true) form = form.toLowerCase();
    if (settings.ignore_punctuation === true) form = without(form, (character) => punctuation.has(character));
    if (settings.ignore_numbers === true) form = without(form, (character) => /[0-9]/.test(character));
    // NumPy's arrays of text do not keep zeros at the end of their elements.
    return form.replace(/\0+$/, "");
  };
}
