/** The commands that reproduce a study's numbers, as a user would type them. */
import { shellPath, shellWord } from "../base/shell.js";
import type { ModelSource } from "../files/checkpoint/open.js";
import type { UpcycleRecipe } from "../surgery/planning/recipe.js";
import { recipeFlags } from "../surgery/planning/recipe-flags.js";
import { shownPath } from "./context.js";
import { shownModel } from "./model-folder.js";

/** `upcycle convert` with every setting of the recipe. */
export function convertLine(parent: ModelSource, recipe: UpcycleRecipe, out: string): string {
  const flags = recipeFlags(recipe).map(shellWord).join(" ");
  return `upcycle convert ${shellPath(shownModel(parent))} ${flags} --dtype float32 --out ${shellPath(shownPath(out))}`;
}

/** `upcycle verify` of a conversion: the parent, then the model that was made of it. */
export function verifyLine(parent: ModelSource, child: string): string {
  return `upcycle verify ${shellPath(shownModel(parent))} ${shellPath(shownPath(child))}`;
}

/** The command of a study with its folder and its threads. `device`: further flags that say what computes. */
export function studyLine(command: string, dir: string, threads: number, device = ""): string {
  return `${command} --out ${shellPath(shownPath(dir))} --threads ${threads}${device}`;
}
