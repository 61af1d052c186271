/** How undecided a router is. */
import type { GraphBuilder } from "../ir/builder.js";
import type { ValueId } from "../ir/ir.js";

/**
 * Mean over tokens of the entropy of softmax(logits [N, E]), in nats: log E where all experts are alike, 0 where one
 * has all. By the softmax also for routers that score in another way, so that numbers can be compared. H = logsumexp(l)
 * - sum p l.
 */
export function routerEntropy(b: GraphBuilder, logits: ValueId): ValueId {
  const tokens = b.matrix(logits)[0];
  const expected = b.op("reduceSum", [b.mul(b.op("softmax", [logits], {}), logits)], { axes: [1], keepDims: false });
  const each = b.op("sub", [b.op("logSumExp", [logits], {}), expected], {});
  return b.scale(b.op("reduceSum", [each], { axes: [0], keepDims: false }), 1 / tokens);
}
