/**
 * Router rows that are made from prompts or from inputs of FFNs, or drawn from a uniform distribution. They are no expression of the parents'
 * tensors, so a plan carries them as data: one matrix [E, H] for each layer with experts (E copies of the FFN, H the
 * model's hidden size).
 */
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotKey } from "../../model/tensors/slots.js";
import { chosenLayers } from "./layers.js";
import { recipeName, type RecipeShape, type UpcycleRecipe } from "./recipe.js";

/** A matrix that expressions of a plan name, row-major. */
export interface PlanMatrix {
  readonly name: string;
  readonly values: readonly number[];
}

/**
 * The router rows of each layer in turn: one row of H values for each copy, and one more for a shared expert that has
 * prompts; null where a layer stays dense.
 */
export type RouterRows = readonly (Float32Array | null)[];

/**
 * The data of a plan, named like the router's slot. Without `rows` a router that is to be measured has none yet: such a plan
 * can be printed, not executed. Throws inputError for rows that do not fit the model.
 */
export function routerData(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  rows: RouterRows | undefined,
): readonly PlanMatrix[] {
  const { routerInit } = recipe;
  if (routerInit === null || (routerInit.kind !== "uniform_random" && rows === undefined)) return [];
  const chosen = chosenLayers(recipe, source.layers.length);
  const layers = [...chosen.keys()].filter((layer) => chosen[layer]);
  return layers.flatMap((layer) =>
    rows === undefined || routerInit.kind === "uniform_random"
      ? drawnMatrices(source, recipe, layer)
      : measuredMatrices(source, recipe, layer, rows),
  );
}

/** How many rows the router has: one for each copy, or for each part of the one copy that is split. */
export function rowCountOf({ expansion, topK, granularity }: RecipeShape): number {
  return expansion === 1 && topK < granularity ? granularity : expansion;
}

function drawnMatrices({ hidden }: DecoderSpec, recipe: UpcycleRecipe, layer: number): PlanMatrix[] {
  const router = slotKey({ part: "router", layer });
  const gate = slotKey({ part: "sharedRouter", layer });
  const drawn = (name: string, count: number): PlanMatrix => ({
    name,
    values: [...uniformRows(count, hidden, recipe.seed, name)],
  });
  return [drawn(router, rowCountOf(recipe)), ...(recipe.sharedParent === null ? [] : [drawn(gate, 1)])];
}

function measuredMatrices(
  { hidden }: DecoderSpec,
  recipe: UpcycleRecipe,
  layer: number,
  rows: RouterRows,
): PlanMatrix[] {
  const size = rowCountOf(recipe) * hidden;
  const gated = recipe.sharedParent !== null && recipe.sharedParent.prompts !== null;
  const values = [...fitting(rows, layer, gated ? size + hidden : size, recipe)];
  return [
    { name: slotKey({ part: "router", layer }), values: values.slice(0, size) },
    ...(gated ? [{ name: slotKey({ part: "sharedRouter", layer }), values: values.slice(size) }] : []),
  ];
}

/** The rows of one layer. Throws inputError if there are none, or others than `size` finite values. */
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

/** The plan's matrices by name, as `EvaluationContext` has them. */
export function matricesOf(data: readonly PlanMatrix[]): ReadonlyMap<string, Float32Array> {
  return new Map(data.map(({ name, values }) => [name, Float32Array.from(values)]));
}

/** U(-1/sqrt(H), 1/sqrt(H)), as `torch.nn.Linear` begins. */
function uniformRows(count: number, hidden: number, seed: number, key: string): Float32Array {
  const stream = randomStream(seed, key);
  const bound = 1 / Math.sqrt(hidden);
  return Float32Array.from({ length: count * hidden }, (_, i) => (2 * stream.uniformAt(i) - 1) * bound);
}
