/**
 * How much the experts' weights are scaled so that the MoE layer's output is as large as the dense FFN's, and what that
 * is worth: the statement of how well the function is kept.
 *
 * Output factor s (He et al. 2024, arXiv 2410.07524, equation 2; Megatron-Core `upcycling_utils.py`):
 * - topk-softmax: the T selected weights sum to 1 and hold T/G whole copies, so each part counts 1/G: s = G, for any router.
 * - softmax-topk with equal logits: each weight is 1/(E*G) and each part is picked T/G times: s = E*G*G/T.
 *
 * Where s goes, for down(silu(gate x) * up x):
 * - `exact`: all of it on down. The output is linear in down, so this is exact; sqrt(s) on up and on down is too
 *   (linear in both), but irrational for most s, whereas s itself is a power of two whenever E, G and T are, and
 *   multiplying a float by a power of two changes its exponent only: bit-exact even in bfloat16.
 * - `paper`: s^(1/3) on gate, up and down, as the paper and Megatron-Core do. silu is not homogeneous, so the function
 *   changes (relative FFN error at unit pre-activations: about 20 % for E8G8T8 topk-softmax, 31 % softmax-topk); kept for
 *   reproduction.
 * - `none`: weights as they are.
 */
import type { DecoderSpec } from "../spec/types.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";

export interface Factors {
  /** s: what the layer's output must be multiplied by. */
  readonly output: number;
  readonly gate: number;
  readonly up: number;
  readonly down: number;
}

/** Factors for the experts' three matrices. */
export function scaleFactors(recipe: UpcycleRecipe): Factors {
  const { expansion, granularity, topK } = recipe;
  const output = recipe.order === "topk-softmax" ? granularity : (expansion * granularity * granularity) / topK;
  switch (recipe.scaling) {
    case "exact":
      return { output, gate: 1, up: 1, down: output };
    case "paper": {
      const third = Math.cbrt(output);
      return { output, gate: third, up: third, down: third };
    }
    case "none":
      return { output, gate: 1, up: 1, down: 1 };
  }
}

/** What the arithmetic promises before anything is measured. */
export interface ExpectedPreservation {
  /** `exact`: for any router. `constant-router`: exact while all router logits are equal. `approximate`: never exact. */
  readonly kind: "exact" | "constant-router" | "approximate";
  /** Holds for the router that this recipe draws, up to rounding. */
  readonly exactAtStart: boolean;
  /** One sentence. */
  readonly why: string;
}

/** How well the upcycled model computes the parent's function, and why. */
export function expectedPreservation(recipe: UpcycleRecipe, source: DecoderSpec): ExpectedPreservation {
  const { expansion, granularity, topK, order, scaling } = recipe;
  const factors = scaleFactors(recipe);
  const approximate = (why: string): ExpectedPreservation => ({ kind: "approximate", exactAtStart: false, why });
  if (topK % granularity !== 0) {
    return approximate(`top ${topK} does not hold whole groups of ${granularity} parts, so parts of the FFN are missing or doubled`);
  }
  if (scaling === "none" && factors.output !== 1) {
    return approximate(`unscaled experts give about 1/${formatFactor(factors.output)} of the dense FFN's output`);
  }
  if (scaling === "paper" && factors.output !== 1) {
    return approximate(`a factor of ${formatFactor(factors.gate)} on gate does not pass through silu; exact scaling puts it on down`);
  }
  if (order === "topk-softmax") {
    const copies = topK === granularity ? "1 whole copy" : `${topK / granularity} whole copies`;
    return {
      kind: "exact",
      exactAtStart: true,
      why: `the selected weights sum to 1 and cover ${copies} of the FFN, for any router`,
    };
  }
  if (topK === expansion * granularity) {
    return { kind: "exact", exactAtStart: true, why: "every expert is selected, so the weights sum to 1 for any router" };
  }
  const constant = recipe.routerStd === 0;
  const logitStd = recipe.routerStd * Math.sqrt(source.hidden);
  return {
    kind: "constant-router",
    exactAtStart: constant,
    why: constant
      ? `all router logits are equal, so the selected weights sum to ${topK}/${expansion * granularity}; training moves them`
      : `the selected weights sum to ${topK}/${expansion * granularity} only for equal logits; ` +
        `router std ${recipe.routerStd} at hidden size ${source.hidden} gives logits of std ${logitStd.toPrecision(2)}`,
  };
}

/** Remarks on a recipe that works but may surprise. */
export function recipeWarnings(recipe: UpcycleRecipe): string[] {
  const { order, topK, granularity, routerStd } = recipe;
  const warnings: string[] = [];
  if (order === "topk-softmax" && topK === 1) {
    warnings.push(
      "the softmax over one expert is always 1: the router gets no gradient from the language-modelling loss; " +
        "use softmax-topk for top 1",
    );
  }
  if (topK % granularity !== 0) {
    warnings.push(`${recipeName(recipe)}: top ${topK} is not a multiple of G = ${granularity}; expect a very high loss at the start`);
  }
  if (routerStd === 0) {
    warnings.push("router std 0: all logits tie, so every token goes to the same experts until training moves the router");
  }
  return warnings;
}

/** At most four digits, no trailing zeros. */
export function formatFactor(value: number): string {
  return String(Number(value.toPrecision(4)));
}
