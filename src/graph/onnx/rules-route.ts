/**
 * Lowering of routing: scores, choice and weights of each token's experts.
 *
 * Letters: N tokens, E experts, K experts per token.
 */
import { at } from "../../base/at.js";
import { SINKHORN_EPS, type NodeOf, type PrimAttrs, type RouteRule, type ValueId } from "../ir/ir.js";
import type { Lowering } from "./context.js";

/** Below every score and logit; its softmax underflows to 0. */
const LOWEST = -1e30;

/** Whether softmax and renormalisation are plain: the weights are then a softmax over the chosen logits. */
function isChosenSoftmax({ score, renormalise, groups, corrected, scaling }: RouteRule): boolean {
  return (
    score === "softmax" &&
    renormalise !== null &&
    renormalise.plus === 0 &&
    renormalise.atLeast === 0 &&
    groups === null &&
    !corrected &&
    scaling === 1
  );
}

/** Softmax over the logits of the chosen experts [N, K]. */
function chosenSoftmax(ctx: Lowering, logits: ValueId, experts: ValueId): string {
  const e = ctx.emitter;
  return ctx.remember(`kept ${logits} ${experts}`, () =>
    e.op("Softmax", [e.op("GatherElements", [ctx.get(logits), ctx.get(experts)], { axis: -1 })], { axis: -1 }),
  );
}

function scoresOf(ctx: Lowering, logits: ValueId, { score }: RouteRule): string {
  return ctx.remember(`${score} ${logits}`, () =>
    score === "softmax"
      ? ctx.emitter.op("Softmax", [ctx.get(logits)], { axis: -1 })
      : ctx.emitter.op("Sigmoid", [ctx.get(logits)]),
  );
}

/** Choices outside the best groups become as low as can be (modeling_deepseek_v3.py). */
function limitToGroups(
  ctx: Lowering,
  choice: string,
  tokens: number,
  experts: number,
  { count, kept }: NonNullable<RouteRule["groups"]>,
): string {
  const e = ctx.emitter;
  const size = experts / count;
  const grouped = e.reshape(choice, [tokens, count, size]);
  const [best] = e.emit("TopK", [grouped, e.ints([Math.min(2, size)])], { axis: -1, largest: 1, sorted: 1 }, 2);
  const [, open] = e.emit("TopK", [e.sum(best, [2], false), e.ints([kept])], { axis: -1, largest: 1, sorted: 1 }, 2);
  const closed = e.op("Expand", [e.floats([LOWEST]), e.ints([tokens, count])]);
  const zeros = e.op("Expand", [e.floats([0]), e.ints([tokens, kept])]);
  const penalty = e.op("ScatterElements", [closed, open, zeros], { axis: -1 });
  return e.reshape(e.op("Add", [grouped, e.reshape(penalty, [tokens, count, 1])]), [tokens, experts]);
}

/** Scores of the chosen experts [N, K] and what they are divided by [N, 1], or "" where nothing divides them. */
function chosenScores(ctx: Lowering, logits: ValueId, experts: ValueId, rule: RouteRule): readonly [string, string] {
  const e = ctx.emitter;
  const scores = ctx.remember(`kept scores ${logits} ${experts}`, () =>
    e.op("GatherElements", [scoresOf(ctx, logits, rule), ctx.get(experts)], { axis: -1 }),
  );
  const { renormalise } = rule;
  if (renormalise === null) return [scores, ""];
  const divisor = ctx.remember(`divisor ${logits} ${experts}`, () => {
    const sum = e.sum(scores, [1], true);
    const more = renormalise.plus === 0 ? sum : e.op("Add", [sum, e.floats([renormalise.plus])]);
    return renormalise.atLeast === 0 ? more : e.op("Max", [more, e.floats([renormalise.atLeast])]);
  });
  return [scores, divisor];
}

function scaled(ctx: Lowering, x: string, by: number): string {
  return by === 1 ? x : ctx.emitter.op("Mul", [x, ctx.emitter.floats([by])]);
}

/**
 * Sparsemixer's probabilities [N, E] of the first and of the second choice: softmax over the logits near the largest
 * one that is not yet taken (modeling_phimoe.py, sparsemixer, in evaluation mode).
 */
function sparsemixer(ctx: Lowering, logits: ValueId, experts: ValueId, jitter: number): readonly [string, string] {
  const e = ctx.emitter;
  const [tokens] = ctx.matrix(logits);
  const [first, second] = ctx.remember<[string, string]>(`sparsemixer ${logits} ${experts} ${jitter}`, () => {
    const x = ctx.get(logits);
    const size = e.op("Abs", [x]);
    const lowest = e.floats([LOWEST]);
    const over = (open: string, max: string): string => {
      const distance = e.op("Div", [e.op("Sub", [max, x]), e.op("Max", [size, max])]);
      const far = e.op("Greater", [distance, e.floats([2 * jitter])]);
      return e.op("Softmax", [e.op("Where", [far, lowest, open])], { axis: -1 });
    };
    const tops = e.op("GatherElements", [x, ctx.get(experts)], { axis: -1 });
    const [max1, max2] = e.emit("Split", [tops, e.ints([1, 1])], { axis: 1 }, 2);
    const [firstChoice] = e.emit("Split", [ctx.get(experts), e.ints([1, 1])], { axis: 1 }, 2);
    const rest = e.op("ScatterElements", [x, firstChoice, e.op("Expand", [lowest, e.ints([tokens, 1])])], { axis: -1 });
    return [over(x, max1), over(rest, max2)];
  });
  return [first, second];
}

/** dlogits of y = softmax(logits) given dy, both [N, E]. */
function throughSoftmax(ctx: Lowering, y: string, dy: string): string {
  const e = ctx.emitter;
  return e.op("Mul", [y, e.op("Sub", [dy, e.sum(e.op("Mul", [y, dy]), [1], true)])]);
}

/**
 * Marks of the choices that stay, [N, K]: each expert's best `rows` tokens of all, those that did not choose it last.
 * TopK gives ties to the lowest index, and within a token an expert is chosen once, so that ties go to the first slot.
 */
function keptChoices(
  ctx: Lowering,
  weights: string,
  experts: string,
  tokens: number,
  { experts: count, rows }: PrimAttrs["expertCapacity"],
): string {
  const e = ctx.emitter;
  const none = e.op("Expand", [e.floats([-1]), e.ints([tokens, count])]);
  const weightOfToken = e.op("Transpose", [e.op("ScatterElements", [none, experts, weights], { axis: 1 })], {
    perm: [1, 0],
  });
  const [, places] = e.emit("TopK", [weightOfToken, e.ints([rows])], { axis: 1, largest: 1, sorted: 1 }, 2);
  const zeros = e.op("Expand", [e.floats([0]), e.ints([count, tokens])]);
  const ones = e.op("Expand", [e.floats([1]), e.ints([count, rows])]);
  const open = e.op("Transpose", [e.op("ScatterElements", [zeros, places, ones], { axis: 1 })], { perm: [1, 0] });
  return e.op("GatherElements", [open, experts], { axis: 1 });
}

/** Gradient of the chosen scores [N, K], from that of the weights before scaling. */
function chosenScoresGrad(ctx: Lowering, logits: ValueId, experts: ValueId, rule: RouteRule, dweights: string): string {
  const { renormalise } = rule;
  const [scores, divisor] = chosenScores(ctx, logits, experts, rule);
  if (renormalise === null) return dweights;
  // d(s_i / D) = ds_i / D - s_i dD / D^2, and dD = sum of ds only where the floor does not hold.
  const e = ctx.emitter;
  const dot = e.sum(e.op("Mul", [dweights, scores]), [1], true);
  let pull = e.op("Div", [dot, divisor]);
  const floor = renormalise.atLeast;
  if (floor !== 0) pull = e.op("Where", [e.op("Greater", [divisor, e.floats([floor])]), pull, e.floats([0])]);
  return e.op("Div", [e.op("Sub", [dweights, pull]), divisor]);
}

type RoutePrims = "routeTopK" | "routeTopKGrad" | "routeWeights" | "sinkhorn" | "expertCapacity" | "expertCounts";

/** The lowering of routing primitives. */
export const routeRules: { readonly [P in RoutePrims]: (ctx: Lowering, node: NodeOf<P>) => void } = {
  routeTopK(ctx, { in: [logits, correction], out, attrs: { k, rule } }) {
    const e = ctx.emitter;
    const [tokens, count] = ctx.matrix(logits);
    const [weights, experts] = out;
    const top = (values: string): readonly [string, string] =>
      e.emit("TopK", [values, e.ints([k])], { axis: -1, largest: 1, sorted: 1 }, 2);
    if (isChosenSoftmax(rule)) {
      const [values, chosen] = top(ctx.get(logits));
      ctx.set(experts, chosen);
      ctx.set(
        weights,
        ctx.remember(`kept ${logits} ${experts}`, () => e.op("Softmax", [values], { axis: -1 })),
      );
      return;
    }
    // Softmax keeps the order of the logits, and logits have fewer ties.
    const byLogit = rule.score !== "sigmoid" && !rule.corrected && rule.groups === null;
    let choice = byLogit ? ctx.get(logits) : scoresOf(ctx, logits, rule);
    if (correction !== undefined) choice = e.op("Add", [choice, ctx.get(correction)]);
    if (rule.groups !== null) choice = limitToGroups(ctx, choice, tokens, count, rule.groups);
    ctx.set(experts, top(choice)[1]);
    if (rule.score === "sparsemixer") {
      const each = sparsemixer(ctx, logits, experts, rule.jitter);
      const picks = e.emit("Split", [ctx.get(experts), e.ints([1, 1])], { axis: 1 }, 2);
      const own = each.map((probabilities, i) => e.op("GatherElements", [probabilities, at(picks, i)], { axis: -1 }));
      ctx.set(weights, scaled(ctx, e.op("Concat", own, { axis: 1 }), rule.scaling));
      return;
    }
    const [scores, divisor] = chosenScores(ctx, logits, experts, rule);
    ctx.set(weights, scaled(ctx, divisor === "" ? scores : e.op("Div", [scores, divisor]), rule.scaling));
  },
  routeWeights(ctx, { in: [logits, experts], out, attrs: { rule } }) {
    if (isChosenSoftmax(rule)) {
      ctx.set(out[0], chosenSoftmax(ctx, logits, experts));
      return;
    }
    const [scores, divisor] = chosenScores(ctx, logits, experts, rule);
    ctx.set(out[0], scaled(ctx, divisor === "" ? scores : ctx.emitter.op("Div", [scores, divisor]), rule.scaling));
  },
  sinkhorn(ctx, { in: [logits], out, attrs: { iterations, tolerance } }) {
    const e = ctx.emitter;
    const [tokens, experts] = ctx.matrix(logits);
    const x = ctx.get(logits);
    const cost = e.op("Exp", [e.op("Sub", [x, e.op("ReduceMax", [x, e.ints([1])], { keepdims: 1 })])]);
    let column = e.op("Expand", [e.floats([1]), e.ints([1, experts])]);
    let moved = "";
    for (let i = 0; i < iterations; i++) {
      // Sums by adding rows, not by a matrix product, which may add up its columns in different orders: experts with
      // equal logits must stay tied.
      const row = e.op("Div", [e.floats([1 / tokens]), e.sum(e.op("Mul", [cost, column]), [1], true)]);
      const sums = e.sum(e.op("Mul", [cost, row]), [0], true);
      const next = e.op("Div", [e.floats([1 / experts]), e.op("Add", [sums, e.floats([SINKHORN_EPS])])]);
      const distance = e.op("ReduceMean", [e.op("Abs", [e.op("Sub", [next, column])]), e.ints([0, 1])], {
        keepdims: 0,
      });
      // What has settled stays, so that more iterations than needed change nothing.
      const live = moved === "" ? "" : e.op("Greater", [moved, e.floats([tolerance])]);
      column = live === "" ? next : e.op("Where", [live, next, column]);
      moved = live === "" ? distance : e.op("Where", [live, distance, moved]);
    }
    ctx.set(out[0], e.reshape(column, [experts]));
  },
  expertCapacity(ctx, { in: [weights, experts], out, attrs }) {
    const e = ctx.emitter;
    const [tokens, k] = ctx.matrix(experts);
    const rank = attrs.by === "weight" ? ctx.get(weights) : e.op("Expand", [e.floats([1]), e.ints([tokens, k])]);
    const keep = keptChoices(ctx, rank, ctx.get(experts), tokens, attrs);
    ctx.set(out[0], e.op("Where", [e.op("Greater", [keep, e.floats([0])]), ctx.get(experts), e.int(attrs.experts)]));
  },
  expertCounts(ctx, { in: [experts], out, attrs }) {
    const e = ctx.emitter;
    const rows = ctx.shape(experts).reduce((a, b) => a * b, 1) / attrs.blocks;
    const oneHot = e.op(
      "OneHot",
      [e.reshape(ctx.get(experts), [attrs.blocks, rows]), e.ints([attrs.experts]), e.ints([0, 1])],
      { axis: -1 },
    );
    ctx.set(out[0], e.sum(oneHot, [1], false));
  },
  routeTopKGrad(ctx, { in: [logits, experts, dweights], out, attrs: { rule } }) {
    const e = ctx.emitter;
    const zeros = e.op("Expand", [e.floats([0]), e.ints(ctx.shape(logits))]);
    const scatter = (indices: string, values: string): string =>
      e.op("ScatterElements", [zeros, indices, values], { axis: -1 });
    const chosen = ctx.get(experts);
    if (isChosenSoftmax(rule)) {
      ctx.set(out[0], scatter(chosen, throughSoftmax(ctx, chosenSoftmax(ctx, logits, experts), ctx.get(dweights))));
      return;
    }
    const dscaled = scaled(ctx, ctx.get(dweights), rule.scaling);
    if (rule.score === "sparsemixer") {
      const split = (x: string): string[] => e.emit("Split", [x, e.ints([1, 1])], { axis: 1 }, 2);
      const [picks, parts] = [split(chosen), split(dscaled)];
      const each = sparsemixer(ctx, logits, experts, rule.jitter).map((y, i) =>
        throughSoftmax(ctx, y, scatter(at(picks, i), at(parts, i))),
      );
      ctx.set(out[0], e.op("Add", each));
      return;
    }
    const dscores = scatter(chosen, chosenScoresGrad(ctx, logits, experts, rule, dscaled));
    const scores = scoresOf(ctx, logits, rule);
    if (rule.score === "softmax") ctx.set(out[0], throughSoftmax(ctx, scores, dscores));
    else ctx.set(out[0], e.op("Mul", [dscores, e.op("Sub", [scores, e.op("Mul", [scores, scores])])]));
  },
};
