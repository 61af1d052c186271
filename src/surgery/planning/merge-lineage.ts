/** The record of how a model's experts were made, as far as merging has to know it. */
import { inputError } from "../../base/errors.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { chosenLayers } from "./layers.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";
import type { Factors } from "./scaling.js";

/** What merging has to know of a recipe. */
type MadeRecipe = Pick<
  UpcycleRecipe,
  | "expansion"
  | "granularity"
  | "topK"
  | "seed"
  | "experts"
  | "parents"
  | "sharedParent"
  | "noise"
  | "drop"
  | "permute"
  | "shared"
  | "layers"
  | "pad"
> & { readonly split?: UpcycleRecipe["split"] | undefined };

/** How the experts of a model were made. */
export interface MergeLineage {
  /** Name of the file that says so. */
  readonly from: string;
  readonly recipe: MadeRecipe;
  /** Family of the dense parent. */
  readonly family: string;
  /** What the experts of each layer were scaled by; null where the layer stayed dense. */
  readonly factors: readonly (Factors | null)[];
  /** Hidden units of each layer of the parent, where the recipe filled the last part; null: not known. */
  readonly ffnDims: readonly number[] | null;
  /** How many copies there are of each expert that the recipe made. Each set of copies lies behind the one before. */
  readonly copies: number;
}

/** Throws inputError for a record that does not fit the model, or whose experts no dense FFN can take the place of. */
export function checkLineage(source: DecoderSpec, { recipe, copies, ffnDims, from }: MergeLineage): void {
  const hint =
    "to merge whole experts, remove that record: upcycle.json, multiply.json and the key upcycle of config.json";
  const { expansion, granularity } = recipe;
  if (recipe.sharedParent !== null) {
    throw inputError(
      "every token gets a shared expert of another model as well as the routed ones, which no one FFN does",
      { hint: "only mixtures without one can be merged" },
    );
  }
  if (ffnDims !== null && ffnDims.length !== source.layers.length)
    throw inputError(`${from} knows the FFNs of ${ffnDims.length} layers, the model has ${source.layers.length}`, {
      hint,
    });
  const chosen = chosenLayers(recipe, source.layers.length);
  const experts = copies * expansion * granularity;
  for (const [layer, { ffn }] of source.layers.entries()) {
    const fits = ffn.kind === "moe" ? chosen[layer] && ffn.experts === experts : !chosen[layer];
    if (fits) continue;
    const times = copies === 1 ? "" : `, ${copies} times,`;
    throw inputError(
      `layer ${layer} has ${ffn.kind === "moe" ? `${ffn.experts} experts` : "a dense FFN"}, which the recipe ` +
        `${recipeName(recipe)}${times} in ${from} does not make`,
      { hint },
    );
  }
}

/**
 * What becomes of padding, the units that filled the last part of each copy. They are zero and get no gradient, so they
 * are left out (`goes`) if the parent's FFN size is known. They stay (`stays`) if noise or redrawn units have changed
 * them.
 */
export function paddingOf({ recipe: { pad, noise, drop, parents }, ffnDims }: MergeLineage): "none" | "goes" | "stays" {
  if (!pad) return "none";
  return ffnDims !== null && noise === null && drop === 0 && (parents ?? []).every((parent) => parent.noise === 0)
    ? "goes"
    : "stays";
}
