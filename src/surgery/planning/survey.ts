/**
 * Every family against one source: which hold the upcycled model, for which router order, and which programs run the
 * result.
 */
import type { DecoderSpec, RouterOrder } from "../../model/decoder/types.js";
import { tryTargets } from "./choose.js";
import { draftOf } from "./draft.js";
import { upcycleFfns } from "./experts.js";
import { expectedPreservation, type ExpectedPreservation } from "./expectation.js";
import { checkRecipe, type TargetFamily, type UpcycleRecipe } from "./recipe.js";
import { checkSource } from "./recipe-source.js";
import { servingOf, type Serving } from "./serving.js";
import { routerOf, targets } from "./targets.js";

/** Whether one family can hold the upcycled model, how well the function is kept there, and what runs the result. */
export interface TargetVerdict {
  readonly family: TargetFamily;
  readonly order: RouterOrder;
  /** Null: the family cannot hold the model; `obstacle` says why. */
  readonly expected: ExpectedPreservation | null;
  /** Why the family cannot hold the model, in words; null where it can. */
  readonly obstacle: string | null;
  /** The family has a shared expert that cannot be left out: it adds nothing at first and costs what an expert does. */
  readonly idleExpert: boolean;
  /** Which programs run the result; empty with an obstacle. */
  readonly serving: readonly Serving[];
}

/**
 * Verdicts on all families for one recipe, best first. Throws inputError for a recipe that fits no source like this
 * one.
 */
export function surveyRecipe(source: DecoderSpec, recipe: UpcycleRecipe): TargetVerdict[] {
  checkRecipe(recipe);
  checkSource(recipe, source);
  const start = draftOf(source);
  return tryTargets(source, recipe, (target, options) => upcycleFfns(start, recipe, target, options)).map(
    ({ family, draft, obstacle }) => ({
      family,
      order: recipe.order,
      obstacle,
      expected: draft === null ? null : expectedPreservation(recipe, source, routerOf(targets[family], recipe)),
      idleExpert: draft !== null && hasSharedExpert(draft.spec),
      serving: draft === null ? [] : servingOf({ ...draft.spec, family }, recipe.order),
    }),
  );
}

const hasSharedExpert = ({ layers }: DecoderSpec): boolean =>
  layers.some(({ ffn }) => ffn.kind === "moe" && ffn.shared !== null);

/** Families that are read, run and trained, but are no targets, and why. */
export const neverTargets: Readonly<Record<string, string>> = {
  olmoe:
    "normalises queries and keys over all heads in front of pre-norm blocks, which no dense family that we read does",
  deepseek_v3:
    "its latent attention holds one rotary key for all heads, so grouped or multi-head keys with rope do not fit",
  gpt_oss: "its experts clamp their gated unit and add 1 to the up branch, which no dense family does",
};
