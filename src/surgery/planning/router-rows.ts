/**
 * Router rows that are made from prompts or from inputs of FFNs, or drawn from a uniform distribution. They are no
 * expression of the parents' tensors, so a plan carries them as data: one matrix [E, H] for each layer with experts (E
 * copies of the FFN, H the model's hidden size).
 */
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { slotKey } from "../../model/tensors/slots.js";
import { chosenLayers } from "./layers.js";
import { measuresRouter, recipeName, type RecipeShape, type UpcycleRecipe } from "./recipe.js";

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

/** The order of the hidden units of each layer in turn (`splitByActivity`); null where a layer stays dense. */
export type UnitOrders = readonly (Int32Array | null)[];

/** The name of the list that says which hidden units of a layer's FFN come first. */
export const unitList = (layer: number): string => `layers.${layer}.units`;

/**
 * The lists of a split by activation, as a plan carries them. Throws inputError for lists that do not fit the model.
 */
export function unitData(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  orders: UnitOrders | undefined,
): readonly PlanMatrix[] {
  if (recipe.split === null || orders === undefined) return [];
  const chosen = chosenLayers(recipe, source.layers.length);
  return source.layers.flatMap(({ ffn }, layer) => {
    if (!chosen[layer]) return [];
    const values = [...(orders[layer] ?? [])];
    if (
      values.length !== ffn.ffnDim ||
      new Set(values).size !== ffn.ffnDim ||
      values.some((unit) => unit >= ffn.ffnDim)
    )
      throw inputError(`the order of layer ${layer}'s hidden units names ${values.length} of ${ffn.ffnDim}`, {
        where: `recipe ${recipeName(recipe)}`,
        hint: "measure it with this model and recipe",
      });
    return [{ name: unitList(layer), values }];
  });
}

/**
 * The data of a plan, named like the router's slot. Without `rows` a router that is to be measured has none yet: such a
 * plan can be printed, not executed. Throws inputError for rows that do not fit the model.
 */
export function routerData(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  rows: RouterRows | undefined,
): readonly PlanMatrix[] {
  const { routerInit } = recipe;
  const uniform = routerInit?.kind === "uniform_random";
  if (!uniform && (!measuresRouter(recipe) || rows === undefined)) return [];
  const chosen = chosenLayers(recipe, source.layers.length);
  const layers = [...chosen.keys()].filter((layer) => chosen[layer]);
  return layers.flatMap((layer) =>
    uniform || rows === undefined
      ? drawnMatrices(source, recipe, layer)
      : measuredMatrices(source, recipe, layer, rows),
  );
}

/** How many rows the router has: one for each copy, or for each part where a group of parts shares none. */
export function rowCountOf(recipe: RecipeShape & Pick<UpcycleRecipe, "routerGroups">): number {
  return (recipe.expansion * recipe.granularity) / rowRepeats(recipe);
}

/** How many experts, one behind the other, share a router row. */
export function rowRepeats({
  expansion,
  granularity,
  topK,
  routerGroups,
}: RecipeShape & Pick<UpcycleRecipe, "routerGroups">): number {
  const isSplit = expansion === 1 && topK < granularity;
  return isSplit || !routerGroups ? 1 : granularity;
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
