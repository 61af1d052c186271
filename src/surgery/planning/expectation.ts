/**
 * What the arithmetic promises of an upcycled model before anything is measured, and remarks on recipes that may
 * surprise.
 */
import { at } from "../../base/at.js";
import { routerOrder, type DecoderSpec, type RouterSpec } from "../../model/decoder/types.js";
import { chosenLayers } from "./layers.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";
import { formatFactor, isHomogeneous, scaleFactors, selectedWeight } from "./scaling.js";

/** How much of the parent's function a recipe keeps, by arithmetic alone. */
export interface ExpectedPreservation {
  /**
   * `exact`: for any router. `constant-router`: exact while all router logits are equal (zero, where scores are
   * sigmoids). `approximate`: never exact.
   */
  readonly kind: "exact" | "constant-router" | "approximate";
  /** Whether the function is kept, up to rounding, with the router that this recipe draws. */
  readonly exactAtStart: boolean;
  /** The reason, in words. */
  readonly why: string;
  /** Tensors that are rounded when they are written, in words; left out: none is. */
  readonly rounded?: readonly string[] | undefined;
}

/** What is expected where tensors are rounded when they are written. */
export const withRounding = (expected: ExpectedPreservation, rounded: readonly string[]): ExpectedPreservation =>
  rounded.length === 0 ? expected : { ...expected, rounded };

/** How well the upcycled model computes the parent's function, and why. */
export function expectedPreservation(
  recipe: UpcycleRecipe,
  source: DecoderSpec,
  router: RouterSpec,
): ExpectedPreservation {
  const why = departure(recipe, source, router);
  return why === null ? byRouter(recipe, source, router) : { kind: "approximate", exactAtStart: false, why };
}

/** Why the experts cannot add up to the dense FFN whatever the router says; null if they can. */
function departure(recipe: UpcycleRecipe, source: DecoderSpec, router: RouterSpec): string | null {
  return foreignTo(recipe) ?? changedUnits(recipe) ?? missingParts(recipe) ?? wrongScale(recipe, source, router);
}

/** What the recipe changes in the experts' own weights. */
function changedUnits({ experts, drop, noise }: UpcycleRecipe): string | null {
  if (experts === "random") return "the experts are drawn afresh and know nothing of the FFN";
  if (drop > 0) return `${formatFactor(100 * drop)} % of each expert's hidden units are drawn afresh`;
  if (noise !== null && noise.std > 0 && noise.fraction > 0) return "the experts are copies with noise";
  return null;
}

/** Why the selected experts are not whole copies of the FFN. */
function missingParts(recipe: UpcycleRecipe): string | null {
  const { granularity, topK, expansion, split, shared, routerGroups } = recipe;
  if (topK < granularity && expansion === 1) {
    const common = split === null || shared === null ? "" : ` and the ${shared} units that are active most`;
    return `a token gets ${topK} of the ${granularity} parts of the FFN${common}`;
  }
  if (!routerGroups && !hasEqualLogits(recipe))
    return `each of the ${granularity} parts has a router row of its own, so parts of the FFN are missing or doubled`;
  if (topK % granularity === 0) return null;
  return `top ${topK} does not hold whole groups of ${granularity} parts, so parts of the FFN are missing or doubled`;
}

/** Whether this recipe's router gives all experts equal logits: those with the lowest numbers are chosen then. */
const hasEqualLogits = ({ routerStd, routerInit }: Pick<UpcycleRecipe, "routerStd" | "routerInit">): boolean =>
  routerStd === 0 && routerInit === null;

/** Why the scaling does not give the FFN's output, if whole copies of it are selected. */
function wrongScale(recipe: UpcycleRecipe, source: DecoderSpec, router: RouterSpec): string | null {
  const { granularity, topK, scaling, expansion } = recipe;
  const chosen = chosenLayers(recipe, source.layers.length);
  const ffns = source.layers.filter((_, layer) => chosen[layer]).map(({ ffn }) => ffn);
  const { output, gate, up } = scaleFactors(recipe, router, at(ffns, 0));
  if (scaling === "none" && output !== 1) {
    return output > 1
      ? `unscaled experts give about 1/${formatFactor(output)} of the dense FFN's output`
      : `unscaled experts give about ${formatFactor(1 / output)} times the dense FFN's output`;
  }
  if (scaling === "calibrated" && !hasEqualLogits(recipe) && topK < granularity * expansion) {
    return (
      "each layer's factor fits the selected probability mass on the measured text in the mean, not for every " +
      "token"
    );
  }
  if (scaling !== "paper") return null;
  const inhomogeneous = output === 1 ? undefined : ffns.find((ffn) => !isHomogeneous(ffn));
  if (inhomogeneous !== undefined) {
    const [factor, part] = inhomogeneous.gated ? [gate, "gate"] : [up, "up"];
    return (
      `a factor of ${formatFactor(factor)} on ${part} does not pass through ${inhomogeneous.activation}; exact ` +
      "scaling puts it on down"
    );
  }
  const sum = topK * selectedWeight(router, expansion * granularity, topK);
  if (sum === 1 || !ffns.some(({ bias }) => bias)) return null;
  return (
    "the bias behind down stays as it is, as in Megatron-Core, but the selected weights sum to " +
    `${formatFactor(sum)}; exact scaling takes this into account`
  );
}

/** Why the model computes another function than its base, if there are several parents. */
function foreignTo({ parents, sharedParent, others }: UpcycleRecipe): string | null {
  if (parents === null) return null;
  if (sharedParent !== null) return "a whole FFN is added to the routed experts' as a shared expert";
  const sources = new Set(parents.map(({ source }) => source));
  if (sources.size > 1) {
    const rest = others === "average" ? ", all else is their mean" : "";
    return `the experts are the FFNs of ${sources.size} models${rest}`;
  }
  if (!sources.has(0)) return "the experts are the FFNs of another model than the base";
  if (parents.some(({ noise, scale }) => noise > 0 || scale !== 1))
    return "the experts have noise or factors of their own";
  return null;
}

/**
 * The expectation for whole copies of the FFN that are scaled correctly: it depends on whether the selected weights sum
 * to what they should.
 */
function byRouter(recipe: UpcycleRecipe, source: DecoderSpec, router: RouterSpec): ExpectedPreservation {
  const { expansion, granularity, topK } = recipe;
  const experts = expansion * granularity;
  const exact = (why: string): ExpectedPreservation => ({ kind: "exact", exactAtStart: true, why });
  if (router.score === "sparsemixer") return bySparsemixer(recipe, router);
  const { renormalise } = router;
  if (renormalise !== null && isRenormalised(router.score, renormalise, experts, topK)) {
    const rest = renormalise.plus > 1e-12 ? ` (${renormalise.plus} is added to the divisor)` : "";
    const copies = topK === granularity ? "1 whole copy" : `${topK / granularity} whole copies`;
    return exact(`the selected weights sum to ${router.scaling} and cover ${copies} of the FFN, for any router${rest}`);
  }
  if (router.score === "softmax" && topK === experts)
    return exact("every expert is selected, so the weights sum to 1 for any router");
  return byConstantRouter(recipe, source, router.score === "softmax");
}

/** The expectation for weights that are not renormalised: exact while all logits are equal. */
function byConstantRouter(recipe: UpcycleRecipe, source: DecoderSpec, softmax: boolean): ExpectedPreservation {
  const { expansion, granularity, topK, routerStd, routerInit } = recipe;
  const sum = softmax ? `${topK}/${expansion * granularity}` : `${topK}/2`;
  if (hasEqualLogits(recipe)) {
    const why = `all router logits are equal, so the selected weights sum to ${sum}; training moves them`;
    return { kind: "constant-router", exactAtStart: true, why };
  }
  const logitStd = routerStd * Math.sqrt(source.hidden);
  const logits =
    routerInit === null
      ? `router std ${routerStd} at hidden size ${source.hidden} gives logits of std ${logitStd.toPrecision(2)}`
      : "this router's differ";
  const why = `the selected weights sum to ${sum} only for ${softmax ? "equal" : "zero"} logits; ${logits}`;
  return { kind: "constant-router", exactAtStart: false, why };
}

/**
 * The expectation for SparseMixer, whose two weights are each a softmax over the logits that are close to the largest:
 * both weights are 1 if no other logit is close.
 */
function bySparsemixer(
  { granularity, routerStd, routerInit }: UpcycleRecipe,
  { jitter }: RouterSpec,
): ExpectedPreservation {
  const approximate = (why: string): ExpectedPreservation => ({ kind: "approximate", exactAtStart: false, why });
  if (jitter > 0)
    return approximate(
      `sparsemixer with jitter ${jitter} shares each weight among logits that are close to the largest`,
    );
  if (granularity > 1)
    return approximate("sparsemixer shares a weight among equal logits, which the parts of one copy have");
  if (hasEqualLogits({ routerStd, routerInit }))
    return approximate("sparsemixer shares a weight among equal logits, which a router of zeros has");
  return {
    kind: "exact",
    exactAtStart: true,
    why: "sparsemixer without jitter gives both selected experts the weight 1, for any router without ties",
  };
}

/** Whether the selected weights sum to the router's factor for any logits, up to rounding. */
function isRenormalised(
  score: RouterSpec["score"],
  { plus, atLeast }: NonNullable<RouterSpec["renormalise"]>,
  experts: number,
  topK: number,
): boolean {
  const smallestSum = score === "softmax" ? topK / experts : 1e-6;
  return plus <= 1e-5 && atLeast <= smallestSum;
}

/** Remarks on a recipe that works but may surprise. */
export function recipeWarnings(recipe: UpcycleRecipe, router: RouterSpec): string[] {
  const { topK, granularity, expansion, split } = recipe;
  const warnings: string[] = [];
  if (routerOrder(router) === "topk-softmax" && topK === 1) {
    const which = router.score === "softmax" ? "the softmax over one expert" : "the renormalised weight of one expert";
    warnings.push(
      `${which} is always 1: the router gets no gradient from the language-modelling loss; use softmax-topk for top 1`,
    );
  }
  if (topK % granularity !== 0 && expansion > 1) {
    warnings.push(
      `${recipeName(recipe)}: top ${topK} is not a multiple of G = ${granularity}; ` +
        "expect a very high loss at the start",
    );
  }
  if (!recipe.routerGroups) {
    warnings.push(
      `${recipeName(recipe)}: without groups the router chooses parts, not copies of the FFN; ` +
        "expect a very high loss at the start",
    );
  }
  if (expansion === 1 && topK < granularity && split === null) {
    warnings.push(
      `${recipeName(recipe)}: a token gets ${topK} of ${granularity} parts, chosen by an untrained router; ` +
        "expect a high loss at the start",
    );
  }
  if (hasEqualLogits(recipe) && split === null) {
    warnings.push(
      "router std 0: all logits tie, so every token goes to the same experts until training moves the router",
    );
  }
  return warnings;
}
