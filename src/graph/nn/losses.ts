/**
 * Router losses over the MoE layers of a decoder, as scalars in its graph.
 *
 * Letters: N tokens, E experts, K experts per token.
 */
import { at } from "../../base/at.js";
import type { GraphBuilder } from "../ir/builder.js";
import type { RouteRule, ValueId } from "../ir/ir.js";
import type { RouterValues } from "./context.js";

const summed = (b: GraphBuilder, parts: readonly ValueId[]): ValueId => parts.reduce((sum, part) => b.add(sum, part));

/**
 * Load-balancing loss: E * sum over experts of (share of tokens sent to it, summed over the K choices) * (mean router
 * probability), both means taken over the tokens of all MoE layers together, as transformers'
 * `load_balancing_loss_func` (mixtral) does it; Switch Transformer (Fedus et al. 2021), equations 4-6. 1 * K when
 * balanced. The share carries no gradient.
 */
export function balanceLoss(
  b: GraphBuilder,
  routers: readonly Pick<RouterValues, "experts" | "logits" | "counts">[],
): ValueId {
  const { experts, logits: first } = at(routers, 0);
  if (routers.some((router) => router.experts !== experts))
    throw new Error("layers with different numbers of experts share no balance loss");
  const tokens = b.matrix(first)[0] * routers.length;
  const total = (parts: readonly ValueId[]): ValueId => b.scale(summed(b, parts), 1 / tokens);
  const share = total(routers.map(({ counts }) => b.op("toFloat", [counts], {})));
  const probability = total(
    routers.map(({ logits }) => b.op("reduceSum", [b.op("softmax", [logits], {})], { axes: [0], keepDims: false })),
  );
  return b.scale(b.op("reduceSum", [b.mul(share, probability)], { axes: [0], keepDims: false }), experts);
}

/**
 * Router z-loss: mean over tokens and MoE layers of the squared logsumexp of the router logits (ST-MoE, Zoph et al.
 * 2022, equation 5).
 */
export function routerZLoss(b: GraphBuilder, routers: readonly Pick<RouterValues, "logits">[]): ValueId {
  const tokens = b.matrix(at(routers, 0).logits)[0] * routers.length;
  const parts = routers.map(({ logits }) => {
    const z = b.op("logSumExp", [logits], {});
    return b.op("reduceSum", [b.mul(z, z)], { axes: [0], keepDims: false });
  });
  return b.scale(summed(b, parts), 1 / tokens);
}

/** What a balance loss reads of a router. */
type Balanced = Pick<RouterValues, "experts" | "topK" | "rule" | "logits" | "chosen" | "counts">;

/** How often each expert was chosen elsewhere [E], and 1 / (all tokens counted, here and there). */
export interface ElsewhereInputs {
  readonly counts: ValueId;
  readonly perToken: ValueId;
}

/**
 * How often each expert is among a token's K best scores [blocks, E], int: as the routers choose, but for correction
 * bias and groups, which DeepSeek-V3 (equation 18) and Megatron-Core (`compute_routing_scores_for_aux_loss`) leave out
 * of the loss.
 */
export function scoreCounts(
  b: GraphBuilder,
  { experts, topK, rule, logits, chosen, counts }: Balanced,
  blocks: number,
): ValueId {
  const plain = !rule.corrected && rule.groups === null;
  if (plain && blocks === 1) return b.reshape(counts, [1, experts]);
  const best = plain
    ? chosen
    : b.apply("routeTopK", [logits], {
        k: topK,
        rule: { ...rule, renormalise: null, groups: null, corrected: false, scaling: 1 },
      })[1];
  return b.op("expertCounts", [best], { experts, blocks });
}

/** Scores of each token as probabilities [N, E]: the softmax, or sigmoids over their sum (DeepSeek-V3, equation 19). */
function probabilities(b: GraphBuilder, { rule, logits, experts }: Balanced): ValueId {
  if (rule.score !== "sigmoid") return b.op("softmax", [logits], {});
  const all: RouteRule = {
    score: "sigmoid",
    jitter: 0,
    renormalise: { plus: 1e-20, atLeast: 0 },
    groups: null,
    corrected: false,
    scaling: 1,
  };
  const tokens = b.matrix(logits)[0];
  const every = b.constant(
    Int32Array.from({ length: tokens * experts }, (_, i) => i % experts),
    [tokens, experts],
    "int",
  );
  return b.op("routeWeights", [logits, every], { rule: all });
}

/**
 * Load-balancing loss layer by layer, each layer's added: E / K * sum over experts of f P, f = (how often chosen) /
 * tokens, P = mean score as a probability; 1 for a balanced layer. With `blocks` it is the mean over that many equal
 * runs of tokens, such as sequences, of each run's own loss. With `elsewhere`, one for each layer, f is that of all
 * tokens of a step. Megatron-Core's `aux_loss`, `seq_aux_loss` and `global_aux_loss`. f carries no gradient.
 */
export function layerBalanceLoss(
  b: GraphBuilder,
  routers: readonly Balanced[],
  { blocks = 1, elsewhere }: { readonly blocks?: number; readonly elsewhere?: readonly ElsewhereInputs[] | undefined },
): ValueId {
  return summed(
    b,
    routers.map((router, i) => {
      const { experts, topK, logits } = router;
      const tokens = b.matrix(logits)[0] / blocks;
      const counted = b.op("toFloat", [scoreCounts(b, router, blocks)], {});
      const other = elsewhere?.[i];
      const share =
        other === undefined ? b.scale(counted, 1 / tokens) : b.mul(b.add(counted, other.counts), other.perToken);
      const mass = b.op("reduceSum", [b.reshape(probabilities(b, router), [blocks, tokens, experts])], {
        axes: [1],
        keepDims: false,
      });
      const product = b.op("reduceSum", [b.mul(share, mass)], { axes: [0, 1], keepDims: false });
      return b.scale(product, experts / (topK * tokens * blocks));
    }),
  );
}
