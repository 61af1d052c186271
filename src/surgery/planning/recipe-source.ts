/** Whether a model can be upcycled by a recipe, and how large the experts become that its FFNs are cut into. */
import { inputError } from "../../base/errors.js";
import { expertTensors, mostTensors } from "../../model/decoder/bounds.js";
import type { DecoderSpec, DenseFfn } from "../../model/decoder/types.js";
import { chosenLayers } from "./layers.js";
import { recipeDefaults, recipeName, type RecipeShape, type UpcycleRecipe } from "./recipe.js";

/**
 * Throws inputError for a source that this recipe cannot cut: one with experts already, one with an FFN size that G
 * does not divide, or one that would get too many tensors. Settings that are left out take `recipeDefaults`.
 */
export function checkSource(settings: RecipeShape & Partial<UpcycleRecipe>, source: DecoderSpec): void {
  const recipe = { ...recipeDefaults, ...settings };
  const where = `recipe ${recipeName(recipe)}`;
  const chosen = chosenLayers(recipe, source.layers.length);
  for (const [layer, { ffn }] of source.layers.entries()) {
    if (ffn.kind === "moe") {
      throw inputError(`layer ${layer} of the source is already a mixture of ${ffn.experts} experts`, {
        where,
        hint: "upcycling starts from a dense model",
      });
    }
    if (chosen[layer]) checkFfn(ffn, layer, recipe, where);
  }
  checkTensors(recipe, source, chosen, where);
}

/** Throws inputError for an FFN that cannot be cut into experts. */
function checkFfn({ ffnDim, bias }: DenseFfn, layer: number, recipe: UpcycleRecipe, where: string): void {
  const { granularity, shared } = recipe;
  const routed = ffnDim - (shared ?? 0);
  if (routed < granularity) {
    const left =
      shared === null
        ? `the FFN has ${routed} units`
        : `a shared expert of ${shared} leaves ${routed} of the FFN's ${ffnDim} units`;
    throw inputError(`${left} (layer ${layer}) for G = ${granularity} parts`, { where });
  }
  if ((shared !== null || recipe.sharedParent !== null) && bias)
    throw inputError(`the FFN of layer ${layer} has biases, which a shared expert cannot take`, { where });
  if (routed % granularity !== 0 && !recipe.pad) throw indivisible(recipe, ffnDim, layer, where);
  if (partSize(recipe, ffnDim) * (granularity - 1) >= routed) {
    throw inputError(`with padding, ${routed} units (layer ${layer}) fill fewer than G = ${granularity} parts`, {
      where,
      hint: "use a smaller G",
    });
  }
}

/**
 * Each tensor is planned, named and listed in a header: so many that this alone would take minutes are refused
 * beforehand.
 */
function checkTensors(
  { expansion, granularity }: RecipeShape,
  source: DecoderSpec,
  chosen: readonly boolean[],
  where: string,
): void {
  const experts = expansion * granularity;
  const tensors = source.layers.reduce(
    (sum, { ffn }, layer) => sum + (chosen[layer] ? expertTensors({ ...ffn, experts }) : 0),
    0,
  );
  if (tensors <= mostTensors) return;
  const layers = chosen.filter((moe) => moe).length;
  throw inputError(
    `${experts} experts in each of ${layers} layers are ${tensors} tensors, the limit is ${mostTensors}`,
    { where, hint: "use a smaller E or G, or fewer layers" },
  );
}

function indivisible({ granularity, shared }: UpcycleRecipe, ffnDim: number, layer: number, where: string): Error {
  const routed = ffnDim - (shared ?? 0);
  const divisors = Array.from({ length: Math.min(routed, 64) }, (_, i) => i + 1).filter((g) => routed % g === 0);
  const what = shared === null ? `the FFN size ${ffnDim}` : `the FFN size ${ffnDim} less the shared ${shared}`;
  return inputError(`${what} (layer ${layer}) is not divisible by G = ${granularity}`, {
    where,
    hint: `use a G that divides it: ${divisors.join(", ")}; or fill it with zero units (--pad, in files pad: true)`,
  });
}

/**
 * Hidden size of one routed expert that is cut out of an FFN of `ffnDim` units. With padding it is rounded up, so that
 * the experts of one copy hold more units than the FFN.
 */
export function partSize(
  { granularity, shared }: Pick<UpcycleRecipe, "granularity" | "shared">,
  ffnDim: number,
): number {
  return Math.ceil((ffnDim - (shared ?? 0)) / granularity);
}
