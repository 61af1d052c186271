/**
 * What the arithmetic promises of an upcycled model before anything is measured, and remarks on recipes that may
 * surprise.
 */
import { routerOrder, type DecoderSpec, type RouterSpec } from "../../model/decoder/types.js";
import { chosenLayers } from "./layers.js";
import { recipeName, type UpcycleRecipe } from "./recipe.js";
import { formatFactor, isHomogeneous, scaleFactors, selectedWeight } from "./scaling.js";

export interface ExpectedPreservation {
  /**
   * `exact`: for any router. `constant-router`: exact while all router logits are equal (zero, where scores are
   * sigmoids). `approximate`: never exact.
   */
  readonly kind: "exact" | "constant-router" | "approximate";
  /** Holds for the router that this recipe draws, up to rounding. */
  readonly exactAtStart: boolean;
  /** One sentence. */
  readonly why: string;
}

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
  const { granularity, topK, scaling, noise } = recipe;
  const chosen = chosenLayers(recipe, source.layers.length);
  const ffns = source.layers.filter((_, layer) => chosen[layer]).map(({ ffn }) => ffn);
  const { output, gate, up } = scaleFactors(recipe, router, ffns[0]!);
  const foreign = foreignTo(recipe);
  if (foreign !== null) return foreign;
  if (recipe.experts === "random") return "the experts are drawn afresh and know nothing of the FFN";
  if (recipe.drop > 0) return `${formatFactor(100 * recipe.drop)} % of each expert's hidden units are drawn afresh`;
  if (noise !== null && noise.std > 0 && noise.fraction > 0) return "the experts are copies with noise";
  if (topK < granularity && recipe.expansion === 1)
    return `a token gets ${topK} of the ${granularity} parts of the FFN`;
  if (topK % granularity !== 0)
    return `top ${topK} does not hold whole groups of ${granularity} parts, so parts of the FFN are missing or doubled`;
  if (scaling === "none" && output !== 1) {
    return output > 1
      ? `unscaled experts give about 1/${formatFactor(output)} of the dense FFN's output`
      : `unscaled experts give about ${formatFactor(1 / output)} times the dense FFN's output`;
  }
  if (
    scaling === "calibrated" &&
    (recipe.routerStd > 0 || recipe.routerInit !== null) &&
    topK < granularity * recipe.expansion
  ) {
    return (
      "each layer's factor fits the selected probability mass on the measured text in the mean, not for every " +
      "token"
    );
  }
  if (scaling === "paper" && output !== 1 && !ffns.every(isHomogeneous)) {
    const [{ gated, activation }] = ffns.filter((ffn) => !isHomogeneous(ffn)) as [(typeof ffns)[number]];
    const [factor, part] = gated ? [gate, "gate"] : [up, "up"];
    return (
      `a factor of ${formatFactor(factor)} on ${part} does not pass through ${activation}; exact scaling puts it ` +
      "on down"
    );
  }
  const sum = topK * selectedWeight(router, recipe.expansion * granularity, topK);
  if (scaling === "paper" && sum !== 1 && ffns.some(({ bias }) => bias)) {
    return (
      "the bias behind down stays as it is, as in Megatron-Core, but the selected weights sum to " +
      `${formatFactor(sum)}; exact scaling takes this into account`
    );
  }
  return null;
}

/** Why the model is another than its base, where other parents take part. */
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

/** Whole copies of the FFN, rightly scaled: what is left is whether the selected weights sum to what they should. */
function byRouter(recipe: UpcycleRecipe, source: DecoderSpec, router: RouterSpec): ExpectedPreservation {
  const { expansion, granularity, topK, routerStd } = recipe;
  const experts = expansion * granularity;
  if (router.score === "sparsemixer") return bySparsemixer(recipe, router);
  if (isRenormalised(router, experts, topK)) {
    const plus = router.renormalise!.plus;
    const rest = plus > 1e-12 ? ` (${plus} is added to the divisor)` : "";
    const copies = topK === granularity ? "1 whole copy" : `${topK / granularity} whole copies`;
    return {
      kind: "exact",
      exactAtStart: true,
      why: `the selected weights sum to ${router.scaling} and cover ${copies} of the FFN, for any router${rest}`,
    };
  }
  const softmax = router.score === "softmax";
  if (softmax && topK === experts) {
    return {
      kind: "exact",
      exactAtStart: true,
      why: "every expert is selected, so the weights sum to 1 for any router",
    };
  }
  const constant = routerStd === 0 && recipe.routerInit === null;
  const sum = softmax ? `${topK}/${experts}` : `${topK}/2`;
  const drawn = recipe.routerInit === null;
  const logitStd = routerStd * Math.sqrt(source.hidden);
  return {
    kind: "constant-router",
    exactAtStart: constant,
    why: constant
      ? `all router logits are equal, so the selected weights sum to ${sum}; training moves them`
      : `the selected weights sum to ${sum} only for ${softmax ? "equal" : "zero"} logits; ` +
        (drawn
          ? `router std ${routerStd} at hidden size ${source.hidden} gives logits of std ${logitStd.toPrecision(2)}`
          : "this router's differ"),
  };
}

/** Two weights, each a softmax over the logits that are close to the largest: 1 and 1 if none but itself is. */
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
  if (routerStd === 0 && routerInit === null)
    return approximate("sparsemixer shares a weight among equal logits, which a router of zeros has");
  return {
    kind: "exact",
    exactAtStart: true,
    why: "sparsemixer without jitter gives both selected experts the weight 1, for any router without ties",
  };
}

/** Whether the selected weights sum to the router's factor for any logits, up to rounding. */
function isRenormalised({ score, renormalise }: RouterSpec, experts: number, topK: number): boolean {
  if (renormalise === null) return false;
  const smallest = score === "softmax" ? topK / experts : 1e-6;
  return renormalise.plus <= 1e-5 && renormalise.atLeast <= smallest;
}

/** Remarks on a recipe that works but may surprise. */
export function recipeWarnings(recipe: UpcycleRecipe, router: RouterSpec): string[] {
  const { topK, granularity, expansion, routerStd } = recipe;
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
  if (expansion === 1 && topK < granularity) {
    warnings.push(
      `${recipeName(recipe)}: a token gets ${topK} of ${granularity} parts, chosen by an untrained router; ` +
        "expect a high loss at the start",
    );
  }
  if (routerStd === 0 && recipe.routerInit === null) {
    warnings.push(
      "router std 0: all logits tie, so every token goes to the same experts until training moves the router",
    );
  }
  return warnings;
}
