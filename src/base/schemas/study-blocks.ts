/** The blocks of a study file, each with the rules that need no other block. */
import { z } from "zod";
import { evaluationSchema, modelSchema, textSchema, threadsSchema, tokenizerSchema } from "./blocks.js";
import { changesSchema } from "./changes.js";
import { megatronKeys } from "./launch.js";
import { recipeKeys, routerKey } from "./recipe.js";
import { trainingChangesSchema, trainingSchema } from "./training.js";

const label = z
  .string()
  .min(1)
  .max(60)
  .optional()
  .describe("Name in tables and charts; made from the arm if left out.");

/** Names of parents and arms; grids add numbers with dots. */
const namePattern = /^[a-z0-9][a-z0-9_-]*$/;

const vary = z
  .union([
    z.record(z.string().min(1), z.array(z.unknown()).min(1)).describe("Key with dots to its values."),
    z.array(z.record(z.string().min(1), z.unknown())).min(1),
  ])
  .optional()
  .describe(
    "Several in place of one. A grid: key with dots (such as continue.lr.peak) to its values, every one with every " +
      "one of the others. Or a list of settings, each with such keys and a name.",
  );

/** Keys that every kind of arm has. */
const commonKeys = {
  label,
  parents: z.array(z.string().min(1)).min(1).optional().describe("Parents that it starts from; all if left out."),
  continue: trainingChangesSchema.optional(),
  match: z
    .strictObject({ flops: z.string().min(1).describe("The arm.") })
    .optional()
    .describe("Train for as many steps as cost the FLOPs of another arm, in place of continue.steps."),
  engine: z
    .enum(["upcycle", "megatron"])
    .default("upcycle")
    .describe("What trains it: this program, or Megatron-LM as the block megatron says."),
  vary,
};

const denseArm = z
  .strictObject({ kind: z.literal("dense"), ...commonKeys })
  .describe("The parent, trained further as it is: what the others are compared with.");

const upcycledArm = z
  .strictObject({
    kind: z.literal("upcycled"),
    ...commonKeys,
    ...recipeKeys,
    router: routerKey,
  })
  .describe("The parent turned into a mixture of experts, then trained.");

const scratchArm = z
  .strictObject({
    kind: z.literal("scratch"),
    ...commonKeys,
    like: z.string().min(1).describe("Arm whose shape this one has, with fresh random weights."),
  })
  .describe("The same shape as another arm, trained from random weights.");

const multipliedArm = z
  .strictObject({
    kind: z.literal("multiplied"),
    ...commonKeys,
    of: z.string().min(1).describe("Arm whose trained mixture it starts from, with the same parent and seed."),
    copies: z.int().min(2).max(65_536).describe("How many times as many experts it gets."),
    by: z
      .enum(["load", "gradient"])
      .optional()
      .describe("Copy experts of more load or gradient more often, measured on text; equally often if left out."),
    topK: z
      .int()
      .min(1)
      .optional()
      .describe("Experts per token; copies times the mixture's if left out, the mixture's own with by."),
    routerStd: z
      .number()
      .min(0)
      .max(10)
      .optional()
      .describe("Standard deviation of what is added to the router rows of copies."),
  })
  .describe("A trained mixture with more experts, then trained: its tokens are counted from there.");

/** Schema of one arm. */
export const armSchema = z.discriminatedUnion("kind", [denseArm, upcycledArm, scratchArm, multipliedArm]);

const parentSchema = z
  .strictObject({
    path: z
      .string()
      .min(1)
      .optional()
      .describe("Folder of a trained dense model or hf://org/name[@revision], +ADAPTER behind it; alone."),
    model: changesSchema(modelSchema).optional().describe("Keys of model in place of the common ones."),
    tokenizer: changesSchema(tokenizerSchema).optional().describe("Keys of tokenizer in place of the common ones."),
    pretrain: trainingChangesSchema.optional().describe("Keys of pretrain in place of the common ones."),
    seed: z.int().min(0).max(1e9).optional().describe("Of its first weights and data order; the first of seeds."),
    vary,
  })
  .superRefine(({ path, ...others }, context) => {
    if (path === undefined) return;
    for (const [key, value] of Object.entries(others)) {
      if (value === undefined) continue;
      const message = `"path" names a trained model, which ${key} cannot change; remove one of them`;
      context.addIssue({ code: "custom", path: [key], message });
    }
  });

const calibrationSchema = z
  .strictObject({
    tokens: z.int().min(2).max(10_000_000).default(4096).describe("Tokens of the training text, from its beginning."),
  })
  .describe("What recipes are measured on: centroids, calibrated scaling, splits by activation.");

/** What a question compares: how each run of an arm is turned into one number. */
export const measures = [
  "loss",
  "loss-at-equal-flops",
  "start-loss",
  "worst-loss",
  "dead-experts",
  "similarity",
] as const;

const questionSchema = z
  .strictObject({
    ask: z.string().min(1).max(300).describe("The question in words."),
    compare: z.string().min(1).describe("The arm that it is about."),
    with: z.string().min(1).describe("The arm that it is compared with, seed by seed."),
    measure: z
      .enum(measures)
      .default("loss")
      .describe(
        "loss: held-out, at the end. loss-at-equal-flops: where the cheaper arm has ended. start-loss: before the " +
          "first step. worst-loss: the highest of all measurements. dead-experts: their share at the end. " +
          "similarity: of experts to the parent's FFN at the end.",
      ),
    published: z
      .strictObject({
        difference: z.number().optional().describe("Published difference: the first arm less the second."),
        relative: z.boolean().default(false).describe("The difference is a share of the second arm's value."),
        direction: z
          .enum(["lower", "higher"])
          .optional()
          .describe("Where no size is published: on which side of the second arm the first one is."),
        source: z.string().min(1).describe("Where it is published."),
      })
      .refine(({ difference, direction }) => (difference === undefined) !== (direction === undefined), {
        message: "takes a difference, or a direction where no size is published: one of the two",
      })
      .optional()
      .describe("The effect that the study is put beside."),
    spread: z
      .number()
      .gt(0)
      .optional()
      .describe(
        "Standard deviation over seeds of the paired differences, from a pilot: a dry run tells by it what the " +
          "study can detect.",
      ),
  })
  .describe("One comparison, named before it is measured.");

/** A study file before the rules about several of its blocks. */
export const studyBlocks = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)
    .max(80)
    .describe("Letters, digits, dots, dashes and underscores; names the run folder."),
  seeds: z
    .array(z.int().min(0).max(1e9))
    .min(1)
    .default([0])
    .describe("Each arm is run once per seed (routers, data order)."),
  scale: z
    .number()
    .min(0.01)
    .max(1024)
    .default(1)
    .describe(
      "Makes the study larger or smaller: widths, batches and steps times this number, so that parameters and tokens " +
        "grow with its square; learning rates and first weights shrink with its root.",
    ),
  threads: threadsSchema,
  text: textSchema,
  parent: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Folder of a trained dense model in Hugging Face format, or hf://org/name[@revision]; +ADAPTER behind " +
        "it merges a LoRA adapter in. Either this or model.",
    ),
  model: modelSchema.optional(),
  tokenizer: tokenizerSchema.optional(),
  pretrain: trainingSchema.optional().describe("Training of the new parent; goes with model."),
  parents: z
    .record(z.string().regex(namePattern), parentSchema)
    .optional()
    .describe("Several parents by name, each with what it has in place of the common model, tokenizer, pretrain."),
  continue: trainingSchema.describe("Further training, the same for every arm that does not change it."),
  evaluation: evaluationSchema.prefault({}),
  calibration: calibrationSchema.prefault({}),
  megatron: z
    .strictObject(megatronKeys)
    .optional()
    .describe("Where and how Megatron-LM trains the arms whose engine it is; keys as in a launch file."),
  arms: z
    .record(z.string().regex(namePattern), armSchema)
    .describe("Name of the arm (lower case, digits, dashes, underscores) to what it is."),
  questions: z
    .array(questionSchema)
    .default([])
    .describe("What the study is to answer; the first is its main comparison."),
});

/** A study file, with its defaults filled in. */
export type StudyConfig = z.infer<typeof studyBlocks>;
/** A comparison that a study file names. */
export type Question = z.infer<typeof questionSchema>;
/** How a run of an arm is turned into the number that a question compares. */
export type Measure = (typeof measures)[number];
/**
 * One arm of a study file: the dense parent trained further, an upcycled model, one trained from scratch, or a trained
 * mixture with more experts.
 */
export type StudyArm = z.infer<typeof armSchema>;
/** Where and how Megatron-LM trains arms of a study. */
export type MegatronConfig = NonNullable<StudyConfig["megatron"]>;
