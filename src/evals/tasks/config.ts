/** One task of a file, with the harness's defaults filled in (lm_eval/config/task.py). */
import { inputError, type UpcycleError } from "../../base/errors.js";
import { functionMark, type TaskFile } from "../../base/schemas/task.js";
import type { Doc, Value } from "./python-text.js";
import { aggregationOf, isAggregation, isMetric, type AggregationName, type MetricName } from "./metrics.js";
import { requirePort } from "./ports.js";

/** How a model is asked. */
export type OutputType = "multiple_choice" | "loglikelihood" | "loglikelihood_rolling" | "generate_until";

/** A question, answer or choices: a column, a template, `!function ...`, or the value itself. */
export type Field = string | number | readonly Value[] | Readonly<Record<string, Value>>;

/** How few-shot examples are made. */
export interface FewshotConfig {
  readonly sampler: "default" | "first_n";
  readonly split: string | null;
  readonly samples: readonly Doc[] | null;
  readonly processDocs: string | null;
  readonly docToText: Field;
  readonly docToTarget: Field;
  readonly docToChoice: Field | null;
  readonly genPrefix: string | null;
  readonly delimiter: string;
  readonly targetDelimiter: string;
}

/** A metric with its settings. */
export interface MetricConfig {
  readonly name: MetricName;
  readonly aggregation: AggregationName;
  readonly higherIsBetter: boolean;
  /** What the metric itself is told, such as `ignore_case`. */
  readonly settings: Readonly<Record<string, Value>>;
}

/** How text is generated: always the likeliest token. */
export interface GenerationConfig {
  readonly until: readonly string[];
  readonly maxTokens: number;
}

/** A pipeline that answers go through before metrics. */
export interface FilterConfig {
  readonly name: string;
  readonly steps: readonly { readonly name: string; readonly settings: Readonly<Record<string, Value>> }[];
}

/** A task, ready to be asked. */
export interface TaskConfig {
  readonly name: string;
  readonly alias: string;
  /** The file that it comes from, for messages and for files named relative to it. */
  readonly file: string;
  readonly version: string | number;
  readonly outputType: OutputType;
  readonly dataset: {
    readonly path: string | null;
    readonly name: string | null;
    readonly kwargs: Readonly<Record<string, Value>>;
  };
  readonly trainingSplit: string | null;
  readonly validationSplit: string | null;
  readonly testSplit: string | null;
  readonly processDocs: string | null;
  readonly docToText: Field;
  readonly docToTarget: Field;
  readonly docToChoice: Field | null;
  readonly processResults: string | null;
  readonly description: string;
  readonly targetDelimiter: string;
  readonly fewshotDelimiter: string;
  readonly genPrefix: string | null;
  readonly fewshot: FewshotConfig;
  readonly numFewshot: number;
  readonly metrics: readonly MetricConfig[];
  readonly generation: GenerationConfig;
  readonly filters: readonly FilterConfig[];
  readonly repeats: number;
  /** The keys as they are in the files, for the record of results. */
  readonly raw: TaskFile;
}

const defaultMetrics: Readonly<Record<OutputType, readonly MetricName[]>> = {
  loglikelihood: ["perplexity", "acc"],
  loglikelihood_rolling: ["word_perplexity", "byte_perplexity", "bits_per_byte"],
  multiple_choice: ["acc", "acc_norm"],
  generate_until: ["exact_match"],
};

/** Keys of a task that ask for what is not done here, and why. */
const refused = {
  class: "it is written in Python",
  custom_dataset: "its data set is made by Python code",
  doc_to_image: "it shows images",
  doc_to_audio: "it plays sound",
  unsafe_code: "it runs code that models write",
  use_prompt: "its prompt is one of promptsource",
} as const;

const isFunction = (field: unknown): field is string => typeof field === "string" && field.startsWith(functionMark);

/** Makes a task out of its keys. Throws inputError for what is missing, contradicts itself or is not supported. */
export function taskConfig(keys: TaskFile, file: string): TaskConfig {
  const name = typeof keys.task === "string" ? keys.task : "";
  const problem = (message: string, hint?: string): UpcycleError =>
    inputError(message, { where: `${file}: task ${name}`, ...(hint !== undefined && { hint }) });
  for (const [key, why] of Object.entries(refused)) {
    const value = keys[key as keyof typeof refused];
    if (value !== undefined && value !== null && value !== false)
      throw problem(`this task cannot be run here: ${why} (${key})`);
  }
  const outputType = keys.output_type ?? "generate_until";
  const targetDelimiter = keys.target_delimiter ?? " ";
  const fewshotDelimiter = keys.fewshot_delimiter ?? "\n\n";
  const docToText = keys.doc_to_text ?? null;
  const docToTarget = (keys.doc_to_target ?? null) as Field | null;
  const docToChoice = (keys.doc_to_choice ?? null) as Field | null;
  if (docToText === null) throw problem('"doc_to_text" is missing', 'for rolling perplexity write doc_to_text: ""');
  if (docToTarget === null) throw problem('"doc_to_target" is missing');
  if (outputType === "multiple_choice" && docToChoice === null)
    throw problem('"doc_to_choice" is missing, which multiple_choice needs');
  const testSplit = keys.test_split ?? null;
  const validationSplit = keys.validation_split ?? null;
  if (testSplit === null && validationSplit === null)
    throw problem("there is neither test_split nor validation_split, so nothing to evaluate");
  const shots = keys.fewshot_config ?? {};
  if (shots.fewshot_indices !== undefined && shots.fewshot_indices !== null)
    throw problem("fewshot_indices is not supported", "use fewshot_config.samples");
  const config: TaskConfig = {
    name,
    alias: keys.task_alias ?? name,
    file,
    version: versionOf(keys),
    outputType,
    dataset: {
      path: keys.dataset_path ?? null,
      name: keys.dataset_name ?? null,
      kwargs: (keys.dataset_kwargs ?? {}) as Readonly<Record<string, Value>>,
    },
    trainingSplit: keys.training_split ?? null,
    validationSplit,
    testSplit,
    processDocs: keys.process_docs ?? null,
    docToText,
    docToTarget,
    docToChoice,
    processResults: keys.process_results ?? null,
    description: keys.description ?? "",
    targetDelimiter,
    fewshotDelimiter,
    genPrefix: keys.gen_prefix ?? null,
    // What fewshot_config has, even null, stands in place of the task's own.
    fewshot: {
      sampler: shots.sampler ?? "default",
      split: shots.split === undefined ? (keys.fewshot_split ?? null) : shots.split,
      samples: samplesOf(shots.samples, problem),
      processDocs: (shots.process_docs === undefined ? keys.process_docs : shots.process_docs) ?? null,
      docToText: shots.doc_to_text ?? docToText,
      docToTarget: (shots.doc_to_target ?? docToTarget) as Field,
      docToChoice: (shots.doc_to_choice === undefined ? docToChoice : shots.doc_to_choice) as Field | null,
      genPrefix: (shots.gen_prefix === undefined ? keys.gen_prefix : shots.gen_prefix) ?? null,
      delimiter: shots.fewshot_delimiter ?? fewshotDelimiter,
      targetDelimiter: shots.target_delimiter ?? targetDelimiter,
    },
    numFewshot: keys.num_fewshot ?? 0,
    metrics: metricsOf(keys, outputType, problem),
    generation: generationOf(keys, fewshotDelimiter, problem),
    filters: filtersOf(keys),
    repeats: keys.repeats ?? 1,
    raw: keys,
  };
  requirePorts(config, file);
  return config;
}

function versionOf({ metadata }: TaskFile): string | number {
  const version = metadata?.["version"];
  return typeof version === "number" || typeof version === "string" ? version : "Yaml";
}

type Problem = (message: string, hint?: string) => UpcycleError;
type Shots = NonNullable<TaskFile["fewshot_config"]>;

function samplesOf(samples: Shots["samples"], problem: Problem): readonly Doc[] | null {
  if (samples === undefined || samples === null) return null;
  if (typeof samples !== "string") return samples as readonly Doc[];
  throw problem(`fewshot_config.samples is ${samples}, which is no list`, "write the examples into the file");
}

function metricsOf({ metric_list: list }: TaskFile, output: OutputType, problem: Problem): readonly MetricConfig[] {
  const entries = list ?? defaultMetrics[output].map((metric) => ({ metric }));
  return entries.map((entry): MetricConfig => {
    const {
      metric,
      aggregation,
      higher_is_better: better,
      hf_evaluate: hub,
      ...settings
    } = entry as typeof entry & {
      readonly aggregation?: string;
      readonly higher_is_better?: boolean;
      readonly hf_evaluate?: boolean;
    };
    if (!isMetric(metric)) throw problem(`the metric "${metric}" is not supported`, "leave it out of metric_list");
    if (hub === true) throw problem(`the metric "${metric}" is one of the package evaluate, which is Python`);
    if (aggregation !== undefined && !isAggregation(aggregation))
      throw problem(`the aggregation "${aggregation}" of ${metric} is not supported`);
    const known = aggregationOf(metric);
    return {
      name: metric,
      aggregation: aggregation ?? known.aggregation,
      higherIsBetter: better ?? known.higherIsBetter,
      settings: settings as Readonly<Record<string, Value>>,
    };
  });
}

function filtersOf({ filter_list: list }: TaskFile): FilterConfig[] {
  if (list === undefined || list === null) return [{ name: "none", steps: [{ name: "take_first", settings: {} }] }];
  return list.map(({ name, filter }) => ({
    name,
    steps: filter.map(({ function: step, ...settings }) => ({
      name: step,
      settings: settings as Readonly<Record<string, Value>>,
    })),
  }));
}

/** Most tokens of an answer where a task does not say. */
const MOST_TOKENS = 256;
const lengthKeys = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"];
const silentKeys = new Set(["until", "do_sample", "temperature", "top_p", "top_k", ...lengthKeys]);

function generationOf(keys: TaskFile, fewshotDelimiter: string, problem: Problem): GenerationConfig {
  const given = (keys.generation_kwargs ?? {}) as Readonly<Record<string, Value>>;
  if (keys.output_type !== undefined && keys.output_type !== "generate_until")
    return { until: [], maxTokens: MOST_TOKENS };
  if (given["do_sample"] === true || Number(given["temperature"] ?? 0) > 0)
    throw problem(
      "generation_kwargs asks for sampling, whose draws no two programs share",
      "set do_sample: false and temperature: 0",
    );
  const unknown = Object.keys(given).find((key) => !silentKeys.has(key));
  if (unknown !== undefined) throw problem(`"${unknown}" in generation_kwargs is not supported`);
  const until = given["until"] ?? [fewshotDelimiter];
  const length = lengthKeys.map((key) => given[key]).find((value) => value !== undefined && value !== null);
  const maxTokens = length === undefined ? MOST_TOKENS : Number(length);
  if (!Number.isInteger(maxTokens) || maxTokens < 1)
    throw problem(`generation_kwargs asks for ${JSON.stringify(length)} tokens, expected a whole number of at least 1`);
  return { until: (Array.isArray(until) ? until : [until]).map(String), maxTokens };
}

/** Refuses functions that have no port, by name, before anything is loaded. */
function requirePorts(config: TaskConfig, file: string): void {
  const { fewshot } = config;
  const uses = [
    ["process_docs", config.processDocs, "docs"],
    ["fewshot_config.process_docs", fewshot.processDocs, "docs"],
    ["doc_to_text", config.docToText, "field"],
    ["doc_to_target", config.docToTarget, "field"],
    ["doc_to_choice", config.docToChoice, "field"],
    ["fewshot_config.doc_to_text", fewshot.docToText, "field"],
    ["fewshot_config.doc_to_target", fewshot.docToTarget, "field"],
    ["fewshot_config.doc_to_choice", fewshot.docToChoice, "field"],
    ["process_results", config.processResults, "results"],
  ] as const;
  for (const [key, field, kind] of uses)
    if (isFunction(field)) requirePort(kind, field, { file, where: `${file}: task ${config.name} (${key})` });
}
