/** Router losses over all MoE layers of a decoder, as scalars in its graph. */
import type { GraphBuilder } from "../graph/builder.js";
import type { ValueId } from "../graph/ir.js";
import type { RouterValues } from "./decoder.js";

/**
 * Load-balancing loss: E * sum over experts of (share of tokens sent to it, summed over the K choices) * (mean router probability),
 * both means taken over the tokens of all MoE layers together, as transformers' `load_balancing_loss_func` (mixtral) does it;
 * Switch Transformer (Fedus et al. 2021), equations 4-6. 1 * K when balanced. The share carries no gradient.
 */
export function balanceLoss(b: GraphBuilder, routers: readonly RouterValues[]): ValueId {
  const { experts } = routers[0]!;
  if (routers.some((router) => router.experts !== experts)) throw new Error("layers with different numbers of experts share no balance loss");
  const tokens = b.shape(routers[0]!.logits)[0]! * routers.length;
  const total = (parts: readonly ValueId[]): ValueId => b.scale(parts.reduce((sum, part) => b.add(sum, part)), 1 / tokens);
  const share = total(routers.map(({ counts }) => b.op("toFloat", [counts], {})));
  const probability = total(routers.map(({ logits }) => b.op("reduceSum", [b.op("softmax", [logits], {})], { axes: [0], keepDims: false })));
  return b.scale(b.op("reduceSum", [b.mul(share, probability)], { axes: [0], keepDims: false }), experts);
}

/** Router z-loss: mean over tokens and MoE layers of the squared logsumexp of the router logits (ST-MoE, Zoph et al. 2022, equation 5). */
export function routerZLoss(b: GraphBuilder, routers: readonly RouterValues[]): ValueId {
  const tokens = b.shape(routers[0]!.logits)[0]! * routers.length;
  const parts = routers.map(({ logits }) => {
    const z = b.op("logSumExp", [logits], {});
    return b.op("reduceSum", [b.mul(z, z)], { axes: [0], keepDims: false });
  });
  return b.scale(parts.reduce((sum, part) => b.add(sum, part)), 1 / tokens);
}
