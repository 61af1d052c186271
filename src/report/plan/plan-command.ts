/** The command that plans for what the sliders of a page say. */
import { shellWord } from "../../base/shell.js";
import type { PlanRequest } from "../../laws/planner/plan-types.js";
import { recipeName } from "../../surgery/planning/recipe.js";

/** What a slider changes. */
export type ControlKey = "size" | "seen" | "tokens" | "expansion" | "granularity" | "topK" | "price" | "gpus";
/** The values of the sliders that were moved. */
export type Changes = { readonly [K in ControlKey]?: number };

/** Options of `upcycle plan` that take no value; all others take one. */
const flags: readonly string[] = ["--allow-uneven-topk", "--full", "--json", "--print-settings"];

/** Options that say what is planned for; a slider of N takes the place of all of them. */
const models: readonly string[] = ["--preset", "--size", "--shape", "--n"];
const budgets: readonly string[] = ["--tokens", "--gpu-hours", "--money", "--days"];

/**
 * The command of a changed request: `words` (those after `upcycle`) without the options that sliders replace and
 * without the page, and with those that they set. `now` is the request after the changes.
 */
export function changedCommand(words: readonly string[], now: PlanRequest, changes: Changes): string {
  const { size, seen, tokens, expansion, granularity, topK, price, gpus } = changes;
  const isOtherRecipe = expansion !== undefined || granularity !== undefined || topK !== undefined;
  const replaced = [
    "--html",
    "--json",
    ...(size === undefined ? [] : [...models, "--d1"]),
    ...(seen === undefined ? [] : ["--d1"]),
    ...(tokens === undefined ? [] : budgets),
    ...(isOtherRecipe ? ["--recipe"] : []),
    ...(price === undefined ? [] : ["--price"]),
    ...(gpus === undefined ? [] : ["--gpus"]),
  ];
  const set: readonly (readonly [name: string, value: string] | null)[] = [
    size === undefined ? null : ["--size", String(size)],
    size === undefined && seen === undefined ? null : ["--d1", String(now.seen)],
    tokens === undefined ? null : ["--tokens", String(tokens)],
    isOtherRecipe ? ["--recipe", now.recipes.map(recipeName).join(",")] : null,
    price === undefined ? null : ["--price", String(price)],
    gpus === undefined ? null : ["--gpus", String(gpus)],
  ];
  const kept = keptWords(words, replaced, size !== undefined);
  return ["upcycle", ...kept, ...set.flatMap((pair) => pair ?? [])].map(shellWord).join(" ");
}

/** The words without these options and their values; a model's folder goes too where another size takes its place. */
function keptWords(words: readonly string[], replaced: readonly string[], withoutModel: boolean): readonly string[] {
  const kept: string[] = [];
  // The first word is the command's own name.
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? "";
    if (!word.startsWith("--")) {
      if (i === 0 || !withoutModel) kept.push(word);
      continue;
    }
    const [name = ""] = word.split("=");
    const hasValue = !word.includes("=") && !flags.includes(name);
    if (!replaced.includes(name)) kept.push(...words.slice(i, i + (hasValue ? 2 : 1)));
    if (hasValue) i += 1;
  }
  return kept;
}
