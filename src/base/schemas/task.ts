/**
 * The files of evaluation tasks: the YAML of the LM Evaluation Harness (lm_eval/config/task.py, group.py), whose keys
 * and defaults are its own. A file may hold a part of a task that others include, so no key has to be there.
 */
import { z } from "zod";
import { parseConfig } from "./validate.js";

/** What stands before a function's name where a file says `!function module.name`. */
export const functionMark = "!function ";

const text = z.string();
const template = z.union([z.string(), z.int()]);
const list = z.array(z.unknown());
const block = z.record(z.string(), z.unknown());
const target = z.union([z.string(), z.int(), list]);
const choices = z.union([z.string(), list, block]);
const nullable = <T extends z.ZodType>(schema: T) => schema.nullable().optional();

const outputTypes = ["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"] as const;

const fewshotConfig = z.strictObject({
  sampler: z.enum(["default", "first_n"]).optional().describe("How examples are chosen (default: default)."),
  split: nullable(text).describe("Split that examples are taken from."),
  process_docs: nullable(text).describe("Function on the examples' documents."),
  fewshot_indices: nullable(z.array(z.int().min(0))).describe("Not supported."),
  samples: nullable(z.union([z.array(block), text])).describe("The examples themselves."),
  doc_to_text: nullable(template).describe("Question of an example, where it differs."),
  doc_to_choice: nullable(choices).describe("Choices of an example, where they differ."),
  doc_to_target: nullable(target).describe("Answer of an example, where it differs."),
  gen_prefix: nullable(text).describe("Beginning of an example's answer."),
  fewshot_delimiter: nullable(text).describe("Text behind an example."),
  target_delimiter: nullable(text).describe("Text between question and answer of an example."),
});

const metric = z.looseObject({
  metric: text.describe("Name of the metric."),
  aggregation: text.optional().describe("How samples become one number (default: the metric's own)."),
  higher_is_better: z.boolean().optional().describe("Which direction is better."),
  hf_evaluate: z.boolean().optional().describe("Not supported."),
});

const filterStep = z.looseObject({ function: text.describe("Name of the filter.") });
const filter = z.strictObject({
  name: text.describe("Name of the pipeline, which metrics carry."),
  filter: z.array(filterStep).min(1).describe("Steps, in order."),
});

const aggregateMetric = z.strictObject({
  metric: text.describe("Metric of the subtasks."),
  aggregation: z.literal("mean").optional().describe("The only one there is: mean."),
  weight_by_size: z.boolean().optional().describe("Weight subtasks by their samples (default: true)."),
  filter_list: nullable(z.union([text, z.array(text)])).describe("Filters to aggregate over (default: all)."),
});

/** Schema of a task's or a group's file. */
export const taskFileSchema = z.strictObject({
  include: z
    .union([text, z.array(text)])
    .optional()
    .describe("File whose keys this one adds to and replaces."),
  group: z.string().min(1).optional().describe("Name of a group of tasks."),
  group_alias: nullable(text).describe("Name of the group in tables."),
  task: z
    .union([z.string().min(1), z.array(z.union([z.string(), block]))])
    .optional()
    .describe("Name of the task, or the tasks of a group."),
  task_alias: nullable(text).describe("Name of the task in tables."),
  tag: nullable(z.union([text, z.array(text)])).describe("Names under which tasks are asked for together."),
  class: text.optional().describe("Not supported: a task written in Python."),
  aggregate_metric_list: nullable(z.union([aggregateMetric, z.array(aggregateMetric)])).describe(
    "Metrics that a group shows.",
  ),
  custom_dataset: nullable(text).describe("Not supported: a data set made by Python code."),
  dataset_path: nullable(text).describe("Data set of the Hub, or json or parquet with dataset_kwargs.data_files."),
  dataset_name: nullable(text).describe("Configuration of the data set."),
  dataset_kwargs: nullable(block).describe("Further settings of the data set: data_files."),
  training_split: nullable(text).describe("Split for training, which examples come from."),
  validation_split: nullable(text).describe("Split for validation, evaluated where there is no test split."),
  test_split: nullable(text).describe("Split that is evaluated."),
  fewshot_split: nullable(text).describe("Split that examples come from."),
  process_docs: nullable(text).describe("Function on documents."),
  doc_to_text: nullable(template).describe("Question: a column, a template or a function."),
  doc_to_target: nullable(target).describe("Answer: a column, a template, a function or a place among the choices."),
  doc_to_choice: nullable(choices).describe("Choices: a column, a template, a function or a list."),
  doc_to_image: nullable(z.unknown()).describe("Not supported."),
  doc_to_audio: nullable(z.unknown()).describe("Not supported."),
  unsafe_code: z.boolean().optional().describe("Not supported."),
  process_results: nullable(text).describe("Function on a sample's results."),
  use_prompt: nullable(text).describe("Not supported: a prompt of promptsource."),
  description: nullable(text).describe("Text in front of the prompt."),
  target_delimiter: nullable(text).describe("Text between question and answer (default: a space)."),
  fewshot_delimiter: nullable(text).describe("Text between examples (default: an empty line)."),
  fewshot_config: nullable(fewshotConfig).describe("How examples are made."),
  num_fewshot: nullable(z.int().min(0)).describe("Number of examples (default: 0)."),
  metric_list: nullable(z.array(metric)).describe("Metrics (default: those of the output type)."),
  output_type: z.enum(outputTypes).optional().describe("How the model is asked (default: generate_until)."),
  generation_kwargs: nullable(block).describe("How text is generated."),
  repeats: z.int().min(1).optional().describe("How often each sample is asked (default: 1)."),
  filter_list: nullable(z.array(filter)).describe("What is made of the answers."),
  should_decontaminate: z.boolean().optional().describe("Ignored."),
  doc_to_decontamination_query: nullable(z.unknown()).describe("Ignored."),
  gen_prefix: nullable(text).describe("Beginning of the answer, in the prompt."),
  metadata: nullable(block).describe("The version, and whatever else its author notes."),
});

/** A task's or a group's file, or a part of one. */
export type TaskFile = z.infer<typeof taskFileSchema>;

/** Keys of a task's file. */
export const taskFileKeys: readonly string[] = Object.keys(taskFileSchema.shape);

/**
 * Parses a file of the harness; `!function module.name` becomes a string that begins with `functionMark`. Files are
 * YAML 1.1, as PyYAML reads them. Throws inputError that names the line.
 */
export function parseTaskFile(source: string, file: string): TaskFile {
  return parseConfig(taskFileSchema, source, file, {
    version: "1.1",
    customTags: [{ tag: "!function", resolve: (name: string) => functionMark + name }],
  });
}
