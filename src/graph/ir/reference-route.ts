/** Reference evaluation of routing (see `reference.ts`). */
import { matrixSizes, SINKHORN_EPS, type PrimAttrs, type RouteRule } from "./ir.js";
import { softmaxRow, type Tensor } from "./reference-values.js";

/** Indices of the `count` largest, largest first, ties to the lowest index (the sort is stable). */
function best(values: readonly number[], count: number): number[] {
  return values
    .map((_, i) => i)
    .sort((a, b) => values[b]! - values[a]!)
    .slice(0, count);
}

/**
 * Choices outside the best groups become -Infinity. A group is worth the sum of its two best (modeling_deepseek_v3.py).
 */
function limitToGroups(choice: number[], { count, kept }: NonNullable<RouteRule["groups"]>): number[] {
  const size = choice.length / count;
  const worth = Array.from({ length: count }, (_, group) => {
    const own = choice.slice(group * size, (group + 1) * size);
    return best(own, 2).reduce((sum, i) => sum + own[i]!, 0);
  });
  const open = new Set(best(worth, kept));
  return choice.map((value, expert) => (open.has(Math.floor(expert / size)) ? value : -Infinity));
}

/** Scores of one token's experts. */
function scoresOf(logits: Float64Array, rule: RouteRule): Float64Array {
  if (rule.score === "sigmoid") return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const scores = new Float64Array(logits.length);
  softmaxRow(logits, 0, logits.length, scores);
  return scores;
}

/**
 * Sparsemixer's probabilities [E] of the `index`-th choice: softmax over the logits that are near the largest one that
 * is not yet taken (modeling_phimoe.py, sparsemixer, in evaluation mode).
 */
function sparsemixerRow(logits: Float64Array, taken: readonly number[], jitter: number): Float64Array {
  const max = logits.reduce((top, logit, e) => (taken.includes(e) ? top : Math.max(top, logit)), -Infinity);
  const near = logits.map((logit, e) => {
    if (taken.includes(e)) return -Infinity;
    return (max - logit) / Math.max(Math.abs(logit), max) > 2 * jitter ? -Infinity : logit;
  });
  const out = new Float64Array(logits.length);
  softmaxRow(near, 0, near.length, out);
  return out;
}

const divisorOf = (kept: readonly number[], { renormalise }: RouteRule): number =>
  renormalise === null
    ? 1
    : Math.max(
        kept.reduce((sum, score) => sum + score, renormalise.plus),
        renormalise.atLeast,
      );

export function routeTopK(logits: Tensor, correction: Tensor | null, k: number, rule: RouteRule): Float64Array[] {
  const [tokens, experts] = matrixSizes(logits);
  const weights = new Float64Array(tokens * k);
  const chosen = new Float64Array(tokens * k);
  for (let token = 0; token < tokens; token++) {
    const own = logits.data.subarray(token * experts, (token + 1) * experts);
    if (rule.score === "sparsemixer") {
      const top = best([...own], k);
      chosen.set(top, token * k);
      weights.set(
        top.map((expert, i) => rule.scaling * sparsemixerRow(own, top.slice(0, i), rule.jitter)[expert]!),
        token * k,
      );
      continue;
    }
    const scores = scoresOf(own, rule);
    const corrected = Array.from(scores, (score, e) => score + (correction?.data[e] ?? 0));
    const top = best(rule.groups === null ? corrected : limitToGroups(corrected, rule.groups), k);
    const kept = top.map((expert) => scores[expert]!);
    chosen.set(top, token * k);
    weights.set(
      kept.map((score) => (rule.scaling * score) / divisorOf(kept, rule)),
      token * k,
    );
  }
  return [weights, chosen];
}

export function routeWeights(logits: Tensor, chosen: Tensor, rule: RouteRule): Float64Array {
  const [tokens, experts] = matrixSizes(logits);
  const [, k] = matrixSizes(chosen);
  const out = new Float64Array(chosen.data.length);
  for (let token = 0; token < tokens; token++) {
    const scores = scoresOf(logits.data.subarray(token * experts, (token + 1) * experts), rule);
    const kept = Array.from(chosen.data.subarray(token * k, (token + 1) * k), (expert) => scores[expert]!);
    out.set(
      kept.map((score) => (rule.scaling * score) / divisorOf(kept, rule)),
      token * k,
    );
  }
  return out;
}

/** Rows are taken relative to their largest logit: what that changes, the row factors take up. */
export function sinkhorn(logits: Tensor, { iterations, tolerance }: PrimAttrs["sinkhorn"]): Float64Array {
  const [tokens, experts] = matrixSizes(logits);
  const cost = new Float64Array(logits.data.length);
  for (let token = 0; token < tokens; token++) {
    const own = logits.data.subarray(token * experts, (token + 1) * experts);
    const max = own.reduce((a, b) => Math.max(a, b), -Infinity);
    own.forEach((logit, e) => (cost[token * experts + e] = Math.exp(logit - max)));
  }
  let column = new Float64Array(experts).fill(1);
  for (let i = 0; i < iterations; i++) {
    const sums = new Float64Array(experts);
    for (let token = 0; token < tokens; token++) {
      const own = cost.subarray(token * experts, (token + 1) * experts);
      const row = 1 / (tokens * own.reduce((sum, value, e) => sum + value * column[e]!, 0));
      own.forEach((value, e) => (sums[e]! += row * value));
    }
    const next = sums.map((sum) => 1 / (experts * (sum + SINKHORN_EPS)));
    const moved = next.reduce((sum, value, e) => sum + Math.abs(value - column[e]!), 0) / experts;
    column = next;
    if (moved <= tolerance) break;
  }
  return column;
}

export function routeTopKGrad(logits: Tensor, chosen: Tensor, dweights: Tensor, rule: RouteRule): Float64Array {
  const [tokens, experts] = matrixSizes(logits);
  const [, k] = matrixSizes(chosen);
  const out = new Float64Array(logits.data.length);
  for (let token = 0; token < tokens; token++) {
    const own = logits.data.subarray(token * experts, (token + 1) * experts);
    const top = Array.from(chosen.data.subarray(token * k, (token + 1) * k));
    const given = Array.from(dweights.data.subarray(token * k, (token + 1) * k), (d) => rule.scaling * d);
    const dlogits = out.subarray(token * experts, (token + 1) * experts);
    const throughSoftmax = (probabilities: Float64Array, dprobabilities: Float64Array): void => {
      const dot = probabilities.reduce((sum, p, e) => sum + p * dprobabilities[e]!, 0);
      probabilities.forEach((p, e) => (dlogits[e]! += p * (dprobabilities[e]! - dot)));
    };
    const spread = (values: readonly number[]): Float64Array => {
      const wide = new Float64Array(experts);
      top.forEach((expert, i) => (wide[expert] = values[i]!));
      return wide;
    };
    if (rule.score === "sparsemixer") {
      top.forEach((_, i) =>
        throughSoftmax(
          sparsemixerRow(own, top.slice(0, i), rule.jitter),
          spread(given.map((d, j) => (i === j ? d : 0))),
        ),
      );
      continue;
    }
    const scores = scoresOf(own, rule);
    const kept = top.map((expert) => scores[expert]!);
    const divisor = divisorOf(kept, rule);
    // Where the floor holds, the divisor is a constant.
    const moves = rule.renormalise !== null && divisor > rule.renormalise.atLeast;
    const pull = moves ? given.reduce((sum, d, i) => sum + d * kept[i]!, 0) / divisor ** 2 : 0;
    const dscores = spread(given.map((d) => d / divisor - pull));
    if (rule.score === "softmax") throughSoftmax(scores, dscores);
    else scores.forEach((score, e) => (dlogits[e] = dscores[e]! * score * (1 - score)));
  }
  return out;
}
