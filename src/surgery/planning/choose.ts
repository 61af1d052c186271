/**
 * Which MoE families hold an upcycled decoder, found by trying: the draft is brought into the family's form, and the
 * family's config dialect, which refuses whatever it cannot say, is the judge.
 */
import { inputError, UpcycleError } from "../../base/errors.js";
import { configFromSpec } from "../../model/decoder/config.js";
import { ownFamily, type DecoderSpec, type RouterOrder } from "../../model/decoder/types.js";
import { adapt } from "./adapt.js";
import type { Draft } from "./draft.js";
import { expectedPreservation } from "./expectation.js";
import { targetFamilies, type TargetFamily, type UpcycleRecipe } from "./recipe.js";
import { routerOf, targets, type Target } from "./targets.js";

/** Makes the draft for one target's router and shared expert; a sample of it, where only the verdict counts. */
type MakeDraft = (target: Target, options?: { readonly sample?: true | undefined }) => Draft;

type Trial =
  | { readonly family: TargetFamily; readonly draft: Draft; readonly obstacle: null }
  | { readonly family: TargetFamily; readonly draft: null; /** Why not, in words. */ readonly obstacle: string };

/** What comes of writing the draft as a model of `family`. */
function tryTarget(
  family: TargetFamily,
  { order, topK }: Pick<UpcycleRecipe, "order" | "topK">,
  make: MakeDraft,
  sample?: true,
): Trial {
  const fail = (obstacle: string): Trial => ({ family, draft: null, obstacle });
  const target = targets[family];
  if (target.routers[order] === undefined) {
    const has = Object.keys(target.routers).join(", ");
    return fail(`${family} always renormalises the selected experts (${has}), it has no ${order} router`);
  }
  if (target.topK !== undefined && target.topK !== topK)
    return fail(`${family} always selects ${target.topK} experts per token`);
  try {
    const draft = adapt(make(target, { sample }), family);
    configFromSpec(draft.spec, { dtype: "float32" });
    return { family, draft, obstacle: null };
  } catch (error) {
    if (error instanceof UpcycleError && error.kind === "input") return fail(error.message);
    throw error;
  }
}

/** How many tensors outside the experts are anything but copies: what a target costs in rounding and readability. */
function changes({ values }: Draft): number {
  const own = /\.(router\w*|shared\w*|experts\.\d+\.\w+)$/;
  let count = 0;
  for (const [key, value] of values) if (!own.test(key) && value.op !== "read") count += 1;
  return count;
}

const ranks = { exact: 0, "constant-router": 1, approximate: 2 } as const;

/**
 * All families in order of preference: those with softmax scores first, then those that keep the function best, then
 * those that need the fewest tensors changed, then as listed; our own format behind every other, and last of all those
 * that cannot hold the source. The drafts are samples: what families differ in does not depend on how many experts
 * there are, and all tensors of all families would take minutes.
 */
export function tryTargets(source: DecoderSpec, recipe: UpcycleRecipe, make: MakeDraft): Trial[] {
  const trials = targetFamilies.map((family) => tryTarget(family, recipe, make, true));
  const cost = ({ family, draft }: Trial): readonly number[] => {
    if (draft === null) return [2];
    const router = routerOf(targets[family], recipe);
    // A router order is about softmax: other scores are a family's peculiarity, which nobody gets without asking.
    return [
      family === ownFamily ? 1 : 0,
      router.score === "softmax" ? 0 : 1,
      ranks[expectedPreservation(recipe, source, router).kind],
      changes(draft),
    ];
  };
  return trials
    .map((trial, i) => ({ trial, cost: [...cost(trial), i] }))
    .sort((a, b) => firstDifference(a.cost, b.cost))
    .map(({ trial }) => trial);
}

/** Compares two lists of costs by the first position at which they differ, for `sort`. */
function firstDifference(a: readonly number[], b: readonly number[]): number {
  for (const [i, value] of a.entries()) {
    const other = b[i];
    if (other !== undefined && other !== value) return value - other;
  }
  return 0;
}

/**
 * The recipe's target, or the best one where the recipe names none. Throws inputError if the named one cannot hold the
 * source, or if no family can; the hint names those that can.
 */
export function chooseTarget(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  make: MakeDraft,
): { readonly family: TargetFamily; readonly draft: Draft } {
  if (recipe.target !== null) return requiredTarget(recipe.target, source, recipe, make);
  const trials = tryTargets(source, recipe, make);
  const [best] = trials;
  if (best !== undefined && best.draft !== null) {
    const whole = tryTarget(best.family, recipe, make);
    if (whole.draft === null)
      throw new Error(`${best.family} holds a sample of the model, not the model: ${whole.obstacle}`);
    return whole;
  }
  throw inputError(
    `no MoE family that we write can hold this ${source.family} model: ` +
      `${trials.map(({ obstacle }) => obstacle).join("; ")}`,
    {
      where: `${source.family}, ${recipe.order}`,
      hint: otherOrderHint(source, recipe, make) ?? `known targets: ${targetFamilies.join(", ")}`,
    },
  );
}

/** The draft as the one family that the recipe names. */
function requiredTarget(
  family: TargetFamily,
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  make: MakeDraft,
): { readonly family: TargetFamily; readonly draft: Draft } {
  const trial = tryTarget(family, recipe, make);
  if (trial.draft !== null) return trial;
  const others = familiesOf(tryTargets(source, recipe, make));
  throw inputError(`${family} cannot hold this ${source.family} model: ${trial.obstacle}`, {
    where: `target ${family}, ${recipe.order}`,
    hint:
      others.length > 0
        ? `these can: ${others.join(", ")}`
        : (otherOrderHint(source, recipe, make) ?? `none of ${targetFamilies.join(", ")} can`),
  });
}

const familiesOf = (trials: readonly Trial[]): TargetFamily[] =>
  trials.flatMap(({ family, draft }) => (draft === null ? [] : [family]));

function otherOrderHint(source: DecoderSpec, recipe: UpcycleRecipe, make: MakeDraft): string | undefined {
  const other: RouterOrder = recipe.order === "topk-softmax" ? "softmax-topk" : "topk-softmax";
  const families = familiesOf(tryTargets(source, { ...recipe, order: other }, make));
  return families.length === 0 ? undefined : `with the router order ${other}: ${families.join(", ")}`;
}
