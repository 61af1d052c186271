/**
 * Multiplication of experts: an MoE model of E experts becomes one of m E, by copies (expert upcycling, arXiv
 * 2604.19835). Copy c of expert e is expert c E + e. Router rows, biases and correction biases are repeated in the same
 * order, and so are groups of experts, so that the groups of a copy rank like those they come from.
 *
 * Let k be the source's top k, T that of the result. With T = m k, equal logits make the best T all the copies of the
 * best k. Each copy of an expert then gets
 *
 * - with softmax: 1/m of its probability, renormalised or not, since the sum over the chosen stays what it was. A
 *   correction bias is added to scores that are now 1/m of what they were, so it is divided by m as well;
 * - with sigmoid, renormalised: 1/m of its weight (what is added to the divisor counts 1/m as much);
 * - with sigmoid, not renormalised: its whole weight, so down is divided by m.
 *
 * Any other T changes the function, unless one expert was chosen and one is (k = T = 1). The factor on down is the one
 * that keeps the output of a constant router: k w / (T w') with the weights of equal logits before and after
 * (`selectedWeight`).
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { allExpertTensors, mostExperts, mostTensors } from "../../model/decoder/bounds.js";
import { ownFamily, type DecoderSpec, type LayerSpec, type MoeFfn } from "../../model/decoder/types.js";
import { slotKey, slotsOf, type Slot, type SlotPart } from "../../model/tensors/slots.js";
import { canSay } from "./choose-dense.js";
import type { ExpectedPreservation } from "./expectation.js";
import { concat, read, scale, type Expr } from "./expr.js";
import { firstMoeFfn, isFfnPart, isOutputPart, moeFfnOf } from "./ffn-tensors.js";
import { checkOutputs, sourceShapes, type PlannedSlot } from "./plan.js";
import { formatFactor, selectedWeight } from "./scaling.js";

/** How the experts of a model are multiplied. */
export interface MultiplyRecipe {
  /** m: copies of each expert, the expert itself among them. */
  readonly copies: number;
  /** Experts per token; null: m times the source's. */
  readonly topK: number | null;
  /**
   * Standard deviation of what is added to the router rows of all copies but the first, so that they part in training.
   */
  readonly routerStd: number;
  /** Seed of that noise. */
  readonly seed: number;
}

/** How a model with multiplied experts is made, before any weight is read. */
export interface MultiplyPlan {
  readonly recipe: MultiplyRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
  readonly warnings: readonly string[];
  readonly expected: ExpectedPreservation;
  /** What down and its bias are multiplied by, in each layer; null where it is dense. */
  readonly down: readonly (number | null)[];
  /** What changes, in words. */
  readonly how: string;
}

/**
 * Plans the larger model. Throws inputError for a dense source, numbers that make no sense, or a router with fixed
 * top k.
 */
export function planMultiply(source: DecoderSpec, recipe: MultiplyRecipe): MultiplyPlan {
  checkNumbers(recipe);
  const before = firstMoeFfn(source);
  if (before === undefined)
    throw inputError("the model is dense: it has no experts to multiply", {
      hint: "upcycle it with a recipe such as E8G1T2",
    });
  const target = targetOf(source, recipe);
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, source, target, recipe) }));
  checkOutputs(outputs, sourceShapes(source));
  const after = moeFfnOf(
    target,
    source.layers.findIndex(({ ffn }) => ffn === before),
  );
  return {
    recipe,
    source,
    target,
    outputs,
    down: source.layers.map(({ ffn }, layer) => (ffn.kind === "moe" ? downFactor(ffn, moeFfnOf(target, layer)) : null)),
    expected: expectation(before, after, recipe),
    warnings: warningsOf(source, target, after, recipe),
    how:
      `${source.family} to ${target.family}: ${before.experts} experts to ${after.experts}, ${before.topK} per ` +
      `token to ${after.topK}`,
  };
}

function checkNumbers({ copies, topK, routerStd, seed }: MultiplyRecipe): void {
  requireWhole(copies, 2, "the number of copies");
  requireWhole(seed, 0, "seed");
  if (topK !== null) requireWhole(topK, 1, "top k");
  if (!(routerStd >= 0 && routerStd < Infinity))
    throw inputError(`router std is ${routerStd}, expected a number of at least 0`);
}

function requireWhole(value: number, least: number, name: string): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw inputError(`${name} is ${value}, expected a whole number of at least ${least}`);
}

/** The larger model: of the source's family if that can say it, else in our own format. */
function targetOf(source: DecoderSpec, recipe: MultiplyRecipe): DecoderSpec {
  const layers = source.layers.map((layer, index) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: multipliedFfn(layer.ffn, index, recipe) } : layer,
  );
  checkSize(recipe.copies, layers);
  const larger: DecoderSpec = { ...source, layers };
  return canSay(larger) ? larger : { ...larger, family: ownFamily };
}

function warningsOf(
  source: DecoderSpec,
  target: DecoderSpec,
  { experts, topK }: MoeFfn,
  { routerStd }: MultiplyRecipe,
): string[] {
  return [
    ...(target.family === source.family
      ? []
      : [
          `${source.family} cannot say a model of ${experts} experts, ${topK} per token: written ` +
            "in our own format, which only upcycle loads",
        ]),
    ...(routerStd === 0
      ? [
          "copies have equal router rows, so they get equal gradients until something parts them: noise " +
            "(--router-std), or dropped tokens",
        ]
      : []),
  ];
}

/**
 * Each tensor is planned, named and listed in a header: so many that this alone would take minutes are refused
 * beforehand.
 */
function checkSize(copies: number, layers: readonly LayerSpec[]): void {
  const experts = layers.reduce((most, { ffn }) => (ffn.kind === "moe" ? Math.max(most, ffn.experts) : most), 0);
  const tensors = allExpertTensors({ layers });
  const refuse = (amount: string, limit: number): Error =>
    inputError(`${copies} copies of each expert are ${amount}, the limit is ${limit}`, { hint: "make fewer copies" });
  if (experts > mostExperts) throw refuse(`${experts} experts in a layer`, mostExperts);
  if (tensors > mostTensors) throw refuse(`${tensors} tensors`, mostTensors);
}

function multipliedFfn(ffn: MoeFfn, layer: number, { copies, topK }: MultiplyRecipe): MoeFfn {
  const { router, experts } = ffn;
  if (router.score === "sparsemixer")
    throw inputError(
      `the router of layer ${layer} (sparsemixer) gives a weight to two experts, one after the other, and ` +
        "copies would tie",
    );
  const chosen = topK ?? copies * ffn.topK;
  const groups =
    router.groups === null ? null : { count: copies * router.groups.count, kept: copies * router.groups.kept };
  const reach = groups === null ? copies * experts : (copies * experts * groups.kept) / groups.count;
  if (chosen > reach)
    throw inputError(`top ${chosen} is more than the ${reach} experts that a token of layer ${layer} can choose from`);
  return { ...ffn, experts: copies * experts, topK: chosen, router: { ...router, groups } };
}

/** The factor on down and its bias that keeps the output of a constant router. */
function downFactor(before: MoeFfn, after: MoeFfn): number {
  const sum = ({ router, experts, topK }: MoeFfn): number => topK * selectedWeight(router, experts, topK);
  if (before.router.renormalise !== null) return 1;
  return sum(before) / sum(after);
}

function valueOf(
  { key, at: { part, layer, expert } }: Slot,
  source: DecoderSpec,
  target: DecoderSpec,
  recipe: MultiplyRecipe,
): Expr {
  const before = layer === undefined ? null : at(source.layers, layer).ffn;
  if (layer === undefined || before === null || before.kind === "dense") return read(key);
  if (expert === undefined) return routerValue(part, key, before, recipe);
  const own = read(slotKey({ part, layer, expert: expert % before.experts }));
  return isFfnPart(part) && isOutputPart(part) ? scale(own, downFactor(before, moeFfnOf(target, layer))) : own;
}

/** A tensor of the router, repeated for every copy of the experts; what is no part of it stays as it is. */
function routerValue(part: SlotPart, key: string, before: MoeFfn, { copies, routerStd }: MultiplyRecipe): Expr {
  const repeated = (copyOf: (copy: number) => Expr): Expr =>
    concat(
      Array.from({ length: copies }, (_, copy) => copyOf(copy)),
      "rows",
    );
  switch (part) {
    case "router":
      return repeated((copy) => noisyRows(key, copy, routerStd));
    case "routerBias":
      return repeated(() => read(key));
    case "routerCorrection":
      return repeated(() => scale(read(key), before.router.score === "softmax" ? 1 / copies : 1));
    default:
      return read(key);
  }
}

/** The router rows of one copy of the experts: the first copy has no noise. */
function noisyRows(key: string, copy: number, std: number): Expr {
  const of = read(key);
  if (copy === 0 || std === 0) return of;
  return { op: "noise", of, std, relative: false, fraction: 1, stream: `${key}.copy${copy}` };
}

function expectation(before: MoeFfn, after: MoeFfn, { copies, routerStd }: MultiplyRecipe): ExpectedPreservation {
  const approximate = (why: string): ExpectedPreservation => ({ kind: "approximate", exactAtStart: false, why });
  const exact = (why: string): ExpectedPreservation => ({ kind: "exact", exactAtStart: true, why });
  if (routerStd > 0)
    return approximate(`noise of std ${formatFactor(routerStd)} on the copies' router rows parts them`);
  const { renormalise } = before.router;
  // What the divisor has beyond the sum must not matter.
  const plain =
    renormalise === null ||
    before.router.score === "softmax" ||
    (renormalise.plus <= 1e-12 && renormalise.atLeast === 0);
  if (after.topK === copies * before.topK) {
    if (!plain)
      return approximate(
        `${renormalise.plus} is added to the divisor of the weights, whose sum is now ${copies} times as large`,
      );
    return exact(
      `the ${copies} copies of each of the best ${before.topK} are chosen, and their weights add up to its weight`,
    );
  }
  if (after.topK === 1 && before.topK === 1 && plain)
    return exact("one copy of the one chosen expert is chosen, with its weight");
  return approximate(
    `top ${after.topK} of ${after.experts} holds copies of the best ${formatFactor(after.topK / copies)} ` +
      `experts, not of ${before.topK}; ${copies * before.topK} would keep the function`,
  );
}
