/** A layer of routed experts: router, choice, dispatch, experts, shared expert. Letters as in `decoder.ts`. */
import { GraphBuilder } from "../ir/builder.js";
import type { PrimAttrs, RouteRule, ValueId } from "../ir/ir.js";
import type { MoeFfn, RouterSpec } from "../../model/decoder/types.js";
import type { SlotPart } from "../../model/tensors/slots.js";
import type { NetContext, TrainingRouting } from "./context.js";
import { activated, clampedGlu, gated } from "./units.js";

/** A spec's router as the routing primitive wants it. */
export function routeRule({
  score,
  jitter,
  renormalise,
  groups,
  correctionBias: corrected,
  scaling,
}: RouterSpec): RouteRule {
  return { score, jitter, renormalise, groups, corrected, scaling };
}

/** A layer of routed experts, and its shared expert: x [N, H] -> [N, H]. */
export function moe(ctx: NetContext, x: ValueId, ffn: MoeFfn, layer: number): ValueId {
  const routed = routedExperts(ctx, x, ffn, layer, route(ctx, x, ffn, layer));
  return ffn.shared === null ? routed : ctx.b.add(routed, sharedExpert(ctx, x, ffn, ffn.shared, layer));
}

/** Which experts serve each token and with which weights, and where the rows of each expert stand. */
interface Routing {
  /** [N, E] */
  readonly logits: ValueId;
  /** [N, K] */
  readonly weights: ValueId;
  /** [N, K], int */
  readonly chosen: ValueId;
  /** Order and inverse [R] and rows of each expert [E], see the primitive `expertSort`. */
  readonly order: ValueId;
  readonly inverse: ValueId;
  readonly counts: ValueId;
}

/** The router of a layer alone: x [N, H] -> logits [N, E], weights [N, K] and chosen experts [N, K] (int). */
export function routerOf(ctx: NetContext, x: ValueId, ffn: MoeFfn, layer: number): readonly ValueId[] {
  const { logits, weights, chosen } = route(ctx, x, ffn, layer);
  return [logits, weights, chosen];
}

/** What one routed expert makes of x [N, H], whatever the router would weigh it with: [N, H]. */
export function oneExpert(ctx: NetContext, x: ValueId, ffn: MoeFfn, layer: number, expert: number): ValueId {
  const { b, param } = ctx;
  const linear = (input: ValueId, part: "gate" | "up" | "down"): ValueId =>
    b.linear(input, param(part, layer, expert), ffn.bias ? param(`${part}Bias`, layer, expert) : undefined);
  const up = linear(x, "up");
  if (!ffn.gated) return linear(activated(ctx, up, ffn.activation, layer), "down");
  const gate = linear(x, "gate");
  const inner =
    ffn.clampedGlu === null ? gated(ctx, gate, up, ffn.activation, layer) : clampedGlu(b, gate, up, ffn.clampedGlu);
  return linear(inner, "down");
}

/**
 * What is added to logits and correction of an expert that may not be chosen. It leaves no probability (its exponential
 * is 0 beside any logit), and no correction lifts it. It is finite, so that a choice among closed groups (-Infinity)
 * and excluded experts still has an order.
 */
const EXCLUDED = -1e30;

/** values [..., E] with those of excluded experts out of the router's reach; the values themselves where none is. */
function withoutExcluded({ b, excluded = [] }: NetContext, values: ValueId, experts: number): ValueId {
  if (excluded.length === 0) return values;
  const mask = Float32Array.from({ length: experts }, (_, expert) => (excluded.includes(expert) ? EXCLUDED : 0));
  return b.add(values, b.constant(mask, [experts]));
}

/** Chooses each token's experts, and notes the router's values for losses and metrics. */
function route(ctx: NetContext, x: ValueId, { router, experts, topK }: MoeFfn, layer: number): Routing {
  const { b, param, routing } = ctx;
  const jitter = routing?.jitter === true ? b.input(`jitter.${layer}`, "f32", b.shape(x)) : null;
  const read = jitter === null ? x : b.mul(x, jitter);
  const scored = b.linear(read, param("router", layer), router.bias ? param("routerBias", layer) : undefined);
  const logits = withoutExcluded(ctx, scored, experts);
  const rule = routeRule(router);
  const correction = rule.corrected ? [withoutExcluded(ctx, param("routerCorrection", layer), experts)] : [];
  const [weights, chosen] =
    routing?.sinkhorn === true
      ? balancedChoice(b, logits, topK, rule)
      : b.apply("routeTopK", [logits, ...correction], { k: topK, rule });
  const limit = capacityOf(b.matrix(chosen), experts, routing?.capacity ?? null);
  const served = limit === null ? chosen : b.op("expertCapacity", [weights, chosen], limit);
  const [order, inverse, counts] = b.apply("expertSort", [served], { experts, drops: limit !== null });
  const allCounts =
    limit === null ? counts : b.reshape(b.op("expertCounts", [chosen], { experts, blocks: 1 }), [experts]);
  const kept = (routing?.capacity ?? null) === null ? null : counts;
  ctx.routers.push({ layer, experts, topK, rule, logits, weights, chosen, jitter, counts: allCounts, kept });
  return { logits, weights, chosen, order, inverse, counts };
}

/** What the routed experts of a layer make of x [N, H], weighted and summed for each token: [N, H]. */
function routedExperts(
  ctx: NetContext,
  x: ValueId,
  ffn: MoeFfn,
  layer: number,
  { weights, order, inverse, counts }: Routing,
): ValueId {
  const { b, spec, param } = ctx;
  const each = (part: SlotPart): ValueId[] =>
    Array.from({ length: ffn.experts }, (_, expert) => param(part, layer, expert));
  const dispatched = b.op("dispatch", [x, order, inverse], { k: ffn.topK });
  const grouped = (input: ValueId, part: "gate" | "up" | "down"): ValueId => {
    const y = b.op("groupedMatmul", [input, counts, ...each(part)], { transB: true });
    return ffn.bias ? b.op("groupedBias", [y, counts, ...each(`${part}Bias`)], {}) : y;
  };
  const inner = (): ValueId => {
    if (!ffn.gated) return activated(ctx, grouped(dispatched, "up"), ffn.activation, layer);
    const [gate, up] = [grouped(dispatched, "gate"), grouped(dispatched, "up")];
    return ffn.clampedGlu === null
      ? gated(ctx, gate, up, ffn.activation, layer)
      : clampedGlu(b, gate, up, ffn.clampedGlu);
  };
  const weightedRows = (y: ValueId): ValueId => b.op("scaleRows", [y, weights, order, inverse], {});
  // The weights commute with the down projection unless that has a bias, so they go where rows are narrower.
  const early = ffn.ffnDim < spec.hidden && !ffn.bias;
  const out = early ? grouped(weightedRows(inner()), "down") : weightedRows(grouped(inner(), "down"));
  return b.op("combine", [out, order, inverse], { k: ffn.topK });
}

/** Sinkhorn's iteration on a router's logits settles long before so many iterations; one that has not ends there. */
const SINKHORN = { iterations: 32, tolerance: 1e-4 };
/** A rule for the choice alone: the top k by the values themselves. */
const byLogit: RouteRule = {
  score: "softmax",
  jitter: 0,
  renormalise: null,
  groups: null,
  corrected: false,
  scaling: 1,
};

/** Weights and choices [N, K]: the top k of the balanced matrix. */
function balancedChoice(b: GraphBuilder, logits: ValueId, k: number, rule: RouteRule): readonly [ValueId, ValueId] {
  const balanced = b.mul(b.op("softmax", [logits], {}), b.op("sinkhorn", [logits], SINKHORN));
  const chosen = b.apply("routeTopK", [balanced], { k, rule: byLogit })[1];
  return [b.op("routeWeights", [logits, chosen], { rule }), chosen];
}

/**
 * Attributes of the capacity's primitive, or null where every choice fits (megatron/core/transformer/moe/moe_utils.py,
 * get_capacity).
 */
function capacityOf(
  [tokens, k]: readonly [number, number],
  experts: number,
  capacity: TrainingRouting["capacity"],
): PrimAttrs["expertCapacity"] | null {
  if (capacity === null) return null;
  // No expert is chosen twice by a token.
  const rows = Math.ceil(((tokens * k) / experts) * capacity.factor);
  return rows >= tokens ? null : { experts, rows, by: capacity.by };
}

/** What the expert that every token uses makes of x [N, H]. */
function sharedExpert(
  ctx: NetContext,
  x: ValueId,
  ffn: MoeFfn,
  shared: NonNullable<MoeFfn["shared"]>,
  layer: number,
): ValueId {
  const { b, param } = ctx;
  const up = b.linear(x, param("sharedUp", layer));
  const inner = ffn.gated
    ? gated(ctx, b.linear(x, param("sharedGate", layer)), up, ffn.activation, layer)
    : activated(ctx, up, ffn.activation, layer);
  const out = b.linear(inner, param("sharedDown", layer));
  return shared.gated ? b.mul(out, b.op("sigmoid", [b.linear(x, param("sharedRouter", layer))], {})) : out;
}
