/** What a model's answers to one sample are worth, by metric (`process_results` of lm_eval/api/task.py). */
import type { TaskConfig } from "./config.js";
import { filterOf } from "./filters.js";
import { argmax, exactMatchForm, softmax, type MetricName, type SampleValue } from "./metrics.js";
import { countBytes, countWords, requirePort } from "./ports.js";
import type { LoadedTask, Sample } from "./prompt.js";
import { pythonLength, str, type Value } from "./python-text.js";

/** An answer to one request. */
export type Response =
  | { readonly kind: "loglikelihood"; readonly logLikelihood: number; readonly greedy: boolean }
  | { readonly kind: "rolling"; readonly logLikelihood: number }
  | { readonly kind: "generate"; readonly text: string };

/** What one filter and the metrics behind it make of a sample. */
export interface FilteredResult {
  readonly filter: string;
  /** What the filter leaves of each answer. */
  readonly filtered: readonly Value[];
  readonly metrics: Readonly<Partial<Record<MetricName, SampleValue>>>;
}

/** What judges answers; everything that can be refused is refused when it is made. */
export interface Judge {
  /** One result for each filter. `responses` are those to the sample's requests, in order. */
  judge(sample: Sample, responses: readonly Response[]): readonly FilteredResult[];
  /** The choice with the largest log-likelihood, and the right one; null where there are no choices or several. */
  chosen(sample: Sample, responses: readonly Response[]): { readonly chosen: number; readonly gold: number } | null;
}

/** Makes the judge of a task. Throws inputError for filters and patterns that are not supported. */
export function judgeOf(task: LoadedTask): Judge {
  const { config } = task;
  const where = `${config.file}: task ${config.name}`;
  const filters = config.filters.map((filter) => ({ name: filter.name, apply: filterOf(filter, where) }));
  const exactMatch = config.metrics.find(({ name }) => name === "exact_match");
  const form = exactMatchForm(exactMatch?.settings ?? {}, where);
  const metricsOf = (
    sample: Sample,
    responses: readonly Response[],
    filtered: readonly Value[],
  ): FilteredResult["metrics"] => {
    switch (config.outputType) {
      case "multiple_choice":
        return choiceMetrics(task, sample, responses);
      case "loglikelihood":
        return continuationMetrics(responses);
      case "loglikelihood_rolling":
        return rollingMetrics(config, sample, responses);
      case "generate_until":
        return { exact_match: matches(task, sample, filtered[0] ?? "", form) };
    }
  };
  return {
    judge: (sample, responses) =>
      filters.map(({ name, apply }) => {
        const filtered = responses.map((response) => apply(answersOf(response, config.repeats)));
        const all = metricsOf(sample, responses, filtered);
        const wanted = config.metrics.flatMap(({ name: metric }) =>
          all[metric] === undefined ? [] : [[metric, all[metric]] as const],
        );
        return { filter: name, filtered, metrics: Object.fromEntries(wanted) };
      }),
    chosen(sample, responses) {
      if (config.outputType !== "multiple_choice") return null;
      const gold = goldOf(task, sample);
      if (typeof gold !== "number") return null;
      const choices = task.choices(sample.doc).length;
      return { chosen: argmax(logLikelihoods(responses).slice(0, choices)), gold };
    },
  };
}

/** Generation takes the likeliest tokens, so that repeats are equal. */
function answersOf(response: Response, repeats: number): readonly Value[] {
  switch (response.kind) {
    case "generate":
      return Array.from({ length: repeats }, () => response.text);
    case "rolling":
      return [response.logLikelihood];
    case "loglikelihood":
      return [[response.logLikelihood, response.greedy]];
  }
}

const logLikelihoods = (responses: readonly Response[]): number[] =>
  responses.map((response) => (response.kind === "generate" ? NaN : response.logLikelihood));

const isGreedy = (response: Response | undefined): boolean => response?.kind === "loglikelihood" && response.greedy;

/** The place of the right choice, or of each right one; -100 for what is no choice. */
function goldOf(task: LoadedTask, { doc }: Sample): number | readonly number[] {
  const choices = task.choices(doc);
  const gold = task.multipleInput ? task.text(doc) : task.target(doc);
  if (Array.isArray(gold)) return (gold as readonly number[]).map((place) => (place < choices.length ? place : -100));
  if (typeof gold === "string") return choices.includes(gold) ? choices.indexOf(gold) : -100;
  return typeof gold === "number" && gold < choices.length ? gold : -100;
}

function choiceMetrics(task: LoadedTask, sample: Sample, responses: readonly Response[]): FilteredResult["metrics"] {
  const choices = task.choices(sample.doc);
  const all = logLikelihoods(responses);
  const lls = all.slice(0, choices.length);
  const alone = all.slice(choices.length);
  const gold = goldOf(task, sample);
  const golds: readonly number[] = typeof gold === "number" ? [gold] : gold;
  const isRight = (place: number): number => (golds.includes(place) ? 1 : 0);
  const perLength = (length: (choice: string) => number): number =>
    isRight(argmax(lls.map((ll, i) => ll / length(choices[i]!))));
  const first = golds[0] ?? -100;
  return {
    acc: isRight(argmax(lls)),
    acc_norm: perLength(pythonLength),
    acc_bytes: perLength(countBytes),
    exact_match: golds.some((place) => isGreedy(responses.slice(0, choices.length).at(place))) ? 1 : 0,
    brier_score: [first, softmax(lls)],
    likelihood: [first, lls],
    mcc: [first, argmax(lls)],
    f1: [first, argmax(lls)],
    ...(alone.length === choices.length && { acc_mutual_info: isRight(argmax(lls.map((ll, i) => ll - alone[i]!))) }),
  };
}

function continuationMetrics([response]: readonly Response[]): FilteredResult["metrics"] {
  const logLikelihood = response?.kind === "loglikelihood" ? response.logLikelihood : NaN;
  return { perplexity: logLikelihood, acc: isGreedy(response) ? 1 : 0 };
}

function rollingMetrics(config: TaskConfig, sample: Sample, responses: readonly Response[]): FilteredResult["metrics"] {
  const [logLikelihood = NaN] = logLikelihoods(responses);
  if (config.processResults !== null) {
    const where = `${config.file}: task ${config.name}`;
    return requirePort("results", config.processResults, { file: config.file, where })(sample.doc, logLikelihood);
  }
  const text = str(sample.target);
  const [words, bytes] = [countWords(text), countBytes(text)];
  return {
    word_perplexity: [logLikelihood, words],
    byte_perplexity: [logLikelihood, bytes],
    bits_per_byte: [logLikelihood, bytes],
  };
}

/** 1 where the answer is one of those that are right, both in the form in which they are compared. */
function matches(task: LoadedTask, sample: Sample, answer: Value, form: (text: string) => string): number {
  const target = sample.target;
  const right =
    task.config.docToChoice !== null
      ? [task.choices(sample.doc).at(target as number) ?? ""]
      : Array.isArray(target)
        ? (target as readonly Value[])
        : [target];
  const given = form(str(answer));
  return right.some((one) => form(str(one)) === given) ? 1 : 0;
}
