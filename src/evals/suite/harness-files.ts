/**
 * Results and samples in the layouts of the LM Evaluation Harness (loggers/evaluation_tracker.py), so that what reads
 * its files reads ours.
 */
import { createHash } from "node:crypto";
import { str, type Value } from "../tasks/python-text.js";
import type { Request } from "../tasks/prompt.js";
import type { Response } from "../tasks/sample-results.js";
import type { Group, Selection } from "../tasks/select.js";
import type { TaskResult } from "../tasks/task-results.js";
import { FEWSHOT_SEED } from "../tasks/prompt.js";
import { BOOTSTRAP_ITERATIONS } from "../tasks/standard-errors.js";
import type { EvaluationSettings, ModelOutcome, SampleRecord, TaskOutcome } from "./evaluate.js";

type Json = Readonly<Record<string, unknown>>;

/** What the files say of a model and how it was asked. */
export interface EvaluatedModel {
  readonly name: string;
  readonly maxLength: number;
  readonly device: string;
  readonly version: string;
  /** The chat template that its prompts were made with; null: plain text. */
  readonly chat: { readonly template: string; readonly multiturn: boolean } | null;
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/** A name as a folder: `org/name` becomes `org__name`. */
export const sanitized = (name: string): string => name.replace(/["<>:/|\\?*[\]]+/g, "__").replace(/^[.\s]+/, "_");

/** `2026-11-30T13-32-27.123000`, as in the names of the harness's files. */
export const dateId = (date: Date): string => date.toISOString().replace(/Z$/, "000").replaceAll(":", "-");

/** The numbers of a task or group under the harness's keys. */
export function metricKeys({ name, alias, size, metrics }: TaskResult): Json {
  return {
    name,
    alias,
    sample_len: size,
    ...Object.fromEntries(
      metrics.flatMap(({ metric, filter, value, stderr }) => [
        [`${metric},${filter}`, value],
        [`${metric}_stderr,${filter}`, stderr ?? "N/A"],
      ]),
    ),
  };
}

/** The content of `results_DATE.json`. */
export function resultsFile(
  model: EvaluatedModel,
  { tasks, groups, seconds }: ModelOutcome,
  {
    selection,
    settings,
    date,
  }: { readonly selection: Selection; readonly settings: EvaluationSettings; readonly date: Date },
): Json {
  const byName = (entries: readonly (readonly [string, unknown])[]): Json =>
    Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));
  const configs = tasks.map(({ task: { config }, numFewshot }): [string, unknown] => [
    config.name,
    { ...config.raw, task: config.name, num_fewshot: numFewshot },
  ]);
  const shown = groups.filter((_, i) => (selection.groups[i]?.metrics.length ?? 0) > 0);
  return {
    results: Object.fromEntries(
      [...tasks.map(({ result }) => result), ...groups].map((one) => [one.name, metricKeys(one)]),
    ),
    ...(shown.length > 0 && { groups: Object.fromEntries(shown.map((one) => [one.name, metricKeys(one)])) }),
    group_subtasks: Object.fromEntries(selection.groups.map(({ name, children }: Group) => [name, children])),
    configs: byName(configs),
    versions: byName([
      ...tasks.map(({ task: { config } }): [string, unknown] => [config.name, config.version]),
      ...selection.groups.map(({ name, version }): [string, unknown] => [name, version]),
    ]),
    "n-shot": byName(tasks.map(({ task: { config }, numFewshot }) => [config.name, numFewshot])),
    higher_is_better: byName(
      tasks.map(({ task: { config } }) => [
        config.name,
        Object.fromEntries(config.metrics.map(({ name, higherIsBetter }) => [name, higherIsBetter])),
      ]),
    ),
    "n-samples": Object.fromEntries(
      tasks.map(({ task: { config, docs }, records }) => [
        config.name,
        { original: docs.length, effective: records.length },
      ]),
    ),
    config: {
      model: "upcycle",
      model_args: { pretrained: model.name },
      batch_size: "auto",
      batch_sizes: [],
      device: model.device,
      use_cache: null,
      limit: settings.limit ?? null,
      bootstrap_iters: settings.bootstrapIterations ?? BOOTSTRAP_ITERATIONS,
      gen_kwargs: null,
      random_seed: 0,
      numpy_seed: FEWSHOT_SEED,
      torch_seed: FEWSHOT_SEED,
      fewshot_seed: settings.seed ?? FEWSHOT_SEED,
    },
    git_hash: null,
    date: date.getTime() / 1000,
    upcycle_version: model.version,
    max_length: model.maxLength,
    warnings: Object.fromEntries(
      tasks.filter(({ warnings }) => warnings.length > 0).map(({ result, warnings }) => [result.name, warnings]),
    ),
    task_hashes: Object.fromEntries(tasks.map((task) => [task.result.name, taskHash(task)])),
    model_source: "upcycle",
    model_name: model.name,
    model_name_sanitized: sanitized(model.name),
    system_instruction: settings.systemInstruction ?? null,
    system_instruction_sha: settings.systemInstruction === undefined ? null : sha256(settings.systemInstruction),
    fewshot_as_multiturn: model.chat?.multiturn ?? null,
    chat_template: model.chat?.template ?? null,
    chat_template_sha: model.chat === null ? null : sha256(model.chat.template),
    total_evaluation_time_seconds: String(seconds),
  };
}

const promptOf = (request: Request): string => (request.kind === "rolling" ? request.text : request.context);

interface SampleHashes {
  readonly doc_hash: string;
  readonly prompt_hash: string;
  readonly target_hash: string;
}

function hashesOf({ sample: { doc, requests, target } }: SampleRecord): SampleHashes {
  return {
    doc_hash: sha256(JSON.stringify(doc, null, 2)),
    prompt_hash: sha256(promptOf(requests[0]!)),
    target_hash: sha256(str(target)),
  };
}

function taskHash({ records, task }: TaskOutcome): string {
  const hashes = records.flatMap((record) =>
    task.config.filters.map(() => {
      const { doc_hash: doc, prompt_hash: prompt, target_hash: target } = hashesOf(record);
      return doc + prompt + target;
    }),
  );
  return sha256(hashes.join(""));
}

/** The lines of `samples_TASK_DATE.jsonl`: one for each document and filter. */
export function* sampleLines({ records, task }: TaskOutcome): Generator<Json> {
  for (const record of records) {
    const { sample, responses, results } = record;
    for (const { filter, filtered, metrics } of results)
      yield {
        doc_id: sample.id,
        doc: sample.doc,
        target: str(sample.target),
        arguments: Object.fromEntries(sample.requests.map((request, i) => [`gen_args_${i}`, argumentsOf(request)])),
        resps: responses.map((response) => Array.from({ length: task.config.repeats }, () => asTexts(rawOf(response)))),
        filtered_resps: filtered.map(asTexts),
        filter,
        metrics: Object.keys(metrics),
        ...hashesOf(record),
        ...metrics,
      };
  }
}

function argumentsOf(request: Request): Json {
  switch (request.kind) {
    case "loglikelihood":
      return { arg_0: request.context, arg_1: request.continuation };
    case "rolling":
      return { arg_0: request.text };
    case "generate":
      return {
        arg_0: request.context,
        arg_1: { until: request.until, max_gen_toks: request.maxTokens, do_sample: false },
      };
  }
}

function rawOf(response: Response): Value {
  if (response.kind === "generate") return response.text;
  return response.kind === "rolling" ? response.logLikelihood : [response.logLikelihood, response.greedy];
}

/** Numbers and truth values as the texts that Python writes; whole numbers are floats here. */
function asTexts(value: Value): unknown {
  if (Array.isArray(value)) return (value as readonly Value[]).map(asTexts);
  if (typeof value === "number" && Number.isInteger(value)) return `${str(value)}.0`;
  return str(value);
}
