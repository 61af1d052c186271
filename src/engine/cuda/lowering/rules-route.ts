/** Routers: a warp for each token (see route.cu). N tokens, E experts, K experts of a token. */
import { SINKHORN_EPS, matrixSizes, typeOf, type NodeOf, type RouteRule } from "../../../graph/ir/ir.js";
import { blocksFor, float, int, reads, readsOrNull, writes } from "./arguments.js";
import type { Context } from "./context.js";

/** Warps of a block, and shared memory that a block has without asking for more. */
const WARPS = 8;
const USUAL_SHARED = 48 * 1024;

const scoreCodes: Readonly<Record<RouteRule["score"], number>> = { softmax: 0, sigmoid: 1, sparsemixer: 2 };

/** As many warps, up to 8, as have room for `floats` numbers each. */
function warpsFor(floats: number): number {
  return Math.max(1, Math.min(WARPS, Math.floor(USUAL_SHARED / (floats * 4))));
}

/** renormalise, plus, atLeast */
const renormalisation = ({ renormalise }: RouteRule) => [
  int(Number(renormalise !== null)),
  float(renormalise?.plus ?? 0),
  float(renormalise?.atLeast ?? 0),
];

function perToken(tokens: number, floats: number) {
  const warps = warpsFor(floats);
  return { grid: [blocksFor(tokens, warps), 1, 1] as const, block: warps * 32, shared: warps * floats * 4 };
}

/** Appends the launches of `routeTopK`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerRouteTopK(c: Context, node: NodeOf<"routeTopK">): void {
  const [logits, correction] = node.in;
  const [weights, chosen] = node.out;
  const { k, rule } = node.attrs;
  const [tokens, experts] = matrixSizes(typeOf(c.graph, logits));
  const sources = [reads(c.of(logits)), readsOrNull(correction === undefined ? null : c.of(correction))];
  c.kernel({
    module: "route",
    kernel: "routeTopK",
    ...perToken(tokens, 2 * experts + (rule.groups?.count ?? 0)),
    flops: tokens * experts * (4 + k),
    arguments: [
      ...sources,
      writes(c.define(weights)),
      writes(c.define(chosen)),
      ...[tokens, experts, k, scoreCodes[rule.score]].map(int),
      float(rule.jitter),
      ...renormalisation(rule),
      int(rule.groups?.count ?? 0),
      int(rule.groups?.kept ?? 0),
      float(rule.scaling),
    ],
  });
}

/** Appends the launches of `routeWeights`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerRouteWeights(c: Context, node: NodeOf<"routeWeights">): void {
  const [logits, chosen] = node.in;
  const { rule } = node.attrs;
  const [tokens, experts] = matrixSizes(typeOf(c.graph, logits));
  const [, k] = matrixSizes(typeOf(c.graph, chosen));
  const sources = [logits, chosen].map((id) => reads(c.of(id)));
  c.kernel({
    module: "route",
    kernel: "routeWeights",
    ...perToken(tokens, experts),
    flops: 4 * tokens * experts,
    arguments: [
      ...sources,
      writes(c.define(node.out[0])),
      ...[tokens, experts, k, scoreCodes[rule.score]].map(int),
      ...renormalisation(rule),
      float(rule.scaling),
    ],
  });
}

/** Appends the launches of `routeTopKGrad`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerRouteTopKGrad(c: Context, node: NodeOf<"routeTopKGrad">): void {
  const [logits, chosen] = node.in;
  const { rule } = node.attrs;
  const [tokens, experts] = matrixSizes(typeOf(c.graph, logits));
  const [, k] = matrixSizes(typeOf(c.graph, chosen));
  const sources = node.in.map((id) => reads(c.of(id)));
  c.kernel({
    module: "route",
    kernel: "routeTopKGrad",
    ...perToken(tokens, 2 * experts),
    flops: 8 * tokens * experts,
    arguments: [
      ...sources,
      writes(c.define(node.out[0])),
      ...[tokens, experts, k, scoreCodes[rule.score]].map(int),
      float(rule.jitter),
      ...renormalisation(rule),
      float(rule.scaling),
    ],
  });
}

/** Warps that share the tokens of Sinkhorn's one block. */
const SINKHORN_WARPS = 32;

/** Appends the launches of `sinkhorn`, whose shapes are those of the primitive in graph/ir/ir.ts. */
export function lowerSinkhorn(c: Context, node: NodeOf<"sinkhorn">): void {
  const [logits] = node.in;
  const { iterations, tolerance } = node.attrs;
  const [tokens, experts] = matrixSizes(typeOf(c.graph, logits));
  const warps = Math.max(1, Math.min(SINKHORN_WARPS, Math.floor(USUAL_SHARED / (experts * 4)) - 2));
  c.kernel({
    module: "route",
    kernel: "sinkhorn",
    grid: [1, 1, 1],
    block: warps * 32,
    shared: (warps + 2) * experts * 4,
    flops: 6 * tokens * experts * iterations,
    arguments: [
      reads(c.of(logits)),
      writes(c.define(node.out[0])),
      ...[tokens, experts, iterations].map(int),
      float(tolerance),
      float(SINKHORN_EPS),
    ],
  });
}
