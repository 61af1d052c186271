/** A recipe as the options of `upcycle convert`. */
import { noiseWords } from "./recipe-config.js";
import { recipeDefaults, recipeName, type UpcycleRecipe } from "./recipe.js";

/** Words of the command line, not quoted. Prompts of a router are said by a recipe file, not by options. */
export function recipeFlags(recipe: UpcycleRecipe): string[] {
  const { target, order, scaling, routerStd, seed, experts, noise, drop, shared, layers, auxLossCoef } = recipe;
  const flag = (isNeeded: boolean, ...words: readonly string[]): readonly string[] => (isNeeded ? words : []);
  return [
    ...["--recipe", recipeName(recipe)],
    ...flag(target !== null, "--target", String(target)),
    ...["--router", order, "--scaling", scaling, "--router-std", `${routerStd}`, "--seed", `${seed}`],
    ...flag(experts !== recipeDefaults.experts, "--experts", experts),
    ...(noise === null ? [] : ["--noise", noiseWords(noise)]),
    ...flag(noise !== null && noise.fraction !== 1, "--noise-fraction", `${noise?.fraction}`),
    ...flag(drop !== 0, "--drop", `${drop}`),
    ...flag(recipe.permute, "--permute"),
    ...flag(shared !== null, "--shared", `${shared}`),
    ...flag(layers !== recipeDefaults.layers, "--layers", layers),
    ...flag(recipe.pad, "--pad"),
    ...flag(recipe.correctionBias, "--correction-bias"),
    ...flag(auxLossCoef !== recipeDefaults.auxLossCoef, "--aux-loss", `${auxLossCoef}`),
    ...flag(!recipe.routerGroups, "--ungrouped-router"),
    ...flag(recipe.allowUnevenTopK, "--allow-uneven-topk"),
  ];
}
