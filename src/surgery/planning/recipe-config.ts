/** Turns the keys of a recipe file, or the same as options, into an `UpcycleRecipe`. */
import { inputError } from "../../base/errors.js";
import { nearest } from "../../base/schemas/nearest.js";
import type { RecipeConfig } from "../../base/schemas/recipe.js";
import {
  targetFamilies,
  upcycleRecipe,
  type ExpertPrompts,
  type Noise,
  type RecipeOptions,
  type RouterInit,
  type TargetFamily,
  type UpcycleRecipe,
} from "./recipe.js";

/** Parts of a recipe that come from several parents, or from a router that is not drawn, beside the file's keys. */
type RecipeExtras = Pick<RecipeOptions, "parents" | "sharedParent" | "others" | "routerInit">;

/**
 * The recipe that keys of a file or options say; what is left out takes `recipeDefaults`. Throws inputError like
 * `checkRecipe`.
 */
export function recipeFromConfig(
  config: Pick<RecipeConfig, "recipe"> & { readonly [K in keyof RecipeConfig]?: RecipeConfig[K] | undefined },
  extras: RecipeExtras = {},
): UpcycleRecipe {
  const { recipe, router, noise, noiseFraction, target, split, ...same } = config;
  if (noise === undefined && noiseFraction !== undefined && noiseFraction !== 1)
    throw inputError("a share of noise without noise has no effect", {
      where: "noiseFraction (--noise-fraction)",
      hint: "say how strong the noise is, such as noise: 0.1 (--noise 0.1), or leave it out",
    });
  return upcycleRecipe(recipe, {
    ...same,
    order: typeof router === "object" ? router.order : router,
    routerInit: typeof router === "object" ? initOf(router) : undefined,
    split: split === "activation" ? { text: null } : undefined,
    ...extras,
    target: target === undefined || target === "auto" ? null : familyOf(target),
    noise: noise === undefined ? undefined : noiseOf(noise, noiseFraction ?? 1),
  });
}

/** The key `router` where it is more than the name of an order. */
type RouterConfig = Exclude<RecipeConfig["router"], string>;

function initOf({ init, prompts }: RouterConfig): RouterInit | null {
  if (init === "normal" || init === "uniform_random" || init === "centroids") {
    if (prompts !== undefined)
      throw inputError(`prompts are for the inits hidden and cheap_embed, this one is ${init}`, {
        where: "router",
        hint: "say init: hidden, or leave the prompts out",
      });
    if (init === "centroids") return { kind: init, text: null };
    return init === "normal" ? null : { kind: init };
  }
  if (prompts === undefined)
    throw inputError(`${init} needs prompts, a list with an entry for each copy`, {
      where: "router",
      hint: "add prompts, or use init: normal",
    });
  return { kind: init, prompts: prompts.map(promptsOf) };
}

/** Prompts of one copy: a text, a list of texts, or lists of positive and negative ones. */
function promptsOf(entry: NonNullable<RouterConfig["prompts"]>[number]): ExpertPrompts {
  return typeof entry === "object" && "positive" in entry
    ? { positive: listOf(entry.positive), negative: listOf(entry.negative) }
    : { positive: listOf(entry), negative: [] };
}

const listOf = (texts: string | readonly string[]): readonly string[] => (typeof texts === "string" ? [texts] : texts);

function familyOf(name: string): TargetFamily {
  const family = targetFamilies.find((target) => target === name);
  if (family !== undefined) return family;
  const suggestion = nearest(name, targetFamilies);
  const allTargets = `known targets: auto, ${targetFamilies.join(", ")}`;
  throw inputError(`"${name}" is not a family that we write`, {
    where: "target",
    hint: suggestion === undefined ? allTargets : `did you mean ${suggestion}? ${allTargets}`,
  });
}

/**
 * Noise as files and options say it: `0.01` is a standard deviation, `"1%"` a hundredth of each tensor's own. Null for
 * an amount of 0. Throws inputError for anything else.
 */
export function noiseOf(amount: number | string, fraction: number): Noise | null {
  const match = /^(\d+(?:\.\d+)?(?:e-?\d+)?)(%?)$/i.exec(String(amount).trim());
  if (match === null)
    throw inputError(`"${amount}" is no amount of noise`, {
      where: "noise",
      hint: "write a standard deviation such as 0.01, or a share of each tensor's own such as 1%",
    });
  const relative = match[2] === "%";
  const std = Number(match[1]) / (relative ? 100 : 1);
  return std === 0 ? null : { std, relative, fraction };
}

/** Noise as files and options say it, the inverse of `noiseOf`. */
export function noiseWords({ std, relative }: Noise): string {
  return relative ? `${Number((std * 100).toPrecision(12))}%` : String(std);
}
