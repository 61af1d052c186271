/** The commands that make a study's numbers again, as a user would type them. */
import { recipeName, type UpcycleRecipe } from "../surgery/recipe.js";
import { shownPath } from "./context.js";

const quoted = (path: string): string => (/^[\w./~-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

/** `upcycle convert` with everything said. */
export function convertLine(parent: string, recipe: UpcycleRecipe, out: string): string {
  const { target, order, scaling, routerStd, seed, allowUnevenTopK } = recipe;
  return [
    `upcycle convert ${quoted(shownPath(parent))} --recipe ${recipeName(recipe)}`,
    ...(target === null ? [] : [`--target ${target}`]),
    `--router ${order} --scaling ${scaling} --router-std ${routerStd} --seed ${seed} --dtype float32`,
    ...(allowUnevenTopK ? ["--allow-uneven-topk"] : []),
    `--out ${quoted(shownPath(out))}`,
  ].join(" ");
}

/** `upcycle verify` of a conversion. */
export function verifyLine(parent: string, child: string): string {
  return `upcycle verify ${quoted(shownPath(parent))} ${quoted(shownPath(child))}`;
}

export function studyLine(command: string, dir: string, threads: number): string {
  return `${command} --out ${quoted(shownPath(dir))} --threads ${threads}`;
}
