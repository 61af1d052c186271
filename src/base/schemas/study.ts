/** The study file: parents, arms that are trained further, seeds, and the questions that they are to answer. */
import type { z } from "zod";
import { modelSchema, tokenizerSchema } from "./blocks.js";
import { armSchema, studyBlocks, type StudyArm, type StudyConfig } from "./study-blocks.js";
import { expandWith, parentNames, type Check, type ExpandedStudy, type GridConfig } from "./study-grid.js";
import { trainingSchema } from "./training.js";
import { parseConfig } from "./validate.js";

type Refuse = (path: PropertyKey[], message: string) => void;

/** Schema of a study file. `jsonSchema` makes the JSON Schema of it that editors read. */
export const studySchema = studyBlocks.superRefine((study, context) => {
  const refuse: Refuse = (path, message) => context.addIssue({ code: "custom", path, message });
  // What is wrong in a block would be found once more in everything that the block stands for.
  const isSound = context.issues.length === 0;
  checkParent(study, refuse);
  if (Object.keys(study.arms).length === 0) refuse(["arms"], "arms is empty, expected at least one arm");
  if (new Set(study.seeds).size < study.seeds.length) refuse(["seeds"], "seeds has the same seed twice");
  const grid = expandStudy(study);
  checkScratchArms(study.arms, grid.arms, refuse);
  checkMultipliedArms(study.arms, grid.arms, refuse);
  if (isSound) checkGrid(study, grid, refuse);
  for (const [id, arm] of Object.entries(study.arms)) {
    if (arm.engine !== "megatron") continue;
    if (study.megatron === undefined)
      refuse(
        ["arms", id, "engine"],
        'there is no block "megatron", which says where Megatron-LM is and on how many GPUs',
      );
    if (arm.kind === "scratch")
      refuse(["arms", id, "engine"], "Megatron-LM begins with a checkpoint, and an arm from scratch has none");
  }
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

/** A scratch arm has the shape of another arm, which is none itself and no grid of several. */
function checkScratchArms(arms: Arms, expanded: ExpandedStudy<unknown>["arms"], refuse: Refuse): void {
  for (const [id, arm] of Object.entries(arms)) {
    if (arm.kind !== "scratch" || expanded.some((other) => other.id === arm.like && other.arm.kind !== "scratch"))
      continue;
    const like = armNamed(arms, arm.like);
    if (like === undefined) refuse(["arms", id, "like"], `there is no arm "${arm.like}"`);
    else if (like.kind === "scratch") refuse(["arms", id, "like"], `arm "${arm.like}" is itself a scratch arm`);
    else {
      const several = expanded.filter(({ group }) => group === arm.like).map((other) => other.id);
      if (several.length > 0)
        refuse(["arms", id, "like"], `arm "${arm.like}" is several; name one of ${several.join(", ")}`);
    }
  }
}

/** A multiplied arm starts from another arm, which is a mixture of experts and no grid of several. */
function checkMultipliedArms(arms: Arms, expanded: ExpandedStudy<unknown>["arms"], refuse: Refuse): void {
  for (const [id, arm] of Object.entries(arms)) {
    if (arm.kind !== "multiplied") continue;
    const of = expanded.find((other) => other.id === arm.of)?.arm;
    const several = expanded.filter(({ group }) => group === arm.of).map((other) => other.id);
    if (of === undefined && several.length > 0)
      refuse(["arms", id, "of"], `arm "${arm.of}" is several; name one of ${several.join(", ")}`);
    else if (of === undefined) refuse(["arms", id, "of"], `there is no arm "${arm.of}"`);
    else if (of.kind === "multiplied") refuse(["arms", id, "of"], `arm "${arm.of}" is itself multiplied`);
    else if (isDense(of, arms)) refuse(["arms", id, "of"], `arm "${arm.of}" is dense, it has no experts to multiply`);
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

type ParentKeys = Partial<Record<"parent" | "parents" | "model" | "tokenizer" | "pretrain", unknown>>;

/** A parent is either a folder, or a model block with its tokenizer and its training; or there are several. */
function checkParent(study: ParentKeys, refuse: Refuse): void {
  if (study.parents !== undefined) {
    if (study.parent !== undefined)
      refuse(["parent"], '"parents" names all parents; write this one there, as NAME: { path: FOLDER }');
    return;
  }
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

/** Most trainings of a study; far more are a slip of the pen in a grid. */
const mostArms = 1000;

/** Everything that grids, changes and questions stand for has to make sense. */
function checkGrid(
  study: GridConfig<unknown>,
  { parents, arms, problems }: ExpandedStudy<unknown>,
  refuse: Refuse,
): void {
  for (const { path, message } of problems) refuse([...path], message);
  if (problems.length > 0) return;
  if (study.parents !== undefined && parents.length === 0)
    refuse(["parents"], "parents is empty, expected at least one");
  if (arms.length * Math.max(1, parents.length) > mostArms)
    refuse(["arms"], `the grid gives ${arms.length * parents.length} arms, at most ${mostArms} make a study`);
  for (const [kind, list] of Object.entries({ arms, parents })) {
    const ids = list.map(({ id }) => id);
    const twice = ids.find((id, index) => ids.indexOf(id) !== index);
    if (twice !== undefined) refuse([kind], `two of the grid would be called "${twice}"; give its settings a name`);
  }
  const known = parentNames(study, parents);
  for (const [id, { parents: from = [], match }] of Object.entries(study.arms)) {
    const unknown = from.find((name) => !known.has(name));
    if (unknown !== undefined) refuse(["arms", id, "parents"], `there is no parent "${unknown}"`);
    const other = match === undefined ? undefined : arms.find((arm) => arm.id === match.flops);
    if (match !== undefined && (other === undefined || other.arm.match !== undefined || other.group === id))
      refuse(["arms", id, "match", "flops"], `there is no arm "${match.flops}" with steps of its own`);
  }
  for (const [index, question] of study.questions.entries()) {
    for (const key of ["compare", "with"] as const) {
      if (arms.some(({ id }) => id === question[key])) continue;
      const list = arms.map(({ id }) => id).join(", ");
      refuse(["questions", index, key], `there is no arm "${question[key]}"; the arms are ${list}`);
    }
  }
}

/** A check by a schema. */
const checkBy =
  <T>(schema: z.ZodType<T>): Check<T> =>
  (data) => {
    const result = schema.safeParse(data);
    return result.success ? { value: result.data } : { issues: result.error.issues };
  };

/** Every parent and every arm that a study file stands for; a file that was parsed gives no problems. */
export function expandStudy<Source>(config: GridConfig<Source>): ExpandedStudy<Source> {
  return expandWith(config, {
    training: checkBy(trainingSchema),
    model: checkBy(modelSchema),
    tokenizer: checkBy(tokenizerSchema),
    arm: checkBy(armSchema),
  });
}

/**
 * Reads the text of a study file; `file` is its name in errors. Throws inputError with one line for each problem, which
 * names file, line and key.
 */
export function parseStudyConfig(text: string, file: string): StudyConfig {
  return parseConfig(studySchema, text, file);
}
