/** The options of `upcycle convert` that say a recipe: a name or a file, and what overrides the file. */
import type { Command } from "commander";
import { parseRecipeConfig, type RecipeConfig } from "../config/index.js";
import { readText } from "../io/ranges.js";
import { expertInits, recipeDefaults, scalings, targetFamilies, type UpcycleRecipe } from "../surgery/recipe.js";
import { recipeFromConfig } from "../surgery/recipe-config.js";
import { shownPath } from "./context.js";
import { oneOf, realNumber, wholeNumber } from "./options.js";

/** Keys as in recipe files, apart from a few shorter ones. */
export interface RecipeFlags extends Partial<Omit<RecipeConfig, "recipe" | "allowUnevenTopK" | "auxLossCoef">> {
  readonly recipe: string;
  readonly allowUnevenTopk?: boolean;
  readonly auxLoss?: number;
}

export function withRecipe(command: Command): Command {
  return command
    .requiredOption("--recipe <name>", "E<copies>G<parts>T<experts per token>, for example E8G1T2, or a .yaml file with these options as keys")
    .option("--target <family>", `auto (simplest exact), ${targetFamilies.join(", ")}`, oneOf("--target", ["auto", ...targetFamilies]))
    .option("--router <order>", `topk-softmax, softmax-topk (default: ${recipeDefaults.order})`, oneOf("--router", ["topk-softmax", "softmax-topk"]))
    .option("--scaling <how>", `${scalings.join(", ")} (default: ${recipeDefaults.scaling})`, oneOf("--scaling", scalings))
    .option("--router-std <number>", `standard deviation of the fresh router (default: ${recipeDefaults.routerStd})`, realNumber("--router-std", 0))
    .option("--seed <n>", `of everything drawn (default: ${recipeDefaults.seed})`, wholeNumber("--seed", 0))
    .option("--experts <what>", `what experts start from: ${expertInits.join(", ")} (default: ${recipeDefaults.experts})`, oneOf("--experts", expertInits))
    .option("--noise <amount>", "noise on the experts: a std, or a share of each tensor's own such as 1%")
    .option("--noise-fraction <share>", "share of the elements that get noise (default: 1)", realNumber("--noise-fraction", 0, 1))
    .option("--drop <ratio>", "Drop-Upcycling: share of each expert's units drawn afresh", realNumber("--drop", 0, 1))
    .option("--permute", "give every expert's hidden units an order of their own")
    .option("--shared <n>", "hidden units of the FFN that go to a shared expert", wholeNumber("--shared", 1))
    .option("--layers <list>", "layers that get experts: all, even, odd, 0,4-7,12- (default: all)")
    .option("--pad", "fill the FFN with zero units where G does not divide its size")
    .option("--aux-loss <number>", `coefficient of the balance loss in the config (default: ${recipeDefaults.auxLossCoef})`, realNumber("--aux-loss", 0, 1))
    .option("--allow-uneven-topk", "accept a T that is not a multiple of G");
}

/** The recipe of the flags; those that are given come before the file's keys. Throws `input` for a file or a recipe that cannot be used. */
export async function recipeOfFlags(flags: RecipeFlags): Promise<UpcycleRecipe> {
  const { recipe, allowUnevenTopk, auxLoss, ...all } = flags;
  const isFile = /\.ya?ml$/i.test(recipe);
  const file = isFile ? parseRecipeConfig(await readText(recipe), shownPath(recipe)) : { recipe };
  const { target, router, scaling, routerStd, seed, experts, noise, noiseFraction, drop, permute, shared, layers, pad } = all;
  const said = {
    target, router, scaling, routerStd, seed, experts, noise, noiseFraction, drop, permute, shared, layers, pad, allowUnevenTopK: allowUnevenTopk, auxLossCoef: auxLoss,
  };
  return recipeFromConfig({ ...file, ...Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined)) });
}
