/**
 * What an upcycling recipe says, and its name: `E8G2T4` = expansion 8, granularity 2, top 4.
 *
 * Notation of "Upcycling Large Language Models into Mixture of Experts", He et al. 2024 (arXiv 2410.07524), section 2:
 * expansion E = parameters of the MoE layer / parameters of the dense FFN; granularity G = dense FFN size / expert size;
 * topK T = experts per token. There are E*G routed experts of size inner/G; a token pays T/G dense FFNs.
 */
import { inputError } from "../base/errors.js";
import type { DecoderSpec, RouterOrder } from "../spec/types.js";

export const targetFamilies = [
  "mixtral", "qwen3_moe", "qwen2_moe", "granitemoe", "granitemoe_swa", "flex_olmo", "glm4_moe", "ernie4_5_moe", "dots1", "solar_open",
  "mellum", "hy_v3", "lfm2_moe", "phimoe",
  "upcycle",
] as const;
/** MoE families that an upcycled model can be written as. */
export type TargetFamily = (typeof targetFamilies)[number];

export const scalings = ["exact", "paper", "none"] as const;
/** Where the factor that restores the FFN's output size goes; see `scaling.ts`. */
export type Scaling = (typeof scalings)[number];

export interface RecipeShape {
  /** E: whole copies of the dense FFN. */
  readonly expansion: number;
  /** G: parts that the dense FFN is cut into. */
  readonly granularity: number;
  /** T: experts per token. */
  readonly topK: number;
}

export interface UpcycleRecipe extends RecipeShape {
  /** Null: the default target of the source and the router order (`defaultTarget`). */
  readonly target: TargetFamily | null;
  readonly order: RouterOrder;
  readonly scaling: Scaling;
  /** Standard deviation of the fresh router rows; 0 gives a constant router. */
  readonly routerStd: number;
  readonly seed: number;
  /** Accept a T that is not a multiple of G, although no whole copy of the FFN is selected then. */
  readonly allowUnevenTopK: boolean;
}

export type RecipeOptions = { readonly [K in Exclude<keyof UpcycleRecipe, keyof RecipeShape>]?: UpcycleRecipe[K] | undefined };

/** Router std 0.02 is the usual `initializer_range`; the order and scaling keep the function for any router. */
export const recipeDefaults = {
  target: null,
  order: "topk-softmax",
  scaling: "exact",
  routerStd: 0.02,
  seed: 0,
  allowUnevenTopK: false,
} as const satisfies Omit<UpcycleRecipe, keyof RecipeShape>;

/** `E8G1T2` -> numbers. Throws `input` if the text is not of that form. */
export function parseRecipeName(text: string): RecipeShape {
  const match = /^E([1-9]\d{0,5})G([1-9]\d{0,5})T([1-9]\d{0,5})$/i.exec(text.trim());
  if (match === null) {
    throw inputError(`"${text}" is not a recipe name`, {
      hint: "write E<copies>G<parts>T<experts per token>, for example E8G1T2",
    });
  }
  return { expansion: Number(match[1]), granularity: Number(match[2]), topK: Number(match[3]) };
}

/** The name of a recipe: `E8G1T2`. */
export function recipeName({ expansion, granularity, topK }: RecipeShape): string {
  return `E${expansion}G${granularity}T${topK}`;
}

/** A checked recipe from its name; what `options` leaves out or undefined takes `recipeDefaults`. Throws like `checkRecipe`. */
export function upcycleRecipe(name: string, options: RecipeOptions = {}): UpcycleRecipe {
  const recipe: UpcycleRecipe = {
    ...parseRecipeName(name),
    target: options.target ?? recipeDefaults.target,
    order: options.order ?? recipeDefaults.order,
    scaling: options.scaling ?? recipeDefaults.scaling,
    routerStd: options.routerStd ?? recipeDefaults.routerStd,
    seed: options.seed ?? recipeDefaults.seed,
    allowUnevenTopK: options.allowUnevenTopK ?? recipeDefaults.allowUnevenTopK,
  };
  checkRecipe(recipe);
  return recipe;
}

/** Refuses (`input`) a recipe that makes no sense for any source. */
export function checkRecipe(recipe: UpcycleRecipe): void {
  const { expansion, granularity, topK, routerStd, seed } = recipe;
  const where = `recipe ${recipeName(recipe)}`;
  for (const [letter, value] of [["E", expansion], ["G", granularity], ["T", topK]] as const) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw inputError(`${letter} is ${value}, expected a whole number of at least 1`, { where });
    }
  }
  const experts = expansion * granularity;
  if (experts < 2) {
    throw inputError("E*G is 1: one expert is the dense model again", { where, hint: "use E or G of at least 2" });
  }
  if (topK > experts) {
    throw inputError(`T is ${topK} but there are only E*G = ${experts} experts`, { where, hint: `use T of at most ${experts}` });
  }
  if (topK % granularity !== 0 && !recipe.allowUnevenTopK) throw unevenTopK(recipe, where);
  if (!Number.isFinite(routerStd) || routerStd < 0) {
    throw inputError(`router std is ${routerStd}, expected a number of at least 0`, { where });
  }
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw inputError(`seed is ${seed}, expected a whole number of at least 0`, { where });
  }
}

function unevenTopK({ granularity, topK, expansion }: RecipeShape, where: string): Error {
  const below = Math.floor(topK / granularity) * granularity;
  const above = Math.min(below + granularity, expansion * granularity);
  const choices = below === 0 ? `T${above}` : `T${below} or T${above}`;
  return inputError(`T = ${topK} is not a multiple of G = ${granularity}, so tokens would get incomplete copies of the FFN`, {
    where,
    hint: `use ${choices}, or insist (--allow-uneven-topk, in a study allowUnevenTopK: true) and expect to start far from the parent`,
  });
}

/** Refuses (`input`) a source that this recipe cannot cut: already MoE, or an FFN size that G does not divide. */
export function checkSource(recipe: RecipeShape, source: DecoderSpec): void {
  const where = `recipe ${recipeName(recipe)}`;
  source.layers.forEach(({ ffn }, layer) => {
    if (ffn.kind === "moe") {
      throw inputError(`layer ${layer} of the source is already a mixture of ${ffn.experts} experts`, {
        where,
        hint: "upcycling starts from a dense model",
      });
    }
    if (ffn.inner % recipe.granularity !== 0) {
      const divisors = Array.from({ length: Math.min(ffn.inner, 64) }, (_, i) => i + 1).filter((g) => ffn.inner % g === 0);
      throw inputError(`the FFN size ${ffn.inner} (layer ${layer}) is not divisible by G = ${recipe.granularity}`, {
        where,
        hint: `use a G that divides it: ${divisors.join(", ")}`,
      });
    }
  });
}
