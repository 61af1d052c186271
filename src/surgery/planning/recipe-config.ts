/** Recipes as files and options say them -> `UpcycleRecipe`. */
import { inputError } from "../../base/errors.js";
import { nearest, type RecipeConfig } from "../../base/schemas/index.js";
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

/** What several parents, or a router that is not drawn, add to a recipe's keys. */
type RecipeExtras = Pick<RecipeOptions, "parents" | "sharedParent" | "others" | "routerInit">;

/**
 * The recipe that keys of a file or options say; what is left out takes `recipeDefaults`. Throws `input` like
 * `checkRecipe`.
 */
export function recipeFromConfig(
  config: Pick<RecipeConfig, "recipe"> & { readonly [K in keyof RecipeConfig]?: RecipeConfig[K] | undefined },
  extras: RecipeExtras = {},
): UpcycleRecipe {
  const { recipe, router, noise, noiseFraction, target, ...same } = config;
  return upcycleRecipe(recipe, {
    ...same,
    order: typeof router === "object" ? router.order : router,
    routerInit: typeof router === "object" ? initOf(router) : undefined,
    ...extras,
    target: target === undefined || target === "auto" ? null : familyOf(target),
    noise: noise === undefined ? undefined : noiseOf(noise, noiseFraction ?? 1),
  });
}

type SaidRouter = Exclude<RecipeConfig["router"], string>;

function initOf({ init, prompts }: SaidRouter): RouterInit | null {
  if (init === "normal" || init === "uniform_random") {
    if (prompts !== undefined)
      throw inputError(`prompts are for the inits hidden and cheap_embed, this one is ${init}`, {
        where: "router",
        hint: "say init: hidden, or leave the prompts out",
      });
    return init === "normal" ? null : { kind: init };
  }
  if (prompts === undefined)
    throw inputError(`${init} needs prompts, a list with an entry for each copy`, {
      where: "router",
      hint: "add prompts, or use init: normal",
    });
  const list = (said: string | readonly string[]): readonly string[] => (typeof said === "string" ? [said] : said);
  const entry = (said: (typeof prompts)[number]): ExpertPrompts =>
    typeof said === "object" && "positive" in said
      ? { positive: list(said.positive), negative: list(said.negative) }
      : { positive: list(said), negative: [] };
  return { kind: init, prompts: prompts.map(entry) };
}

function familyOf(name: string): TargetFamily {
  const family = targetFamilies.find((known) => known === name);
  if (family !== undefined) return family;
  const meant = nearest(name, targetFamilies);
  const known = `known targets: auto, ${targetFamilies.join(", ")}`;
  throw inputError(`"${name}" is not a family that we write`, {
    where: "target",
    hint: meant === undefined ? known : `did you mean ${meant}? ${known}`,
  });
}

/** `0.01`: a standard deviation. `"1%"`: a hundredth of each tensor's own. Throws `input` for anything else. */
export function noiseOf(said: number | string, fraction: number): Noise | null {
  const match = /^(\d+(?:\.\d+)?(?:e-?\d+)?)(%?)$/i.exec(String(said).trim());
  if (match === null)
    throw inputError(`"${said}" is no amount of noise`, {
      where: "noise",
      hint: "write a standard deviation such as 0.01, or a share of each tensor's own such as 1%",
    });
  const relative = match[2] === "%";
  const std = Number(match[1]) / (relative ? 100 : 1);
  return std === 0 ? null : { std, relative, fraction };
}

/** How noise is said: the inverse of `noiseOf`. */
export function noiseWords({ std, relative }: Noise): string {
  return relative ? `${Number((std * 100).toPrecision(12))}%` : String(std);
}
