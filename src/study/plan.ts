/** What a study will run, decided before anything runs: arms with their shapes, costs and folders. */
import { valueAt } from "../base/at.js";
import { countParams } from "../model/cost/params.js";
import { trainFlopsPerToken } from "../model/cost/flops.js";
import type { StudyArm, TrainingBlock } from "../base/schemas/index.js";
import type { ParamTotals } from "../model/results/result.js";
import { isMoe, type DecoderSpec } from "../model/decoder/types.js";
import { checkRouting } from "../engine/routing/routing.js";
import { planUpcycle } from "../surgery/planning/plan.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import { recipeFromConfig } from "../surgery/planning/recipe-config.js";
import type { StudyRequest } from "./types.js";

/** An arm with everything that is known before it is trained. */
export interface PlannedArm {
  readonly id: string;
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
}

/** Tokens that a training sees in all. */
export const tokensOf = (block: TrainingBlock): number => block.steps * block.batch * block.sequence * block.accumulate;

/**
 * Resolves every arm against the parent's shape. Throws inputError for a recipe that the parent cannot be turned into.
 */
export function planArms(config: StudyRequest, parent: DecoderSpec): PlannedArm[] {
  return Object.entries(config.arms).map(([id, arm]) => {
    const shape = arm.kind === "scratch" ? valueAt(config.arms, arm.like) : arm;
    const recipe = shape.kind === "upcycled" ? recipeOf(shape) : null;
    const spec = recipe === null ? parent : planUpcycle(parent, recipe(0)).target;
    if (isMoe(spec)) checkRouting(spec, config.continue, `arm ${id}, continue`);
    const { total, active } = countParams(spec);
    const recipeName = shape.kind === "upcycled" ? shape.recipe.toUpperCase() : null;
    return {
      id,
      kind: arm.kind,
      spec,
      recipeName,
      label: arm.label ?? labelOf(arm, recipeName),
      params: { total, active },
      flopsPerToken: trainFlopsPerToken(spec, config.continue.sequence),
      recipe: arm.kind === "upcycled" ? recipe : null,
      router: shape.kind === "upcycled" ? routerWords(shape, arm.kind) : null,
    };
  });
}

type UpcycledArm = Extract<StudyArm, { kind: "upcycled" }>;

function recipeOf(arm: UpcycledArm): (seed: number) => UpcycleRecipe {
  const config = Object.fromEntries(Object.entries(arm).filter(([key]) => key !== "kind" && key !== "label")) as Omit<
    UpcycledArm,
    "kind" | "label"
  >;
  return (seed) => recipeFromConfig({ ...config, seed });
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
  return kind === "scratch" ? router : `${router}, scaling ${scaling}, router std ${routerStd}`;
}
