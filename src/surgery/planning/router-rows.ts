/**
 * Router rows that a plan carries as data, one matrix [E, H] for each layer with experts: no expression of the parents'
 * tensors gives them.
 */
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotKey } from "../../model/tensors/slots.js";
import { chosenLayers } from "./layers.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";

/** A matrix that expressions of a plan name, row-major. */
export interface PlanMatrix {
  readonly name: string;
  readonly values: readonly number[];
}

/**
 * Of each layer in turn: one row of H values for each copy, and one more for a shared expert that has prompts; null
 * where a layer stays dense.
 */
export type RouterRows = readonly (Float32Array | null)[];

/**
 * The data of a plan, named like the router's slot. Without `rows` a router made from prompts has none yet: such a plan
 * can be printed, not executed. Throws inputError for rows that do not fit the model.
 */
export function routerData(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  rows: RouterRows | undefined,
): readonly PlanMatrix[] {
  const { routerInit, expansion, seed, sharedParent } = recipe;
  const chosen = chosenLayers(recipe, source.layers.length);
  const data: PlanMatrix[] = [];
  if (routerInit === null || (routerInit.kind !== "uniform_random" && rows === undefined)) return data;
  for (const [layer, moe] of chosen.entries()) {
    if (!moe) continue;
    const key = slotKey({ part: "router", layer });
    // E rows, or with one copy that is split a row for each part.
    const count = expansion === 1 && recipe.topK < recipe.granularity ? recipe.granularity : expansion;
    const gate = slotKey({ part: "sharedRouter", layer });
    if (routerInit.kind === "uniform_random") {
      data.push({ name: key, values: [...uniformRows(count, source.hidden, seed, key)] });
      if (sharedParent !== null) data.push({ name: gate, values: [...uniformRows(1, source.hidden, seed, gate)] });
      continue;
    }
    const prompted = sharedParent !== null && sharedParent.prompts !== null;
    const values = [...fitting(rows!, layer, (count + (prompted ? 1 : 0)) * source.hidden, recipe)];
    data.push({ name: key, values: values.slice(0, count * source.hidden) });
    if (prompted) data.push({ name: gate, values: values.slice(count * source.hidden) });
  }
  return data;
}

function fitting(rows: RouterRows, layer: number, size: number, recipe: UpcycleRecipe): Float32Array {
  const own = rows[layer];
  if (own?.length === size && own.every(Number.isFinite)) return own;
  throw inputError(
    `the router rows of layer ${layer} do not fit the model: ${own?.length ?? 0} finite values expected to be ${size}`,
    {
      where: `recipe ${recipeName(recipe)}`,
      hint: "make them with this model and recipe",
    },
  );
}

/** For `EvaluationContext`. */
export function matricesOf(data: readonly PlanMatrix[]): ReadonlyMap<string, Float32Array> {
  return new Map(data.map(({ name, values }) => [name, Float32Array.from(values)]));
}

/** U(-1/sqrt(H), 1/sqrt(H)), as `torch.nn.Linear` begins. */
function uniformRows(count: number, hidden: number, seed: number, key: string): Float32Array {
  const stream = randomStream(seed, key);
  const bound = 1 / Math.sqrt(hidden);
  return Float32Array.from({ length: count * hidden }, (_, i) => (2 * stream.uniformAt(i) - 1) * bound);
}
