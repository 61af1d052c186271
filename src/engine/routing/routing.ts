/**
 * Routing in training, beside the graph: its settings and the models that they fit, the numbers that are fed for it,
 * and the expert bias.
 */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { randomStream } from "../../base/random.js";
import type { RoutingConfig } from "../../base/schemas/index.js";
import { sharesBalance, type RoutingFeed, type RoutingSettings } from "../../graph/programs/routing.js";
import type { DecoderSpec, MoeFfn } from "../../model/decoder/types.js";
import { slotKey } from "../../model/tensors/slots.js";
import type { Draw } from "../runtime/runtime.js";

/** What of a training's block its load-balancing loss depends on. */
interface Balancing {
  readonly routing?: RoutingConfig | undefined;
  readonly auxLoss: number;
}

/**
 * What the load-balancing loss is taken over where a file does not say it: each layer by itself, as in Switch
 * Transformer (equation 4) and Megatron-LM. One loss over all layers together, as in transformers, does not see layers
 * that use a few experts each, other ones than the rest.
 */
const defaultBalance = "layer";

/**
 * A training's block in which a load-balancing loss says what it is taken over: what the block says, else `otherwise`.
 */
export function withBalance<T extends Balancing>(
  block: T,
  otherwise: NonNullable<RoutingConfig["balance"]> = defaultBalance,
): T {
  if (block.auxLoss === 0 || block.routing?.balance !== undefined) return block;
  return { ...block, routing: { ...block.routing, balance: otherwise } };
}

/**
 * What a training's block says of routing, for the graph. Over one micro-batch a step's shares are the micro-batch's
 * own.
 */
export function routingSettings({
  routing,
  accumulate,
}: {
  readonly routing?: RoutingConfig | undefined;
  readonly accumulate: number;
}): RoutingSettings {
  const { balance = defaultBalance, sinkhorn = false, capacity, jitter = 0 } = routing ?? {};
  return {
    balance: accumulate === 1 && (balance === "global" || balance === "running") ? "layer" : balance,
    sinkhorn,
    jitter: jitter > 0,
    capacity:
      capacity === undefined
        ? null
        : { factor: capacity.factor, by: capacity.drop === "probs" ? "weight" : "position" },
  };
}

/** Throws inputError where the settings do not fit the model; `block` is the name of the block that has them. */
export function checkRouting(spec: DecoderSpec, { routing, auxLoss }: Balancing, block = "training"): void {
  const where = `${block}.routing`;
  const moe = spec.layers.flatMap(({ ffn }) => (ffn.kind === "moe" ? [ffn] : []));
  if (auxLoss !== 0 && routing?.balance === "model" && !sharesBalance(spec)) {
    const counts = [...new Set(moe.map(({ experts }) => experts))].join(", ");
    throw inputError(`layers with different numbers of experts (${counts}) share no load-balancing loss`, {
      where: `${where}.balance`,
      hint: "balance: layer has one for each",
    });
  }
  if (routing === undefined) return;
  if (moe.length === 0)
    throw inputError("this model is dense, it has no routers", {
      where,
      hint: "remove routing, or upcycle the model first",
    });
  if (routing.bias !== undefined && moe.some(({ router }) => !router.correctionBias)) {
    throw inputError(`routers of the family ${spec.family} have no bias to balance experts with`, {
      where: `${where}.bias`,
      hint: "make it with upcycle convert --correction-bias (in files correctionBias: true), or balance by auxLoss",
    });
  }
  if (routing.sinkhorn === true) checkSinkhorn(moe, `${where}.sinkhorn`);
}

function checkSinkhorn(moe: readonly MoeFfn[], where: string): void {
  const refuse = (what: string, hint: string): never => {
    throw inputError(`Sinkhorn routing does not go with ${what}`, { where, hint });
  };
  const other = "balance by auxLoss or routing.bias instead";
  for (const { router, topK } of moe) {
    if (router.score === "sparsemixer")
      refuse("a sparsemixer router, whose weights hang on its own choices", "balance by auxLoss instead");
    if (router.groups !== null) refuse("a router that chooses within groups of experts", other);
    if (router.correctionBias) refuse("a router that has a correction bias, which evaluation would choose by", other);
    if (router.renormalise !== null && topK === 1 && router.renormalise.plus === 0)
      refuse(
        "one renormalised expert per token: its weight is always 1, so the router would learn nothing",
        "use a router that is not renormalised (softmax-topk)",
      );
  }
}

/** How often each expert was chosen, by MoE layer. */
export type Counts = readonly (readonly number[])[];

/** Counts of other micro-batches, and the tokens of all that count, this one's included. */
export interface Elsewhere {
  readonly counts: Counts;
  readonly tokens: number;
}

/**
 * The numbers for one micro-batch. What jitter draws is a function of seed, step, micro-batch and layer alone.
 * Throws an Error for a program that wants numbers which are not there.
 */
export function routingFeeds(
  feeds: readonly RoutingFeed[],
  draw: Draw | undefined,
  micro: number,
  elsewhere: Elsewhere | null,
): Float32Array[] {
  const others = (): Elsewhere => {
    if (elsewhere === null) throw new Error("this program takes counts of other micro-batches and was given none");
    return elsewhere;
  };
  return feeds.map((feed) => {
    switch (feed.kind) {
      case "jitter":
        return jitterFactors(feed, draw, micro);
      case "elsewhere":
        return Float32Array.from(at(others().counts, feed.index));
      case "perToken":
        return Float32Array.of(1 / others().tokens);
    }
  });
}

/** Factors uniform from 1 - jitter to 1 + jitter. */
function jitterFactors(
  { elements, layer }: Extract<RoutingFeed, { kind: "jitter" }>,
  draw: Draw | undefined,
  micro: number,
): Float32Array {
  if (draw === undefined) throw new Error("this program draws random numbers and was given no seed");
  const { seed, step, jitter } = draw;
  const factors = new Float32Array(elements);
  randomStream(seed, `router jitter ${step} ${micro} ${layer}`).uniforms(factors, 1 - jitter, 1 + jitter);
  return factors;
}

/** a plus b, or minus it. */
const plus = (a: Counts, b: Counts, sign: 1 | -1 = 1): number[][] =>
  a.map((layer, l) => layer.map((count, e) => count + sign * at(at(b, l), e)));

/**
 * What the others have counted, for micro-batch number `micro`. `before` are the counts of the micro-batches up to it
 * (Megatron-Core's running shares); with `all`, of every one of the step (its exact shares).
 */
export function elsewhereOf(
  micro: number,
  tokens: number,
  {
    before,
    all,
    empty,
  }: { readonly before: readonly Counts[]; readonly all: readonly Counts[] | null; readonly empty: Counts },
): Elsewhere {
  const parts = all ?? before;
  const total = parts.reduce<Counts>((sum, part) => plus(sum, part), empty);
  if (all === null) return { counts: total, tokens: tokens * (micro + 1) };
  return { counts: plus(total, at(all, micro), -1), tokens: tokens * all.length };
}

/** Keys of the correction biases, one for each MoE layer. */
export function correctionKeys(spec: DecoderSpec): string[] {
  return spec.layers.flatMap(({ ffn }, layer) =>
    ffn.kind === "moe" ? [slotKey({ part: "routerCorrection", layer })] : [],
  );
}

/**
 * The expert bias after a step: b + rate * sign(mean load - load), load counted over the step's micro-batches (Wang et
 * al. 2024, arXiv 2408.15664, algorithm 1; DeepSeek-V3, section 2.1.2). In float32.
 */
export function movedBias(bias: Float32Array, counts: readonly number[], rate: number): Float32Array {
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
  return bias.map((value, e) => value + rate * Math.sign(mean - at(counts, e)));
}
