/**
 * Mixture-of-experts keys that several families share: counts, which layers are sparse, softmax routers. The router
 * order of Qwen2-MoE, Qwen3-MoE, OLMoE and Mellum is decided here, by `readSoftmaxRouter`; what the order does to the
 * weights is in the decoder description's `RouterSpec` (`../types.ts`).
 */
import { inputError } from "../../../base/errors.js";
import { plainExperts, routerOrder, softmaxRouter } from "../types.js";
import { mostExperts } from "../bounds.js";
import type { DecoderSpec, DenseFfn, Ffn, MoeFfn, Rope, RouterOrder, RouterSpec } from "../types.js";
import type { AttentionOptions, Common } from "./common.js";
import { attentionOf, refuse } from "./common.js";
import type { ConfigReader } from "./reader.js";
import { isString } from "./reader.js";

/**
 * The family's own key and `num_local_experts` are two spellings of one number. Without a fallback one must be there.
 */
export function readExpertCount(config: ConfigReader, fallback: number | undefined, own = "num_experts"): number {
  const keys = [own, "num_local_experts"].filter((key) => config.has(key));
  const counts = keys.map((key) => config.int(key, undefined, { max: mostExperts }));
  if (counts.length === 2 && counts[0] !== counts[1]) {
    throw inputError(`${own} is ${counts[0]} but num_local_experts is ${counts[1]}`, { where: config.where });
  }
  return counts[0] ?? config.int(own, fallback, { max: mostExperts });
}

/** Experts per token (T). Throws inputError where there are fewer experts. */
export function readTopK(
  config: ConfigReader,
  experts: number,
  fallback: number | undefined,
  key = "num_experts_per_tok",
): number {
  const topK = config.int(key, fallback);
  if (topK > experts) throw config.fail(key, `at most the number of experts (${experts})`);
  return topK;
}

/**
 * Reads the router order: `norm_topk_prob` true renormalises the chosen experts' probabilities (top-k then softmax),
 * false leaves them as they are (softmax then top-k). `fallback` is the class default, which is false for Qwen.
 */
export function readSoftmaxRouter(config: ConfigReader, fallback = false): RouterSpec {
  return softmaxRouter(config.bool("norm_topk_prob", fallback) ? "topk-softmax" : "softmax-topk");
}

/** The order of a plain softmax router. Throws inputError if the spec's router is anything else. */
export function requireSoftmaxRouter(spec: DecoderSpec, { router }: MoeFfn): RouterOrder {
  const order = routerOrder(router);
  if (JSON.stringify(router) !== JSON.stringify(softmaxRouter(order)))
    throw refuse(spec, `a router other than ${order} over plain logits`);
  return order;
}

/** Throws inputError if experts are not like a Llama-like FFN: gated, without biases, nothing clamped. */
export function requirePlainExperts(spec: DecoderSpec, moe: MoeFfn): void {
  if (!moe.gated) throw refuse(spec, "experts without a gate");
  if (moe.bias) throw refuse(spec, "experts with biases");
  if (moe.clampedGlu !== null) throw refuse(spec, "a clamped gated unit");
}

/** DeepSeek's rule: the first `first_k_dense_replace` layers are dense. Throws inputError if all are. */
export function readLeadingDense(config: ConfigReader, layerCount: number, fallback: number): boolean[] {
  const dense = config.int("first_k_dense_replace", fallback, { min: 0 });
  if (dense >= layerCount)
    throw config.fail("first_k_dense_replace", `fewer dense layers than the ${layerCount} there are`);
  return Array.from({ length: layerCount }, (_, layer) => layer >= dense);
}

/** Throws inputError if a dense layer follows a sparse one. */
export function writeLeadingDense(spec: DecoderSpec): Record<string, unknown> {
  const sparse = spec.layers.map(({ ffn }) => ffn.kind === "moe");
  const first = sparse.indexOf(true);
  if (sparse.lastIndexOf(false) > first) throw refuse(spec, "a dense layer behind a mixture-of-experts layer");
  return { first_k_dense_replace: first };
}

/** One of "dense" and "sparse" for each layer; if absent, `isSparse(layer)`. Throws inputError if all are dense. */
export function readMlpLayerTypes(
  config: ConfigReader,
  layerCount: number,
  isSparse: (layer: number) => boolean,
): boolean[] {
  const types = config.list("mlp_layer_types", isString, 'a list of "dense" and "sparse", one per layer');
  const sparse =
    types?.map((type) => type === "sparse") ?? Array.from({ length: layerCount }, (_, layer) => isSparse(layer));
  const expected = `"dense" or "sparse" for each of ${layerCount} layers, at least one of them "sparse"`;
  if (
    types?.some((type) => type !== "sparse" && type !== "dense") ||
    sparse.length !== layerCount ||
    !sparse.includes(true)
  ) {
    throw config.fail("mlp_layer_types", expected);
  }
  return sparse;
}

/** The key that `readMlpLayerTypes` reads. */
export function writeMlpLayerTypes(spec: DecoderSpec): Record<string, unknown> {
  return { mlp_layer_types: spec.layers.map(({ ffn }) => (ffn.kind === "moe" ? "sparse" : "dense")) };
}

/** Inner size of the dense layers; without dense layers nobody reads it. */
export function readDenseFfnDim(config: ConfigReader, sparse: readonly boolean[]): Pick<DenseFfn, "ffnDim"> {
  return { ffnDim: sparse.includes(false) ? config.int("intermediate_size") : 1 };
}

/** Coefficient of the load-balancing loss. */
export function readAuxLossCoef(config: ConfigReader, fallback = 0.001): number {
  return config.positive("router_aux_loss_coef", fallback, { zero: true });
}

/**
 * Assembles the spec of a model whose layers are `moe`, or `dense` where `sparse[layer]` is false; without `ropes`
 * every layer has the common one.
 */
export function moeSpec(
  { layerCount, rope, activation, ...common }: Common,
  attn: AttentionOptions,
  ffns: {
    readonly moe: Omit<MoeFfn, "activation">;
    /** May be null where no layer is dense. */
    readonly dense: Pick<DenseFfn, "ffnDim"> | null;
    readonly sparse: readonly boolean[];
  },
  windows: readonly (number | null)[],
  auxLossCoef: number,
  ropes?: readonly Rope[],
): DecoderSpec {
  const { moe, dense, sparse } = ffns;
  const ffnOf = (layer: number): Ffn => {
    if (sparse[layer]) return { ...structuredClone(moe), activation };
    if (dense === null) throw new RangeError(`layer ${layer} is dense, but no dense FFN is described`);
    return { kind: "dense", ffnDim: dense.ffnDim, bias: false, activation, gated: true };
  };
  const layers = Array.from({ length: layerCount }, (_, layer) => ({
    window: windows[layer] ?? null,
    rope: ropes?.[layer] ?? rope,
    ffn: ffnOf(layer),
  }));
  return { ...common, attn: attentionOf(common, attn), layers, auxLossCoef };
}

/**
 * The one kind of MoE layer and the one kind of dense layer (or null). Throws inputError if layers of a kind differ.
 */
export function uniformFfns(spec: DecoderSpec): { moe: MoeFfn; dense: DenseFfn | null } {
  const ffns = spec.layers.map(({ ffn }) => ffn);
  const moes = ffns.filter((ffn) => ffn.kind === "moe");
  const denses = ffns.filter((ffn) => ffn.kind === "dense");
  const [moe] = moes;
  if (moe === undefined) throw refuse(spec, "no mixture-of-experts layer");
  if (!moes.every((other) => JSON.stringify(other) === JSON.stringify({ ...other, ...moe })))
    throw refuse(spec, "experts that differ between layers");
  if (moe.topK > moe.experts) throw refuse(spec, `${moe.topK} experts per token out of ${moe.experts}`);
  const dense = denses[0] ?? null;
  if (new Set(denses.map(({ ffnDim }) => ffnDim)).size > 1) throw refuse(spec, "dense FFNs that differ between layers");
  if (denses.some((ffn) => ffn.bias)) throw refuse(spec, "FFN biases");
  return { moe, dense };
}

/** The one kind of MoE layer of a family that has no other. Throws inputError if layers differ or one is dense. */
export function everyLayerMoe(spec: DecoderSpec): MoeFfn {
  const { moe, dense } = uniformFfns(spec);
  if (dense !== null) throw refuse(spec, "dense layers beside mixture-of-experts layers");
  return moe;
}

/** What a class with small experts assumes. */
export interface SmallExpertDefaults {
  readonly experts: number;
  readonly topK: number;
  /** Hidden size of one expert. */
  readonly ffnDim: number;
  readonly renormalised: boolean;
}

/**
 * Experts with a size of their own (`moe_intermediate_size`) and a softmax router, without a shared expert. Throws
 * inputError for keys that are wrong.
 */
export function readSmallExperts(config: ConfigReader, defaults: SmallExpertDefaults): Omit<MoeFfn, "activation"> {
  const experts = readExpertCount(config, defaults.experts);
  return {
    kind: "moe",
    ffnDim: config.int("moe_intermediate_size", defaults.ffnDim),
    experts,
    topK: readTopK(config, experts, defaults.topK),
    router: readSoftmaxRouter(config, defaults.renormalised),
    ...plainExperts,
    shared: null,
  };
}

/** The keys that `readSmallExperts` reads. Throws inputError for experts of another kind. */
export function writeSmallExperts(spec: DecoderSpec): Record<string, unknown> {
  const { moe, dense } = uniformFfns(spec);
  requirePlainExperts(spec, moe);
  return {
    num_experts: moe.experts,
    num_experts_per_tok: moe.topK,
    moe_intermediate_size: moe.ffnDim,
    // Without dense layers nobody reads it, but the class wants a number: the active width, as Qwen's own files have
    // it.
    intermediate_size: dense?.ffnDim ?? moe.ffnDim * moe.topK,
    norm_topk_prob: requireSoftmaxRouter(spec, moe) === "topk-softmax",
    output_router_logits: false,
    router_aux_loss_coef: spec.auxLossCoef,
  };
}
