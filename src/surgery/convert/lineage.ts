/**
 * The lineage of an MoE: how its experts were made, as far as merging has to know it. `upcycle.json` of an upcycled
 * model, or `multiply.json` of one whose experts were multiplied since, says it in full. It is written into config.json
 * too, where it survives the loss of those files, and training, here or in transformers.
 */
import { join } from "node:path";
import { z } from "zod";
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { issueText } from "../../base/schemas/issue.js";
import type { Checkpoint } from "../../files/checkpoint/open.js";
import { lineageKey } from "../../files/checkpoint/write.js";
import { exists } from "../../files/io/atomic.js";
import { readJson } from "../../files/io/ranges.js";
import type { MergeLineage } from "../planning/merge-lineage.js";
import { checkRecipe, recipeDefaults } from "../planning/recipe.js";
import {
  factorRuns,
  factorRunsSchema,
  factorsByLayer,
  readRecord,
  recipeOf,
  recipeSchema,
  recordFile,
  type UpcycleRecord,
} from "./record.js";

/** Name of the file in a multiplied model's folder that says how it was made. */
export const multiplyFile = "multiply.json";

const lineageSchema = z.object({
  version: z.literal(1),
  /** Family of the dense parent. */
  family: z.string(),
  recipe: recipeSchema.pick({
    expansion: true,
    granularity: true,
    topK: true,
    seed: true,
    experts: true,
    parents: true,
    sharedParent: true,
    noise: true,
    drop: true,
    permute: true,
    shared: true,
    layers: true,
    pad: true,
    split: true,
  }),
  /** What the parent's matrices have been multiplied by. */
  factors: factorRunsSchema,
  /** Hidden units of each layer of the parent, where the recipe filled the last part. */
  inner: z.array(z.int()).nullable(),
  /** How many copies there are of each expert of the recipe. */
  copies: z.int().min(1),
});

/** The lineage as it is written to disk. */
export type LineageRecord = z.output<typeof lineageSchema>;

/** The lineage of an upcycled model of `count` layers, from its record. */
export function lineageOf(record: UpcycleRecord, count: number): MergeLineage {
  return {
    from: recordFile,
    recipe: recipeOf(record),
    family: record.parent.family,
    factors: factorsByLayer(record, count),
    ffnDims: record.parent.inner ?? null,
    copies: 1,
  };
}

/**
 * The lineage of a model after its experts were multiplied to `copies` of each; `down` has the factor on every layer's
 * down and its bias.
 */
export function multiplied(lineage: MergeLineage, copies: number, down: readonly (number | null)[]): MergeLineage {
  const factors = lineage.factors.map((own, layer) =>
    own === null ? null : { ...own, down: own.down * (down[layer] ?? 1), downBias: own.downBias * (down[layer] ?? 1) },
  );
  return { ...lineage, factors, copies: lineage.copies * copies };
}

/** The lineage as it is written. Prompts are left out, because they say nothing of the experts. */
export function lineageRecord({ recipe, family, factors, ffnDims, copies }: MergeLineage): LineageRecord {
  const sharedParent = recipe.sharedParent === null ? null : { ...recipe.sharedParent, prompts: null };
  return {
    version: 1,
    family,
    recipe: lineageSchema.shape.recipe.parse({ ...recipe, sharedParent }),
    factors: factorRuns(factors),
    inner: ffnDims === null ? null : [...ffnDims],
    copies,
  };
}

/**
 * The lineage of a model: from the records in its folder, else from config.json; null if neither says anything. Throws
 * inputError for a record that is there but unreadable.
 */
export async function readLineage({
  dir,
  config,
  spec,
}: Pick<Checkpoint, "dir" | "config" | "spec">): Promise<MergeLineage | null> {
  const count = spec.layers.length;
  const record = await readRecord(dir);
  if (record !== null) return lineageOf(record, count);
  const path = join(dir, multiplyFile);
  if (await exists(path)) {
    const { lineage } = z
      .object({ lineage: z.unknown() })
      .catch({ lineage: null })
      .parse(await readJson(path));
    if (lineage !== null && lineage !== undefined) return parsed(lineage, count, "lineage", dir, multiplyFile);
  }
  const value = config[lineageKey] ?? null;
  return value === null ? null : parsed(value, count, lineageKey, dir, "config.json");
}

function parsed(value: unknown, count: number, key: string, dir: string, from: string): MergeLineage {
  const result = lineageSchema.safeParse(value);
  if (!result.success) {
    const issue = at(result.error.issues, 0);
    const remove = from === multiplyFile ? "the file" : `the key ${key}`;
    throw inputError(`${[key, ...issue.path].join(".")}: ${issueText(issue)}`, {
      where: join(dir, from),
      hint: `remove ${remove} to go on without it`,
    });
  }
  const { recipe, family, factors, inner, copies } = result.data;
  checkRecipe({ ...recipeDefaults, ...recipe, allowUnevenTopK: true });
  return { from, recipe, family, factors: factorsByLayer({ factors }, count), ffnDims: inner, copies };
}
