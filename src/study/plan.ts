/**
 * What a study will run, decided before anything runs: parents, arms with their shapes and costs, and every training
 * with its key and its folder.
 */
import { join } from "node:path";
import { entryOf } from "../base/at.js";
import { inputError } from "../base/errors.js";
import { countParams } from "../model/cost/params.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import { expandStudy } from "../base/schemas/study.js";
import { scheduleProblem, type TrainingBlock } from "../base/schemas/training.js";
import type { ExpandedArm, StudyParent } from "../base/schemas/study-grid.js";
import type { MegatronConfig, StudyArm } from "../base/schemas/study-blocks.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import type { ParamTotals } from "../model/results/result.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { checkRouting, withBalance } from "../engine/routing/routing.js";
import { planUpcycle } from "../surgery/planning/plan.js";
import { measuresText, recipeName, type UpcycleRecipe } from "../surgery/planning/recipe.js";
import { multipliedSpec, multiplyRecipe, type MultiplyRecipe } from "../surgery/planning/multiply.js";
import { recipeFromConfig } from "../surgery/planning/recipe-config.js";
import { parentKey, runKey, startKey, surroundingsOf, type Beginning, type Surroundings } from "./keys.js";
import { requireTrainable } from "./megatron-plan.js";
import { parentShape } from "./parent.js";
import type { StudyOptions, StudyRequest } from "./types.js";

/** A parent with everything that is known before it is trained. */
export interface PlannedParent {
  readonly parent: StudyParent<ModelSource>;
  readonly key: string;
  /** Folder of its run within the store; null for a model of the user's. */
  readonly path: string | null;
  /** The vocabulary of a new one may still become smaller, where its text holds fewer words. */
  readonly spec: DecoderSpec;
}

/** An arm on one parent, with everything that is known before it is trained. */
export interface PlannedArm {
  readonly id: string;
  /** The arm in the file, with what a grid has set. */
  readonly arm: string;
  readonly parent: string;
  readonly label: string;
  readonly kind: StudyArm["kind"];
  readonly spec: DecoderSpec;
  readonly params: ParamTotals;
  /** FLOPs of the forward and the backward pass. */
  readonly flopsPerToken: number;
  /** `E8G1T2`, also for an arm from scratch that has the shape of an upcycled one; null for a dense shape. */
  readonly recipeName: string | null;
  /** The recipe with one of the study's seeds filled in; null for an arm that is not upcycled. */
  readonly recipe: ((seed: number) => UpcycleRecipe) | null;
  /** Of a multiplied arm: the arm on the same parent that it starts from, and how; null for any other. */
  readonly multiply: { readonly of: string; readonly recipe: (seed: number) => MultiplyRecipe } | null;
  /** Router order, scaling and deviation in words, for the report; null for a dense shape. */
  readonly router: string | null;
  /** What Megatron-LM trains it with; null where this program trains it. */
  readonly megatron: MegatronConfig | null;
  /** Its training; a dense model's has nothing of routing. */
  readonly training: TrainingBlock;
}

/** One arm with one seed. */
export interface PlannedRun {
  readonly arm: PlannedArm;
  readonly seed: number;
  readonly beginning: Beginning;
  readonly key: string;
  /** Folder within the store, by the arm's present name. */
  readonly path: string;
  /** The model that is made for it to start from, which arms with the same recipe share; null for other arms. */
  readonly start: PlannedStart | null;
}

/** A model that is made before a training: of the parent, or of what another run has ended with. */
export type PlannedStart = { readonly path: string } & (
  | { readonly kind: "upcycled"; readonly recipe: UpcycleRecipe }
  | { readonly kind: "multiplied"; readonly recipe: MultiplyRecipe; readonly of: PlannedRun }
);

/** Everything that a study will run. */
export interface StudyPlan {
  readonly surroundings: Surroundings;
  readonly parents: readonly PlannedParent[];
  readonly arms: readonly PlannedArm[];
  readonly runs: readonly PlannedRun[];
}

/** Tokens that a training sees in all. */
export const tokensOf = (block: TrainingBlock): number => block.steps * block.batch * block.sequence * block.accumulate;

/**
 * Plans a study: nothing is read but the heads of models and the contents of texts. Throws inputError for a parent that
 * cannot be opened and for a recipe or a routing that it cannot have.
 */
export async function planStudy(options: StudyOptions): Promise<StudyPlan> {
  const { config, signal } = options;
  const expanded = expandStudy(config);
  const [problem] = expanded.problems;
  if (problem !== undefined) throw inputError(problem.message, { where: problem.path.join(".") });
  const shapes = new Map<string, DecoderSpec>();
  for (const parent of expanded.parents) shapes.set(parent.id, await parentShape(config, parent));
  const arms = planArms(config, shapes);
  for (const arm of arms) await requireTrainable(options, arm);
  const surroundings = await surroundingsOf(options);
  const parents: PlannedParent[] = [];
  for (const parent of expanded.parents) {
    const key = await parentKey(parent, surroundings, signal);
    const path = parent.kind === "given" ? null : join("parents", `${parent.id}-${key}`);
    parents.push({ parent, key, path, spec: entryOf(shapes, parent.id) });
  }
  return { surroundings, parents, arms, runs: planRuns(config, parents, arms, surroundings) };
}

/** The plan with the shapes that the parents turn out to have, once their tokenizers are learnt; keys stay. */
export function withShapes(
  config: StudyRequest,
  { parents: early, surroundings }: StudyPlan,
  shapes: ReadonlyMap<string, DecoderSpec>,
): StudyPlan {
  const parents = early.map((one) => ({ ...one, spec: entryOf(shapes, one.parent.id) }));
  const arms = planArms(config, shapes);
  return { surroundings, parents, arms, runs: planRuns(config, parents, arms, surroundings) };
}

/**
 * Resolves every arm against the shape of each parent that it starts from. Throws inputError for a recipe that a parent
 * cannot be turned into.
 */
export function planArms(config: StudyRequest, shapes: ReadonlyMap<string, DecoderSpec>): PlannedArm[] {
  const { parents, arms: expanded } = expandStudy(config);
  return parents.flatMap(({ id: parent }) => {
    const own = expanded.filter((one) => one.parents.includes(parent));
    const planned = own.map((one) => {
      const arm = planArm(one, expanded, entryOf(shapes, parent), config.megatron);
      if (parents.length === 1) return { ...arm, parent };
      return { ...arm, parent, id: `${arm.id}@${parent}`, label: `${arm.label}, ${parent}` };
    });
    return planned.map((arm, index) => ({ ...arm, training: matchedTraining(arm, own[index], planned) }));
  });
}

function planArm(
  { id, arm, setting, training }: ExpandedArm,
  expanded: readonly ExpandedArm[],
  parent: DecoderSpec,
  megatron: MegatronConfig | undefined,
): Omit<PlannedArm, "parent"> {
  const { spec, recipe, name, router } = shapeOf(arm, expanded, parent);
  if (isMoe(spec)) checkRouting(spec, training, `arm ${id}, continue`);
  const { total, active } = countParams(spec);
  const engine = arm.engine === "megatron" ? " by Megatron-LM" : "";
  return {
    id,
    arm: id,
    kind: arm.kind,
    spec,
    recipeName: name,
    label: [arm.label ?? `${labelOf(arm, name)}${engine}`, ...(setting === "" ? [] : [setting])].join(", "),
    params: { total, active },
    flopsPerToken: trainFlopsPerToken(spec, training.sequence),
    recipe: arm.kind === "upcycled" ? recipe : null,
    multiply: arm.kind === "multiplied" ? { of: arm.of, recipe: multiplyOf(arm) } : null,
    router,
    megatron: arm.engine === "megatron" ? (megatron ?? null) : null,
    // What has no effect on a dense model is no part of its run: changing it leaves the run as it is.
    training: isMoe(spec) ? withBalance(training) : { ...training, routing: undefined, auxLoss: 0, zLoss: 0 },
  };
}

/** The shape of an arm's model, and what there is to say of how it is made. */
interface ArmShape {
  readonly spec: DecoderSpec;
  readonly recipe: ((seed: number) => UpcycleRecipe) | null;
  /** `E8G1T2`; null for a dense model. */
  readonly name: string | null;
  readonly router: string | null;
}

/** Arms that are like another, or made of it, have a shape by its. Throws inputError for a recipe that cannot be. */
function shapeOf(arm: StudyArm, expanded: readonly ExpandedArm[], parent: DecoderSpec): ArmShape {
  const of = (id: string): ArmShape => {
    const other = expanded.find((one) => one.id === id)?.arm;
    if (other === undefined) throw new Error(`there is no arm ${id}, which the schema refuses`);
    return shapeOf(other, expanded, parent);
  };
  switch (arm.kind) {
    case "dense":
      return { spec: parent, recipe: null, name: null, router: null };
    case "upcycled": {
      const recipe = recipeOf(arm);
      return { spec: targetOf(parent, recipe(0)), recipe, name: recipeName(recipe(0)), router: routerWords(arm) };
    }
    case "scratch": {
      const shape = of(arm.like);
      return { ...shape, router: shape.router?.split(",")[0] ?? null };
    }
    case "multiplied": {
      const shape = of(arm.of);
      const spec = multipliedSpec(shape.spec, multiplyOf(arm)(0));
      const how = arm.by === undefined ? "equally often" : `by ${arm.by}`;
      return { ...shape, spec, name: multipliedName(shape, spec), router: `experts copied ${how}` };
    }
  }
}

/** `E16G1T2`: the recipe that gives the larger mixture's numbers of experts. */
function multipliedName({ recipe }: ArmShape, { layers }: DecoderSpec): string | null {
  const moe = layers.map(({ ffn }) => ffn).find((ffn) => ffn.kind === "moe");
  if (recipe === null || moe?.kind !== "moe") return null;
  const { granularity } = recipe(0);
  return recipeName({ expansion: moe.experts / granularity, granularity, topK: moe.topK });
}

/** The shape that a recipe gives, which nothing that is measured on text changes. */
function targetOf(parent: DecoderSpec, recipe: UpcycleRecipe): DecoderSpec {
  const { scaling } = recipe;
  return planUpcycle(parent, { ...recipe, scaling: scaling === "calibrated" ? "none" : scaling, routerInit: null })
    .target;
}

/** The training of an arm that costs as much as another one; its own where it matches none. */
function matchedTraining(
  arm: Omit<PlannedArm, "parent">,
  expanded: ExpandedArm | undefined,
  others: readonly PlannedArm[],
): TrainingBlock {
  const match = expanded?.arm.match?.flops;
  if (match === undefined) return arm.training;
  const other = others.find((one) => one.arm === match);
  if (other === undefined)
    throw inputError(`arm ${match} is not trained on the same parent`, { where: `arms.${arm.arm}.match.flops` });
  const perStep = (tokensOf(arm.training) / arm.training.steps) * arm.flopsPerToken;
  const steps = Math.max(1, Math.round((tokensOf(other.training) * other.flopsPerToken) / perStep));
  const problem = scheduleProblem(arm.training.lr, steps);
  if (problem !== null)
    throw inputError(`${problem.message}, which cost as much as arm ${match}`, {
      where: `arms.${arm.arm}.match.flops`,
    });
  return { ...arm.training, steps };
}

function planRuns(
  config: StudyRequest,
  parents: readonly PlannedParent[],
  arms: readonly PlannedArm[],
  surroundings: Surroundings,
): PlannedRun[] {
  const byId = new Map(parents.map((parent) => [parent.parent.id, parent]));
  // Seed by seed, so that a study that is stopped has compared all arms with the seeds that it has. Arms that start
  // from others come behind them.
  const ordered = [...arms.filter(({ multiply }) => multiply === null), ...arms.filter(({ multiply }) => multiply)];
  return config.seeds.flatMap((seed) => {
    const made: PlannedRun[] = [];
    for (const arm of ordered) {
      const folder = `${parents.length === 1 ? "" : `${arm.parent}-`}seed-${seed}`;
      made.push(planRun(config, arm, entryOf(byId, arm.parent), { seed, folder, made, surroundings }));
    }
    return made;
  });
}

/** What planning one run takes besides its arm; `folder` begins the name of its folder. */
interface RunPlanning {
  readonly seed: number;
  readonly folder: string;
  /** Runs of this seed that are planned already. */
  readonly made: readonly PlannedRun[];
  readonly surroundings: Surroundings;
}

function planRun(
  config: StudyRequest,
  arm: PlannedArm,
  parent: PlannedParent,
  { seed, folder, made, surroundings }: RunPlanning,
): PlannedRun {
  const of = arm.multiply === null ? null : runToMultiply(arm, made);
  const beginning = beginningOf(config, arm, parent, { seed, of });
  const key = runKey(beginning, arm.training, { seed, megatron: arm.megatron }, surroundings);
  const path = join("starts", `${arm.recipeName}-seed-${seed}-${startKey(beginning, surroundings)}`);
  const recipe = arm.recipe?.(seed);
  const start: PlannedStart | null =
    recipe !== undefined
      ? { kind: "upcycled", recipe, path }
      : of !== null && arm.multiply !== null
        ? { kind: "multiplied", recipe: arm.multiply.recipe(seed), of, path }
        : null;
  return { arm, seed, beginning, key, path: join("arms", arm.arm, `${folder}-${key}`), start };
}

/** The run that a multiplied arm starts from. Throws inputError where its arm is not trained on the same parent. */
function runToMultiply({ arm, parent, multiply }: PlannedArm, made: readonly PlannedRun[]): PlannedRun {
  const of = made.find((run) => run.arm.arm === multiply?.of && run.arm.parent === parent);
  if (of !== undefined) return of;
  throw inputError(`arm ${multiply?.of} is not trained on the same parent`, { where: `arms.${arm}.of` });
}

function beginningOf(
  { calibration }: Pick<StudyRequest, "calibration">,
  arm: PlannedArm,
  parent: PlannedParent,
  { seed, of }: { readonly seed: number; readonly of: PlannedRun | null },
): Beginning {
  if (arm.kind === "scratch") return { fresh: freshShape(arm, parent) };
  const measured = (measures: boolean): { calibration?: number } =>
    measures ? { calibration: calibration.tokens } : {};
  if (of !== null && arm.multiply !== null) {
    const multiply = arm.multiply.recipe(seed);
    return { run: of.key, multiply, ...measured(multiply.utility !== undefined) };
  }
  const recipe = arm.recipe?.(seed) ?? null;
  return { parent: parent.key, recipe, ...measured(recipe !== null && measuresText(recipe)) };
}

/** What an arm from scratch depends on: its shape, but not how its parent was trained. */
function freshShape({ spec }: PlannedArm, { parent, key }: PlannedParent): unknown {
  if (parent.kind === "given") return { spec, tokenizer: key };
  // The vocabulary is known once the tokenizer is; what decides it is known before.
  return { spec: { ...spec, vocab: null, tokens: null }, model: parent.model, tokenizer: parent.tokenizer };
}

const multiplyOf =
  ({ copies, by, topK, routerStd }: Extract<StudyArm, { kind: "multiplied" }>) =>
  (seed: number): MultiplyRecipe =>
    multiplyRecipe({ copies, by, topK, routerStd, seed });

type UpcycledArm = Extract<StudyArm, { kind: "upcycled" }>;

/** Keys of an arm that are none of its recipe. */
const armKeys: readonly string[] = ["kind", "label", "parents", "continue", "match", "engine", "vary"];

function recipeOf(arm: UpcycledArm): (seed: number) => UpcycleRecipe {
  const config = Object.fromEntries(Object.entries(arm).filter(([key]) => !armKeys.includes(key)));
  return (seed) => recipeFromConfig({ ...(config as unknown as UpcycledArm), seed });
}

function labelOf(arm: StudyArm, recipe: string | null): string {
  switch (arm.kind) {
    case "dense":
      return "continued dense";
    case "upcycled":
      return `upcycled ${recipe}`;
    case "scratch":
      return recipe === null ? "dense from scratch" : `${recipe} from scratch`;
    case "multiplied":
      return `${arm.of}, ${arm.copies} times the experts${arm.by === undefined ? "" : ` by ${arm.by}`}`;
  }
}

function routerWords({ router, scaling, routerStd, routerGroups, split }: UpcycledArm): string {
  const { order, init } = typeof router === "string" ? { order: router, init: "normal" } : router;
  const drawn = init === "normal" ? `router std ${routerStd}` : `router rows ${init}`;
  const rows = split === "activation" ? "router of representative units" : drawn;
  return `${order}, scaling ${scaling}, ${rows}${routerGroups ? "" : ", no groups"}`;
}
