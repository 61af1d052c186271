/**
 * Two models on the same samples. Differences are taken sample by sample, which removes what both find easy or hard: so
 * they are known far better than either score.
 */
import type { AggregationName, MetricName, SampleValue } from "./metrics.js";

/** How two models differ in one metric, the second minus the first. */
export interface PairedDifference {
  readonly metric: MetricName;
  readonly filter: string;
  /** What the difference is one of. */
  readonly unit: "share of samples" | "nats per sample" | "bits per byte" | "nats per word" | "nats per byte" | "mean";
  /** Whether a larger value of `difference` is better. */
  readonly higherIsBetter: boolean;
  readonly samples: number;
  readonly difference: number;
  /** 95 % confidence interval, from the standard error of the paired differences and the normal distribution. */
  readonly interval: readonly [low: number, high: number];
  /** Samples on which the second is better, and on which the first is. */
  readonly better: number;
  readonly worse: number;
  /**
   * Probability of counts at least as uneven if neither model were better: the exact sign test, which for right and
   * wrong answers is McNemar's exact test. 1 where no sample differs.
   */
  readonly p: number;
}

/** 97.5 % of the normal distribution lies below. */
const Z = 1.959963984540054;

/** Both models' values of one metric, sample by sample. */
export interface PairedValues {
  readonly metric: MetricName;
  readonly filter: string;
  readonly aggregation: AggregationName;
  readonly higherIsBetter: boolean;
  readonly first: readonly SampleValue[];
  readonly second: readonly SampleValue[];
}

/** The difference; null for metrics of which samples have no values of their own, and for less than two samples. */
export function pairedDifference(values: PairedValues): PairedDifference | null {
  const { metric, filter, aggregation, first, second } = values;
  if (first.length !== second.length || first.length < 2) return null;
  const basics = { metric, filter, samples: first.length };
  if (aggregation === "mean" && [...first, ...second].every((value) => typeof value === "number")) {
    const [a, b] = [first, second] as readonly (readonly number[])[];
    const isShare = [...a!, ...b!].every((value) => value === 0 || value === 1);
    return {
      ...basics,
      ...meanDifference(a!, b!, values.higherIsBetter),
      unit: isShare ? "share of samples" : "mean",
      higherIsBetter: values.higherIsBetter,
    };
  }
  // A perplexity is the exponential of a mean; what is additive is the log-likelihood.
  if (aggregation === "perplexity") {
    const [a, b] = [first, second] as readonly (readonly number[])[];
    return { ...basics, ...meanDifference(a!, b!, true), unit: "nats per sample", higherIsBetter: true };
  }
  if (aggregation === "weighted_perplexity" || aggregation === "bits_per_byte") {
    const [a, b] = [first, second] as readonly (readonly (readonly [number, number])[])[];
    const isBits = aggregation === "bits_per_byte";
    const scale = isBits ? -1 / Math.LN2 : 1;
    const perWord = metric === "word_perplexity";
    return {
      ...basics,
      ...ratioDifference(a!, b!, scale),
      unit: isBits ? "bits per byte" : perWord ? "nats per word" : "nats per byte",
      higherIsBetter: !isBits,
    };
  }
  return null;
}

type Difference = Pick<PairedDifference, "difference" | "interval" | "better" | "worse" | "p">;

const sumOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

function withSigns(
  difference: number,
  stderr: number,
  differences: readonly number[],
  higherIsBetter: boolean,
): Difference {
  const up = differences.filter((value) => value > 0).length;
  const down = differences.filter((value) => value < 0).length;
  return {
    difference,
    interval: [difference - Z * stderr, difference + Z * stderr],
    better: higherIsBetter ? up : down,
    worse: higherIsBetter ? down : up,
    p: signTest(up, down),
  };
}

function meanDifference(first: readonly number[], second: readonly number[], higherIsBetter: boolean): Difference {
  const differences = first.map((value, i) => second[i]! - value);
  const n = differences.length;
  const mean = sumOf(differences) / n;
  const variance = sumOf(differences.map((value) => (value - mean) ** 2)) / (n - 1);
  return withSigns(mean, Math.sqrt(variance / n), differences, higherIsBetter);
}

/** Of log-likelihoods over weights that both models share: a ratio of sums, whose error is that of its residuals. */
function ratioDifference(
  first: readonly (readonly [number, number])[],
  second: readonly (readonly [number, number])[],
  scale: number,
): Difference {
  const differences = first.map(([value], i) => scale * (second[i]![0] - value));
  const weights = first.map(([, weight]) => weight);
  const total = sumOf(weights);
  const n = differences.length;
  const ratio = sumOf(differences) / total;
  const residuals = sumOf(differences.map((value, i) => (value - ratio * weights[i]!) ** 2));
  return withSigns(ratio, Math.sqrt((n / (n - 1)) * residuals) / total, differences, scale > 0);
}

/** Two-sided exact sign test: of so many samples that differ, half would be expected on either side. */
export function signTest(up: number, down: number): number {
  const n = up + down;
  if (n === 0) return 1;
  const least = Math.min(up, down);
  // Terms of the binomial distribution, each from the one before, in logs: 0.5^n alone underflows.
  let logTerm = -n * Math.LN2;
  let sum = 0;
  for (let k = 0; k <= least; k++) {
    sum += Math.exp(logTerm);
    logTerm += Math.log(n - k) - Math.log(k + 1);
  }
  return Math.min(1, 2 * sum);
}
