/**
 * `upcycle.json` in an upcycled model's folder: how the model was made, so that it can be made again and compared with
 * its parent later. No times and no absolute paths: equal conversions give equal files.
 */
import { join } from "node:path";
import { z } from "zod";
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { issueText } from "../../base/schemas/issue.js";
import { exists } from "../../files/io/atomic.js";
import { readJson } from "../../files/io/ranges.js";
import { chosenLayers } from "../planning/layers.js";
import {
  checkRecipe,
  expertInits,
  otherTensors,
  recipeDefaults,
  recipeName,
  scalings,
  targetFamilies,
  type ExpertPrompts,
  type UpcycleRecipe,
} from "../planning/recipe.js";
import type { Factors } from "../planning/scaling.js";
import type { SurgeryPlan } from "../planning/plan.js";

/** Name of the file in an upcycled model's folder that says how it was made. */
export const recordFile = "upcycle.json";

const factorsSchema = z.object({
  output: z.number(),
  gate: z.number(),
  up: z.number(),
  down: z.number(),
  downBias: z.number().default(1),
});
/** Factors of runs of layers, as they are written. */
export const factorRunsSchema = z.array(factorsSchema.extend({ layers: z.string() }));

/** A recipe as it is written. Keys that version 1 did not write default to the values that version 1 always used. */
export const recipeSchema = z.object({
  expansion: z.int(),
  granularity: z.int(),
  topK: z.int(),
  target: z.enum(targetFamilies),
  order: z.enum(["topk-softmax", "softmax-topk"]),
  scaling: z.enum(scalings),
  routerStd: z.number(),
  routerInit: z
    .union([
      z.object({
        kind: z.enum(["hidden", "cheap_embed"]),
        prompts: z.array(z.object({ positive: z.array(z.string()), negative: z.array(z.string()) })),
      }),
      z.object({
        kind: z.literal("centroids"),
        text: z.object({ tokens: z.int(), source: z.string() }).nullable(),
      }),
      z.object({ kind: z.literal("uniform_random") }),
    ])
    .nullable()
    .default(recipeDefaults.routerInit),
  routerGroups: z.boolean().default(recipeDefaults.routerGroups),
  seed: z.int(),
  allowUnevenTopK: z.boolean(),
  experts: z.enum(expertInits).default(recipeDefaults.experts),
  parents: z
    .array(z.object({ source: z.int(), noise: z.number(), scale: z.number() }))
    .nullable()
    .default(recipeDefaults.parents),
  sharedParent: z
    .object({
      source: z.int(),
      noise: z.number(),
      scale: z.number(),
      prompts: z.object({ positive: z.array(z.string()), negative: z.array(z.string()) }).nullable(),
    })
    .nullable()
    .default(recipeDefaults.sharedParent),
  others: z.enum(otherTensors).default(recipeDefaults.others),
  noise: z
    .object({ std: z.number(), relative: z.boolean(), fraction: z.number() })
    .nullable()
    .default(recipeDefaults.noise),
  drop: z.number().default(recipeDefaults.drop),
  permute: z.boolean().default(recipeDefaults.permute),
  shared: z.int().nullable().default(recipeDefaults.shared),
  split: z
    .object({ text: z.object({ tokens: z.int(), source: z.string() }).nullable() })
    .nullable()
    .default(recipeDefaults.split),
  layers: z.string().default(recipeDefaults.layers),
  pad: z.boolean().default(recipeDefaults.pad),
  calibration: z.array(z.number().nullable()).nullable().default(recipeDefaults.calibration),
  auxLossCoef: z.number().default(recipeDefaults.auxLossCoef),
  correctionBias: z.boolean().default(recipeDefaults.correctionBias),
});

/**
 * The record as it is written. Unknown keys are ignored, not refused, because a later version may write more. Version 1
 * had one set of factors for all layers.
 */
const recordSchema = z.object({
  version: z.union([z.literal(1), z.literal(2)]),
  upcycle: z.string(),
  /** `inner`: hidden units of each layer's FFN, where the recipe filled the last part. */
  parent: z.object({ name: z.string(), family: z.string(), inner: z.array(z.int()).optional() }),
  /**
   * Names of all dense models if there are several, the base first: `source` of the recipe's parents is an index here.
   */
  parents: z.array(z.string()).optional(),
  name: z.string(),
  recipe: recipeSchema,
  factors: z.union([factorRunsSchema, factorsSchema.transform((factors) => [{ layers: "all", ...factors }])]),
  expected: z.object({
    kind: z.enum(["exact", "constant-router", "approximate"]),
    exactAtStart: z.boolean(),
    why: z.string(),
    rounded: z.array(z.string()).optional(),
  }),
  warnings: z.array(z.string()),
  /** How many values of which tensors are NaN or infinite; left out: none was when the model was made. */
  nonFinite: z.record(z.string(), z.int()).optional(),
});

/** How an upcycled model was made. */
export type UpcycleRecord = z.output<typeof recordSchema>;

/** The record of a plan. `names` are those of the parents, the base first; `version` is this tool's. */
export function recordOf(
  plan: SurgeryPlan,
  names: readonly [string, ...string[]],
  version: string,
  warnings: readonly string[],
): UpcycleRecord {
  const { recipe, target, source, expected } = plan;
  const { rounded, ...promise } = expected;
  const family = targetFamilies.find((name) => name === target.family);
  if (family === undefined) throw new Error(`the plan is for ${target.family}, which is no target`);
  return {
    version: 2,
    upcycle: version,
    parent: {
      name: names[0],
      family: source.family,
      ...(recipe.pad ? { inner: source.layers.map(({ ffn }) => ffn.ffnDim) } : {}),
    },
    ...(names.length > 1 ? { parents: [...names] } : {}),
    name: recipeName(recipe),
    recipe: { ...recipe, target: family, ...mutable(recipe) },
    factors: factorRuns(plan.factors),
    expected: { ...promise, ...(rounded === undefined ? {} : { rounded: [...rounded] }) },
    warnings: [...warnings],
  };
}

/** The lists of a recipe as the schema has them, which are not read-only. */
function mutable({
  calibration,
  parents,
  sharedParent,
  routerInit,
}: UpcycleRecipe): Pick<UpcycleRecord["recipe"], "calibration" | "parents" | "sharedParent" | "routerInit"> {
  const texts = ({ positive, negative }: ExpertPrompts): { positive: string[]; negative: string[] } => ({
    positive: [...positive],
    negative: [...negative],
  });
  return {
    calibration: calibration === null ? null : [...calibration],
    parents: parents === null ? null : parents.map((parent) => ({ ...parent })),
    sharedParent:
      sharedParent === null
        ? null
        : { ...sharedParent, prompts: sharedParent.prompts === null ? null : texts(sharedParent.prompts) },
    routerInit:
      routerInit !== null && "prompts" in routerInit
        ? { kind: routerInit.kind, prompts: routerInit.prompts.map(texts) }
        : routerInit,
  };
}

/** Factors as they are written: each with the run of layers that has it, such as `0-31`. Dense layers have none. */
export function factorRuns(factors: SurgeryPlan["factors"]): UpcycleRecord["factors"] {
  const runs: (Factors & { from: number; to: number })[] = [];
  factors.forEach((own, layer) => {
    const last = runs.at(-1);
    if (own === null) return;
    if (last?.to === layer - 1 && sameFactors(last, own)) last.to = layer;
    else runs.push({ ...own, from: layer, to: layer });
  });
  return runs.map(({ from, to, ...own }) => ({ layers: from === to ? `${from}` : `${from}-${to}`, ...own }));
}

/**
 * The factors of every one of `count` layers; null for those without experts. Throws inputError for layers that the
 * model does not have.
 */
export function factorsByLayer({ factors }: Pick<UpcycleRecord, "factors">, count: number): (Factors | null)[] {
  const runs = factors.map((run) => ({ run, chosen: chosenLayers(run, count) }));
  return Array.from({ length: count }, (_, layer) => runs.find(({ chosen }) => chosen[layer])?.run ?? null);
}

function sameFactors(a: Factors, b: Factors): boolean {
  return a.output === b.output && a.gate === b.gate && a.up === b.up && a.down === b.down && a.downBias === b.downBias;
}

/** The record of a model folder, or null if it has none. Throws inputError if it is there but unreadable. */
export async function readRecord(dir: string): Promise<UpcycleRecord | null> {
  const path = join(dir, recordFile);
  if (!(await exists(path))) return null;
  const parsed = recordSchema.safeParse(await readJson(path));
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  const issue = issues.find(({ path }) => path[0] === "version") ?? at(issues, 0);
  throw inputError(`${issue.path.join(".") || "content"}: ${issueText(issue)}`, {
    where: path,
    hint: "this version of upcycle reads records of versions 1 and 2; remove the file to go on without it",
  });
}

/** The recipe of a record, checked, for `planUpcycle`. Throws inputError if the numbers make no sense. */
export function recipeOf({ recipe }: UpcycleRecord): UpcycleRecipe {
  checkRecipe(recipe);
  return recipe;
}
