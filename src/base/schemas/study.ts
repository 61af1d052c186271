/** The study file: one parent, several arms that all get the same further training. */
import { z } from "zod";
import { evaluationSchema, modelSchema, textSchema, threadsSchema, tokenizerSchema } from "./blocks.js";
import { trainingSchema } from "./training.js";
import { recipeKeys } from "./recipe.js";
import { parseConfig } from "./validate.js";

const label = z
  .string()
  .min(1)
  .max(60)
  .optional()
  .describe("Name in tables and charts; made from the arm if left out.");

const denseArm = z
  .strictObject({ kind: z.literal("dense"), label })
  .describe("The parent, trained further as it is: what the others are compared with.");

const upcycledArm = z
  .strictObject({
    kind: z.literal("upcycled"),
    label,
    ...recipeKeys,
  })
  .describe("The parent turned into a mixture of experts, then trained.");

const scratchArm = z
  .strictObject({
    kind: z.literal("scratch"),
    label,
    like: z.string().min(1).describe("Arm whose shape this one has, with fresh random weights."),
  })
  .describe("The same shape as another arm, trained from random weights.");

const armSchema = z.discriminatedUnion("kind", [denseArm, upcycledArm, scratchArm]);

type Refuse = (path: string[], message: string) => void;

/** Schema of a study file. `jsonSchema` makes the JSON Schema of it that editors read. */
export const studySchema = z
  .strictObject({
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
    continue: trainingSchema.describe("Further training, the same for every arm."),
    evaluation: evaluationSchema.prefault({}),
    arms: z
      .record(z.string().regex(/^[a-z0-9][a-z0-9_-]*$/), armSchema)
      .describe("Name of the arm (lower case, digits, dashes, underscores) to what it is."),
  })
  .superRefine((study, context) => {
    const refuse: Refuse = (path, message) => context.addIssue({ code: "custom", path, message });
    checkParent(study, refuse);
    if (Object.keys(study.arms).length === 0) refuse(["arms"], "arms is empty, expected at least one arm");
    if (new Set(study.seeds).size < study.seeds.length) refuse(["seeds"], "seeds has the same seed twice");
    checkScratchArms(study.arms, refuse);
    if (study.pretrain?.routing !== undefined)
      refuse(["pretrain", "routing"], "the parent is dense, it has no routers; remove routing");
    if (study.continue.routing !== undefined && Object.values(study.arms).every((arm) => isDense(arm, study.arms)))
      refuse(["continue", "routing"], "no arm is a mixture of experts; remove routing");
    for (const block of ["pretrain", "continue"] as const) {
      const sequence = study[block]?.sequence ?? 0;
      if (study.model !== undefined && sequence > study.model.maxPositions) {
        refuse(
          [block, "sequence"],
          `sequence ${sequence} is longer than the model's maxPositions ${study.model.maxPositions}`,
        );
      }
    }
  });

type Arms = Readonly<Record<string, StudyArm>>;

/** A scratch arm has the shape of another arm, which is none itself. */
function checkScratchArms(arms: Arms, refuse: Refuse): void {
  for (const [id, arm] of Object.entries(arms)) {
    if (arm.kind !== "scratch") continue;
    const like = armNamed(arms, arm.like);
    if (like === undefined) refuse(["arms", id, "like"], `there is no arm "${arm.like}"`);
    else if (like.kind === "scratch") refuse(["arms", id, "like"], `arm "${arm.like}" is itself a scratch arm`);
  }
}

/** Whether an arm trains a dense model. Scratch arms that are like each other in a circle are refused elsewhere. */
function isDense(arm: StudyArm | undefined, arms: Arms, depth = 0): boolean {
  if (arm?.kind !== "scratch") return arm?.kind === "dense";
  return depth < Object.keys(arms).length && isDense(armNamed(arms, arm.like), arms, depth + 1);
}

/** Names such as `constructor` are no arms, although every object has something under them. */
const armNamed = (arms: Arms, name: string): StudyArm | undefined =>
  Object.hasOwn(arms, name) ? arms[name] : undefined;

type ParentKeys = Partial<Record<"parent" | "model" | "tokenizer" | "pretrain", unknown>>;

/** A parent is either a folder, or a model block with its tokenizer and its training. */
function checkParent(study: ParentKeys, refuse: Refuse): void {
  if (study.parent === undefined && study.model === undefined) {
    refuse([], 'there is no parent: give "parent" (a model folder) or "model" with "tokenizer" and "pretrain"');
  }
  for (const key of ["model", "tokenizer", "pretrain"] as const) {
    if (study.parent !== undefined && study[key] !== undefined) {
      refuse([key], `"${key}" makes a new parent, but "parent" already names one; remove one of them`);
    }
    if (study.model !== undefined && study[key] === undefined) refuse([], `"${key}" is missing: a new model needs it`);
  }
}

/** A study file, checked, with its defaults filled in. */
export type StudyConfig = z.infer<typeof studySchema>;
/** One arm of a study file: the dense parent trained further, an upcycled model, or one trained from scratch. */
export type StudyArm = z.infer<typeof armSchema>;

/**
 * Reads the text of a study file; `file` is its name in errors. Throws inputError with one line for each problem, which
 * names file, line and key.
 */
export function parseStudyConfig(text: string, file: string): StudyConfig {
  return parseConfig(studySchema, text, file);
}
