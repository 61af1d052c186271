/**
 * Expert upcycling: an MoE model of E experts becomes one of m E, by copies (expert upcycling, arXiv 2604.19835). Copy
 * c of expert e is expert c E + e; router rows, biases and correction biases are repeated alike, and so are groups of
 * experts, so that the groups of a copy rank like those they come from.
 *
 * With T = m k for the source's top k, equal logits make the best T all the copies of the best k, and each copy of an
 * expert gets
 * - softmax: 1/m of its probability, renormalised or not, since the sum over the chosen stays what it was; a correction
 *   bias, added to scores that are
 *   now 1/m of what they were, is divided by m as well;
 * - sigmoid, renormalised: 1/m of its weight (what is added to the divisor counts 1/m as much); not renormalised: its
 *   whole weight, so down is divided by m.
 * Other T leave the function only where one expert was chosen and one is (k = T = 1). The factor on down is the one
 * that keeps the output of a constant router: k w / (T w') with the weights of equal logits before and after
 * (`selectedWeight`).
 */
import { inputError } from "../../base/errors.js";
import { allExpertTensors, mostExperts, mostTensors } from "../../model/decoder/bounds.js";
import { ownFamily, type DecoderSpec, type LayerSpec, type MoeFfn } from "../../model/decoder/types.js";
import { slotKey, slotsOf, type Slot } from "../../model/tensors/slots.js";
import { canSay } from "./choose-dense.js";
import type { ExpectedPreservation } from "./expectation.js";
import { concat, read, scale, type Expr } from "./expr.js";
import { checkOutputs, sourceShapes, type PlannedSlot } from "./plan.js";
import { formatFactor, selectedWeight } from "./scaling.js";

export interface MultiplyRecipe {
  /** m: copies of each expert, the expert itself among them. */
  readonly copies: number;
  /** Experts per token; null: m times the source's. */
  readonly topK: number | null;
  /**
   * Standard deviation of what is added to the router rows of all copies but the first, so that they part in training.
   */
  readonly routerStd: number;
  readonly seed: number;
}

export interface MultiplyPlan {
  readonly recipe: MultiplyRecipe;
  readonly source: DecoderSpec;
  readonly target: DecoderSpec;
  readonly outputs: readonly PlannedSlot[];
  readonly warnings: readonly string[];
  readonly expected: ExpectedPreservation;
  /** What down and its bias are multiplied by, in each layer; null where it is dense. */
  readonly down: readonly (number | null)[];
  /** One sentence. */
  readonly how: string;
}

/** Throws `input` for a dense source, numbers that make no sense, or a router whose top k is fixed. */
export function planMultiply(source: DecoderSpec, recipe: MultiplyRecipe): MultiplyPlan {
  const { copies, topK, routerStd, seed } = recipe;
  const whole = (value: number, least: number, name: string): void => {
    if (!Number.isSafeInteger(value) || value < least)
      throw inputError(`${name} is ${value}, expected a whole number of at least ${least}`);
  };
  whole(copies, 2, "the number of copies");
  whole(seed, 0, "seed");
  if (topK !== null) whole(topK, 1, "top k");
  if (!(routerStd >= 0 && routerStd < Infinity))
    throw inputError(`router std is ${routerStd}, expected a number of at least 0`);
  const first = source.layers.find(({ ffn }) => ffn.kind === "moe")?.ffn;
  if (first?.kind !== "moe")
    throw inputError("the model is dense: it has no experts to multiply", {
      hint: "upcycle it with a recipe such as E8G1T2",
    });
  const multiplied = source.layers.map((layer, index) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: multipliedFfn(layer.ffn, index, recipe) } : layer,
  );
  checkSize(copies, multiplied);
  const wider: DecoderSpec = { ...source, layers: multiplied };
  const target: DecoderSpec = canSay(wider) ? wider : { ...wider, family: ownFamily };
  const outputs = slotsOf(target).map((slot) => ({ slot, value: valueOf(slot, source, target, recipe) }));
  checkOutputs(outputs, sourceShapes(source));
  const after = target.layers.find(({ ffn }) => ffn.kind === "moe")!.ffn as MoeFfn;
  return {
    recipe,
    source,
    target,
    outputs,
    down: source.layers.map(({ ffn }, layer) =>
      ffn.kind === "moe" ? downFactor(ffn, target.layers[layer]!.ffn as MoeFfn) : null,
    ),
    expected: expectation(first, after, recipe),
    warnings: [
      ...(target.family === source.family
        ? []
        : [
            `${source.family} cannot say a model of ${after.experts} experts, ${after.topK} per token: written ` +
              "in our own format, which only upcycle loads",
          ]),
      ...(routerStd === 0
        ? [
            "copies have equal router rows, so they get equal gradients until something parts them: noise " +
              "(--router-std), or dropped tokens",
          ]
        : []),
    ],
    how:
      `${source.family} to ${target.family}: ${first.experts} experts to ${after.experts}, ${first.topK} per ` +
      `token to ${after.topK}`,
  };
}

/**
 * Each tensor is planned, named and listed in a header: so many that this alone would take minutes are refused
 * beforehand.
 */
function checkSize(copies: number, layers: readonly LayerSpec[]): void {
  const experts = layers.reduce((most, { ffn }) => (ffn.kind === "moe" ? Math.max(most, ffn.experts) : most), 0);
  const tensors = allExpertTensors({ layers });
  const refuse = (made: string, limit: number): Error =>
    inputError(`${copies} copies of each expert are ${made}, the limit is ${limit}`, { hint: "make fewer copies" });
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
  const made = topK ?? copies * ffn.topK;
  const groups =
    router.groups === null ? null : { count: copies * router.groups.count, kept: copies * router.groups.kept };
  const reach = groups === null ? copies * experts : (copies * experts * groups.kept) / groups.count;
  if (made > reach)
    throw inputError(`top ${made} is more than the ${reach} experts that a token of layer ${layer} can choose from`);
  return { ...ffn, experts: copies * experts, topK: made, router: { ...router, groups } };
}

/** What down and its bias are multiplied by. */
function downFactor(before: MoeFfn, after: MoeFfn): number {
  const sum = ({ router, experts, topK }: MoeFfn): number => topK * selectedWeight(router, experts, topK);
  if (before.router.renormalise !== null) return 1;
  return sum(before) / sum(after);
}

function valueOf(
  { key, at: { part, layer, expert } }: Slot,
  source: DecoderSpec,
  target: DecoderSpec,
  { copies, routerStd }: MultiplyRecipe,
): Expr {
  if (layer === undefined) return read(key);
  const [before, after] = [source.layers[layer]!.ffn, target.layers[layer]!.ffn];
  if (before.kind === "dense" || after.kind === "dense") return read(key);
  if (expert !== undefined) {
    const own = read(slotKey({ part, layer, expert: expert % before.experts }));
    return part === "down" || part === "downBias" ? scale(own, downFactor(before, after)) : own;
  }
  const repeated = (one: (copy: number) => Expr): Expr =>
    concat(
      Array.from({ length: copies }, (_, copy) => one(copy)),
      "rows",
    );
  switch (part) {
    case "router":
      return repeated((copy) => {
        if (copy === 0 || routerStd === 0) return read(key);
        return {
          op: "noise",
          of: read(key),
          std: routerStd,
          relative: false,
          fraction: 1,
          stream: `${key}.copy${copy}`,
        };
      });
    case "routerBias":
      return repeated(() => read(key));
    case "routerCorrection":
      return repeated(() => scale(read(key), before.router.score === "softmax" ? 1 / copies : 1));
    default:
      return read(key);
  }
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
