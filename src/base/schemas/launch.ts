/** The file of `upcycle launch`: a model, its data, a training, and where it runs. */
import { z } from "zod";
import { recipeKeys } from "./recipe.js";
import { budgetedTrainingSchema } from "./training.js";
import { parseConfig } from "./validate.js";

const positiveInt = z.int().min(1);
const degree = positiveInt.max(65_536);

const layoutSchema = z
  .strictObject({
    tp: degree.optional().describe("Tensor parallel degree."),
    pp: degree.optional().describe("Pipeline parallel degree."),
    vpp: degree.optional().describe("Chunks of layers on each pipeline stage."),
    cp: degree.optional().describe("Context parallel degree."),
    ep: degree.optional().describe("Expert parallel degree; it divides the experts."),
    etp: degree.optional().describe("Tensor parallel degree of experts."),
    microBatch: degree.optional().describe("Sequences of a micro-batch."),
  })
  .describe("Degrees that are kept as they are; the others are chosen.");

const slurmSchema = z
  .strictObject({
    partition: z.string().min(1).optional().describe("Of sbatch."),
    account: z.string().min(1).optional().describe("Of sbatch."),
    // The job is asked to save two minutes before its end.
    minutes: positiveInt.min(3).max(100_000).default(240).describe("Time limit of one job, at least 3."),
    jobs: positiveInt
      .max(1000)
      .default(1)
      .describe("Jobs one after the other; each goes on where the last one stopped."),
    options: z.array(z.string().min(1)).default([]).describe("Further lines of #SBATCH, without that word."),
  })
  .describe("Where Slurm starts the run.");

const kubernetesSchema = z
  .strictObject({
    image: z.string().min(1).describe("Container image with Megatron-LM and PyTorch."),
    namespace: z.string().min(1).default("default").describe("Of Kubernetes."),
    kind: z.enum(["PyTorchJob", "JobSet"]).default("PyTorchJob").describe("Which controller starts the ranks."),
    claim: z.string().min(1).optional().describe("Persistent volume claim that is mounted at /data."),
  })
  .describe("Where Kubernetes starts the run.");

const fromSchema = z
  .strictObject({
    model: z
      .string()
      .min(1)
      .describe("A config.json or a model folder as seen from this file or from here, or a preset of upcycle plan."),
    weights: z
      .string()
      .min(1)
      .optional()
      .describe("A model folder or hf://org/name with the weights, where model is a config.json alone."),
    recipe: recipeKeys.recipe.optional().describe(`${recipeKeys.recipe.description} The model as it is if left out.`),
    router: recipeKeys.router,
    scaling: recipeKeys.scaling,
    target: recipeKeys.target,
  })
  .describe(
    "What the checkpoint is made of: by it --dry-run plans before the checkpoint is there, and says the command that " +
      "makes it.",
  );

/** Keys that say where and how Megatron-LM runs, which a study has too. */
export const megatronKeys = {
  megatron: z.string().min(1).describe("Folder of Megatron-LM, with pretrain_gpt.py."),
  transformerEngine: z.boolean().default(true).describe("Whether Transformer Engine is installed there."),
  precision: z.enum(["bf16", "fp32"]).default("bf16").describe("What is multiplied in."),
  hardware: z
    .strictObject({
      gpu: z.string().min(1).default("h100-sxm").describe("Kind of GPU, as upcycle plan names it."),
      gpus: degree.default(8).describe("How many."),
    })
    .prefault({})
    .describe("Kind and number of GPUs."),
  layout: layoutSchema.prefault({}),
  slurm: slurmSchema.optional(),
  environment: z
    .record(z.string().regex(/^[A-Za-z_]\w*$/), z.string())
    .default({})
    .describe("Further variables."),
  arguments: z
    .record(z.string().regex(/^--[a-z][\w-]*$/), z.union([z.string(), z.number(), z.boolean()]))
    .default({})
    .describe("Arguments of pretrain_gpt.py over those that are chosen; false takes one away."),
};

/** What a launch file may say. */
export const launchSchema = z
  .strictObject({
    out: z.string().min(1).describe("Folder of the run: scripts, logs, checkpoints."),
    checkpoint: z.string().min(1).describe("Folder that upcycle convert or export wrote for Megatron-Core."),
    from: fromSchema.optional(),
    data: z
      .array(z.string().min(1))
      .min(1)
      .describe(
        "What --data-path takes: prefixes that upcycle data prepare wrote, each behind its weight if there are " +
          "several.",
      ),
    tokenizer: z.string().min(1).describe("Folder with the tokenizer of the data."),
    split: z.string().default("99,1,0").describe("Shares of training, validation and test data."),
    megatron: megatronKeys.megatron,
    transformerEngine: megatronKeys.transformerEngine,
    precision: megatronKeys.precision,
    training: budgetedTrainingSchema.describe("Length, batch and learning rate, as in a train file."),
    hardware: megatronKeys.hardware,
    layout: megatronKeys.layout,
    slurm: megatronKeys.slurm,
    kubernetes: kubernetesSchema.optional(),
    environment: megatronKeys.environment,
    arguments: megatronKeys.arguments,
    sources: z
      .record(z.string().min(1), z.string().min(1))
      .default({})
      .describe("Where settings are from, by their names, such as training.lr.peak; --dry-run shows it."),
    seed: z.int().min(1).max(1e9).default(1234).describe("Of Megatron's data order, at least 1."),
  })
  .superRefine(({ slurm, kubernetes }, context) => {
    if (slurm !== undefined && kubernetes !== undefined)
      context.addIssue({
        code: "custom",
        path: ["kubernetes"],
        message: "a run starts on Slurm or on Kubernetes; remove one block",
      });
  });

/** A launch file as read, with its defaults. */
export type LaunchConfig = z.infer<typeof launchSchema>;

/** Reads a launch file. Throws inputError with one line that names file, line and key. */
export function parseLaunchConfig(text: string, file: string): LaunchConfig {
  return parseConfig(launchSchema, text, file);
}
