/**
 * `upcycle.json` in an upcycled model's folder: how the model was made, so that it can be made again and compared with
 * its parent later. No times and no absolute paths: equal conversions give equal files.
 */
import { join } from "node:path";
import { z } from "zod";
import { inputError } from "../base/errors.js";
import { exists } from "../io/atomic.js";
import { readJson } from "../io/ranges.js";
import { checkRecipe, recipeName, scalings, targetFamilies, type UpcycleRecipe } from "../surgery/recipe.js";
import type { SurgeryPlan } from "../surgery/plan.js";

export const recordFile = "upcycle.json";

/** Unknown keys are kept out of the way, not refused: a later version may write more. */
const recordSchema = z.object({
  version: z.literal(1),
  upcycle: z.string(),
  parent: z.object({ name: z.string(), family: z.string() }),
  name: z.string(),
  recipe: z.object({
    expansion: z.int(),
    granularity: z.int(),
    topK: z.int(),
    target: z.enum(targetFamilies),
    order: z.enum(["topk-softmax", "softmax-topk"]),
    scaling: z.enum(scalings),
    routerStd: z.number(),
    seed: z.int(),
    allowUnevenTopK: z.boolean(),
  }),
  factors: z.object({ output: z.number(), gate: z.number(), up: z.number(), down: z.number() }),
  expected: z.object({
    kind: z.enum(["exact", "constant-router", "approximate"]),
    exactAtStart: z.boolean(),
    why: z.string(),
  }),
  warnings: z.array(z.string()),
});

export type UpcycleRecord = z.infer<typeof recordSchema>;

/** What is known of a plan's making. `parentName` is `modelName` of its folder; `version` is this tool's. */
export function recordOf(plan: SurgeryPlan, parentName: string, version: string, warnings: readonly string[]): UpcycleRecord {
  const { recipe, target, source, factors, expected } = plan;
  const family = targetFamilies.find((name) => name === target.family)!;
  return {
    version: 1,
    upcycle: version,
    parent: { name: parentName, family: source.family },
    name: recipeName(recipe),
    recipe: { ...recipe, target: family },
    factors: { ...factors },
    expected: { ...expected },
    warnings: [...warnings],
  };
}

/** The record of a model folder, or null if it has none. Throws `input` if it is there but unreadable. */
export async function readRecord(dir: string): Promise<UpcycleRecord | null> {
  const path = join(dir, recordFile);
  if (!(await exists(path))) return null;
  const parsed = recordSchema.safeParse(await readJson(path));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw inputError(`${issue.path.join(".") || "content"}: ${issue.message}`, {
    where: path,
    hint: "this file was not written by this version of upcycle; remove it to go on without it",
  });
}

/** The recipe of a record, ready for `planUpcycle`. Throws `input` if the numbers make no sense. */
export function recipeOf({ recipe }: UpcycleRecord): UpcycleRecipe {
  checkRecipe(recipe);
  return recipe;
}
