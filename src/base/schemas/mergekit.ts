/**
 * The files of `mergekit-moe`, read as they are: keys and defaults of `MoEMergeConfig` and `Expert` in the public
 * repository arcee-ai/mergekit, mergekit/moe/config.py; models as `ModelReference` writes them.
 */
import { z } from "zod";
import { parseConfig } from "./validate.js";

/** A key of mergekit's that is refused unless its value is empty and so says nothing. */
const absent = (why: string): z.ZodOptional<z.ZodUnknown> =>
  z
    .unknown()
    .refine((value) => value == null || (Array.isArray(value) && value.length === 0), why)
    .optional();

const path = z.string().min(1);
const modelPath = z.union([path, z.strictObject({ path, revision: path.nullish() })]);
const modelSchema = z
  .union([
    path,
    z.strictObject({
      model: modelPath,
      lora: modelPath.nullish(),
      override_architecture: absent("a model cannot be taken for another architecture's; leave the key out"),
    }),
  ])
  .describe(
    "A folder, or a model of the Hugging Face Hub: org/name or org/name@revision; model+lora for a model with " +
      "a LoRA adapter merged in.",
  );

const prompts = z.array(z.string()).nullish();

const expertSchema = z.strictObject({
  source_model: modelSchema,
  positive_prompts: prompts.describe("Texts that this expert should be chosen for."),
  negative_prompts: prompts.describe("Texts that it should not be chosen for."),
  noise_scale: z.number().min(0).nullish().describe("Standard deviation of Gaussian noise on its matrices."),
  residual_scale: z.number().nullish().describe("Factor on its down matrix."),
});

/** mergekit's ways to make the rows of a router (`gate_mode`). */
export const mergekitGates = ["hidden", "cheap_embed", "random", "uniform_random"] as const;

/** Schema of a file of `mergekit-moe`. */
export const mergekitSchema = z
  .strictObject({
    base_model: modelSchema,
    experts: z.array(expertSchema).min(2).max(4096),
    gate_mode: z.enum(mergekitGates).default("hidden"),
    dtype: z.enum(["float32", "bfloat16", "float16"]).nullish(),
    experts_per_token: z.int().min(1).default(2),
    shared_experts: z
      .array(expertSchema)
      .nullish()
      .refine((list) => (list?.length ?? 0) <= 1, "there can be one shared expert, as in mergekit")
      .describe(
        "A model whose FFNs are added for every token; behind a gate made from its prompts where the " +
          "architecture has one (qwen).",
      ),
    architecture: z
      .string()
      .nullish()
      .describe("mixtral, qwen or qwen3; the simplest family that holds the models if left out."),
  })
  .describe("A mixture of several dense models, as mergekit-moe describes it.");

/** A file of `mergekit-moe`, checked, under mergekit's own keys. */
export type MergekitConfig = z.output<typeof mergekitSchema>;

/**
 * Reads a file of `mergekit-moe`; `file` is its name in errors. Throws inputError with one line that names file, line
 * and key.
 */
export function parseMergekitConfig(text: string, file: string): MergekitConfig {
  return parseConfig(mergekitSchema, text, file);
}

/** A model as one word: `name` or `name@revision`, and behind a `+` the same of its adapter. */
export function modelWords(reference: MergekitConfig["base_model"]): string {
  if (typeof reference === "string") return reference;
  const { model, lora } = reference;
  return lora == null ? pathWords(model) : `${pathWords(model)}+${pathWords(lora)}`;
}

function pathWords(reference: z.output<typeof modelPath>): string {
  if (typeof reference === "string") return reference;
  return reference.revision == null ? reference.path : `${reference.path}@${reference.revision}`;
}
