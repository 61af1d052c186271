/**
 * Reference evaluation of routing (see `reference.ts`).
 *
 * Letters: N tokens, E experts, K experts per token.
 */
import { at } from "../../base/at.js";
import { matrixSizes, SINKHORN_EPS, type PrimAttrs, type RouteRule } from "./ir.js";
import { addScaled, dot } from "../../base/vectors.js";
import { mapRows, rowViews, sigmoid, softmax, softmaxGrad, zip, type Tensor } from "./reference-values.js";

/** Indices of the `count` largest, largest first, ties to the lowest index (the sort is stable). */
function best(values: Float64Array, count: number): number[] {
  return Array.from(values.keys())
    .sort((a, b) => at(values, b) - at(values, a))
    .slice(0, count);
}

/** The values at `places`. */
const pick = (values: Float64Array, places: readonly number[]): Float64Array =>
  Float64Array.from(places, (place) => at(values, place));

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

/**
 * Choices outside the best groups become -Infinity. A group is worth the sum of its two best (modeling_deepseek_v3.py).
 */
function limitToGroups(choice: Float64Array, { count, kept }: NonNullable<RouteRule["groups"]>): Float64Array {
  const size = choice.length / count;
  const worth = Float64Array.from({ length: count }, (_, group) => {
    const own = choice.subarray(group * size, (group + 1) * size);
    return sum(pick(own, best(own, 2)));
  });
  const open = new Set(best(worth, kept));
  return choice.map((value, expert) => (open.has(Math.floor(expert / size)) ? value : -Infinity));
}

/** Scores of one token's experts. */
const scoresOf = (logits: Float64Array, { score }: RouteRule): Float64Array =>
  score === "sigmoid" ? logits.map(sigmoid) : softmax(logits);

/**
 * Sparsemixer's probabilities [E] of the choice behind those of `taken`: softmax over the logits that are near the
 * largest one that is not yet taken (modeling_phimoe.py, sparsemixer, in evaluation mode).
 */
function sparsemixerRow(logits: Float64Array, taken: readonly number[], jitter: number): Float64Array {
  const max = logits.reduce((top, logit, e) => (taken.includes(e) ? top : Math.max(top, logit)), -Infinity);
  const near = logits.map((logit, e) => {
    if (taken.includes(e)) return -Infinity;
    return (max - logit) / Math.max(Math.abs(logit), max) > 2 * jitter ? -Infinity : logit;
  });
  return softmax(near);
}

/** What the scores of the chosen experts are divided by. */
function divisorOf(chosenScores: Float64Array, { renormalise }: RouteRule): number {
  if (renormalise === null) return 1;
  const total = chosenScores.reduce((partial, score) => partial + score, renormalise.plus);
  return Math.max(total, renormalise.atLeast);
}

/** Weights of experts chosen by their scores, from those scores. */
function weightsOf(chosenScores: Float64Array, rule: RouteRule): Float64Array {
  const divisor = divisorOf(chosenScores, rule);
  return chosenScores.map((score) => (rule.scaling * score) / divisor);
}

/** One token's experts, best first, and their weights. */
interface Choice {
  readonly experts: readonly number[];
  readonly weights: Float64Array;
}

function sparsemixerChoice(logits: Float64Array, k: number, { scaling, jitter }: RouteRule): Choice {
  const experts = best(logits, k);
  const weights = Float64Array.from(
    experts,
    (expert, i) => scaling * at(sparsemixerRow(logits, experts.slice(0, i), jitter), expert),
  );
  return { experts, weights };
}

function choose(logits: Float64Array, correction: Float64Array | undefined, k: number, rule: RouteRule): Choice {
  if (rule.score === "sparsemixer") return sparsemixerChoice(logits, k, rule);
  const scores = scoresOf(logits, rule);
  const experts = best(choiceOf(scores, correction, rule), k);
  return { experts, weights: weightsOf(pick(scores, experts), rule) };
}

/** What experts are chosen by: scores, corrected and limited to the best groups. */
function choiceOf(scores: Float64Array, correction: Float64Array | undefined, { groups }: RouteRule): Float64Array {
  const corrected = correction === undefined ? scores : zip(scores, correction, (score, shift) => score + shift);
  return groups === null ? corrected : limitToGroups(corrected, groups);
}

/** One token's experts as a router sees them, all [E]. */
interface RouterScores {
  /** Softmax of the logits, whatever the router scores by. */
  readonly probabilities: Float64Array;
  /** The router's own scores; of `sparsemixer`, which has a score for each choice, the softmax. */
  readonly scores: Float64Array;
  /** What experts are chosen by; -Infinity outside of the best groups. */
  readonly choice: Float64Array;
}

/** What one token's logits [E] and a router's correction [E] say of its experts. */
export function routerScores(
  logits: Float64Array,
  correction: Float64Array | undefined,
  rule: RouteRule,
): RouterScores {
  const probabilities = softmax(logits);
  if (rule.score === "sparsemixer") return { probabilities, scores: probabilities, choice: probabilities };
  const scores = rule.score === "softmax" ? probabilities : scoresOf(logits, rule);
  return { probabilities, scores, choice: choiceOf(scores, correction, rule) };
}

/** Weights and experts [N, K] of the primitive `routeTopK`. */
export function routeTopK(logits: Tensor, correction: Tensor | undefined, k: number, rule: RouteRule): Float64Array[] {
  const choices = rowViews(logits).map((row) => choose(row, correction?.data, k, rule));
  return [
    Float64Array.from(choices.flatMap(({ weights }) => [...weights])),
    Float64Array.from(choices.flatMap(({ experts }) => experts)),
  ];
}

/** Weights [N, K] of experts that were chosen elsewhere [N, K]. */
export function routeWeights(logits: Tensor, chosen: Tensor, rule: RouteRule): Float64Array {
  const rows = rowViews(logits);
  return mapRows(chosen, (experts, token) =>
    weightsOf(pick(scoresOf(at(rows, token), rule), Array.from(experts)), rule),
  );
}

/** Column factors [E]. Rows are taken relative to their largest logit: what that changes, the row factors take up. */
export function sinkhorn(logits: Tensor, { iterations, tolerance }: PrimAttrs["sinkhorn"]): Float64Array {
  const [tokens, experts] = matrixSizes(logits);
  const costs = rowViews(logits).map((row) => {
    const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
    return row.map((logit) => Math.exp(logit - max));
  });
  let column = new Float64Array(experts).fill(1);
  for (let i = 0; i < iterations; i++) {
    const sums = new Float64Array(experts);
    for (const row of costs) addScaled(sums, 1 / (tokens * dot(row, column)), row);
    const next = sums.map((mass) => 1 / (experts * (mass + SINKHORN_EPS)));
    const distance = sum(zip(next, column, (a, b) => Math.abs(a - b))) / experts;
    column = next;
    if (distance <= tolerance) break;
  }
  return column;
}

/** Gradient of the logits [N, E] of the primitive `routeTopKGrad`. */
export function routeTopKGrad(logits: Tensor, chosen: Tensor, dweights: Tensor, rule: RouteRule): Float64Array {
  const [choices, gradients] = [rowViews(chosen), rowViews(dweights)];
  return mapRows(logits, (row, token) => {
    const experts = Array.from(at(choices, token));
    const dscaled = at(gradients, token).map((d) => rule.scaling * d);
    return rule.score === "sparsemixer"
      ? sparsemixerGrad(row, experts, dscaled, rule.jitter)
      : scoreGrad(row, experts, dscaled, rule);
  });
}

/** Values of chosen experts among zeros [E]. */
function spread(experts: readonly number[], values: Float64Array, count: number): Float64Array {
  const wide = new Float64Array(count);
  for (const [i, expert] of experts.entries()) wide[expert] = at(values, i);
  return wide;
}

/** Every choice has a softmax of its own; their gradients add up. */
function sparsemixerGrad(
  logits: Float64Array,
  experts: readonly number[],
  dweights: Float64Array,
  jitter: number,
): Float64Array {
  const dlogits = new Float64Array(logits.length);
  for (const [i, expert] of experts.entries()) {
    const dprobabilities = new Float64Array(logits.length);
    dprobabilities[expert] = at(dweights, i);
    addScaled(dlogits, 1, softmaxGrad(sparsemixerRow(logits, experts.slice(0, i), jitter), dprobabilities));
  }
  return dlogits;
}

/** One token's gradient through weights = chosen scores / divisor. */
function scoreGrad(
  logits: Float64Array,
  experts: readonly number[],
  dweights: Float64Array,
  rule: RouteRule,
): Float64Array {
  const scores = scoresOf(logits, rule);
  const chosenScores = pick(scores, experts);
  const divisor = divisorOf(chosenScores, rule);
  // Where the floor holds, the divisor is a constant.
  const moves = rule.renormalise !== null && divisor > rule.renormalise.atLeast;
  const pull = moves ? dot(dweights, chosenScores) / divisor ** 2 : 0;
  const dscores = spread(
    experts,
    dweights.map((d) => d / divisor - pull),
    scores.length,
  );
  return rule.score === "softmax"
    ? softmaxGrad(scores, dscores)
    : zip(dscores, scores, (d, score) => d * score * (1 - score));
}
