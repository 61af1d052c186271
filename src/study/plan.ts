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
import type { StudyArm } from "../base/schemas/study-blocks.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import type { ParamTotals } from "../model/results/result.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { checkRouting } from "../engine/routing/routing.js";
import { planUpcycle } from "../surgery/planning/plan.js";
import { recipeName, type UpcycleRecipe } from "../surgery/planning/recipe.js";
import { recipeFromConfig } from "../surgery/planning/recipe-config.js";
import { parentKey, runKey, startKey, surroundingsOf, type Beginning, type Surroundings } from "./keys.js";
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
  /** Router order, scaling and deviation in words, for the report; null for a dense shape. */
  readonly router: string | null;
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
  /** The model that an upcycled arm starts from, which arms with the same recipe share; null for other arms. */
  readonly start: { readonly recipe: UpcycleRecipe; readonly path: string } | null;
}

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
      const arm = planArm(one, expanded, entryOf(shapes, parent));
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
): Omit<PlannedArm, "parent"> {
  const like = arm.kind === "scratch" ? expanded.find((other) => other.id === arm.like)?.arm : arm;
  if (like === undefined) throw new Error(`arm ${id} is like none, which the schema refuses`);
  const recipe = like.kind === "upcycled" ? recipeOf(like) : null;
  const spec = recipe === null ? parent : targetOf(parent, recipe(0));
  if (isMoe(spec)) checkRouting(spec, training, `arm ${id}, continue`);
  const { total, active } = countParams(spec);
  const name = recipe === null ? null : recipeName(recipe(0));
  return {
    id,
    arm: id,
    kind: arm.kind,
    spec,
    recipeName: name,
    label: `${arm.label ?? labelOf(arm, name)}${setting === "" ? "" : `, ${setting}`}`,
    params: { total, active },
    flopsPerToken: trainFlopsPerToken(spec, training.sequence),
    recipe: arm.kind === "upcycled" ? recipe : null,
    router: like.kind === "upcycled" ? routerWords(like, arm.kind) : null,
    // What has no effect on a dense model is no part of its run: changing it leaves the run as it is.
    training: isMoe(spec) ? training : { ...training, routing: undefined, auxLoss: 0, zLoss: 0 },
  };
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
  // Seed by seed, so that a study that is stopped has compared all arms with the seeds that it has.
  return config.seeds.flatMap((seed) =>
    arms.map((arm): PlannedRun => {
      const parent = entryOf(byId, arm.parent);
      const recipe = arm.recipe?.(seed) ?? null;
      const beginning: Beginning =
        arm.kind === "scratch" ? { fresh: freshShape(arm, parent) } : { parent: parent.key, recipe };
      const key = runKey(beginning, arm.training, seed, surroundings);
      const on = parents.length === 1 ? "" : `${arm.parent}-`;
      const start =
        recipe === null ? null : { recipe, path: startPath(arm, seed, startKey(parent.key, recipe, surroundings)) };
      return { arm, seed, beginning, key, path: join("arms", arm.arm, `${on}seed-${seed}-${key}`), start };
    }),
  );
}

const startPath = ({ recipeName: name }: PlannedArm, seed: number, key: string): string =>
  join("starts", `${name}-seed-${seed}-${key}`);

/** What an arm from scratch depends on: its shape, but not how its parent was trained. */
function freshShape({ spec }: PlannedArm, { parent, key }: PlannedParent): unknown {
  if (parent.kind === "given") return { spec, tokenizer: key };
  // The vocabulary is known once the tokenizer is; what decides it is known before.
  return { spec: { ...spec, vocab: null, tokens: null }, model: parent.model, tokenizer: parent.tokenizer };
}

type UpcycledArm = Extract<StudyArm, { kind: "upcycled" }>;

/** Keys of an arm that are none of its recipe. */
const armKeys: readonly string[] = ["kind", "label", "parents", "continue", "match", "vary"];

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
  }
}

function routerWords({ router, scaling, routerStd }: UpcycledArm, kind: StudyArm["kind"]): string {
  const { order, init } = typeof router === "string" ? { order: router, init: "normal" } : router;
  if (kind === "scratch") return order;
  return `${order}, scaling ${scaling}, ${init === "normal" ? `router std ${routerStd}` : `router rows ${init}`}`;
}
