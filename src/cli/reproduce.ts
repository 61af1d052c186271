/** The commands that reproduce a study's numbers, as a user would type them. */
import { shellPath, shellWord } from "../base/shell.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import { recipeDefaults, recipeName, type UpcycleRecipe } from "../surgery/planning/recipe.js";
import { noiseWords } from "../surgery/planning/recipe-config.js";
import { shownPath } from "./context.js";
import { shownModel } from "./model-folder.js";

/** `upcycle convert` with every setting of the recipe. */
export function convertLine(parent: ModelSource, recipe: UpcycleRecipe, out: string): string {
  const {
    target,
    order,
    scaling,
    routerStd,
    routerGroups,
    seed,
    allowUnevenTopK,
    experts,
    noise,
    drop,
    permute,
    shared,
    layers,
    pad,
    auxLossCoef,
    correctionBias,
  } = recipe;
  const flag = (isNeeded: boolean, words: string): string[] => (isNeeded ? [words] : []);
  return [
    `upcycle convert ${shellPath(shownModel(parent))} --recipe ${recipeName(recipe)}`,
    ...(target === null ? [] : [`--target ${shellWord(target)}`]),
    `--router ${order} --scaling ${scaling} --router-std ${routerStd} --seed ${seed} --dtype float32`,
    ...flag(experts !== recipeDefaults.experts, `--experts ${experts}`),
    ...(noise === null
      ? []
      : [`--noise ${noiseWords(noise)}`, ...flag(noise.fraction !== 1, `--noise-fraction ${noise.fraction}`)]),
    ...flag(drop !== 0, `--drop ${drop}`),
    ...flag(permute, "--permute"),
    ...flag(shared !== null, `--shared ${shared}`),
    ...flag(layers !== recipeDefaults.layers, `--layers ${shellWord(layers)}`),
    ...flag(pad, "--pad"),
    ...flag(correctionBias, "--correction-bias"),
    ...flag(auxLossCoef !== recipeDefaults.auxLossCoef, `--aux-loss ${auxLossCoef}`),
    ...flag(!routerGroups, "--ungrouped-router"),
    ...flag(allowUnevenTopK, "--allow-uneven-topk"),
    `--out ${shellPath(shownPath(out))}`,
  ].join(" ");
}

/** `upcycle verify` of a conversion: the parent, then the model that was made of it. */
export function verifyLine(parent: ModelSource, child: string): string {
  return `upcycle verify ${shellPath(shownModel(parent))} ${shellPath(shownPath(child))}`;
}

/** The command of a study with its folder and its threads. `device`: further flags that say what computes. */
export function studyLine(command: string, dir: string, threads: number, device = ""): string {
  return `${command} --out ${shellPath(shownPath(dir))} --threads ${threads}${device}`;
}
