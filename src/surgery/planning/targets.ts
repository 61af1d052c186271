/**
 * The MoE families that an upcycled model can be written as. A row says how a family routes, which shared expert it
 * has, and which rewrites bring a decoder into its form; whether the family can then say the decoder is for its config
 * dialect to judge (`choose.ts`), so nothing is stated twice. Rows read in transformers 5.18.0, modeling_<family>.py.
 */
import { softmaxRouter, type RouterOrder, type RouterSpec } from "../../model/decoder/types.js";
import type { TargetFamily, UpcycleRecipe } from "./recipe.js";
import {
  allAttentionBiases,
  foldAttentionScale,
  foldEmbedding,
  foldLogits,
  foldResidual,
  idleSinks,
  plainNormWeights,
  ropePairs,
  untieHead,
  expandPartialRope,
  type Rewrite,
} from "./rewrites.js";

/** What surgery must know of a family to write an upcycled model as one of it. */
export interface Target {
  /** The family's router for each order that it can have. */
  readonly routers: Readonly<Partial<Record<RouterOrder, RouterSpec>>>;
  /**
   * Always-on expert: behind a sigmoid gate, plain, or none. `required`: it cannot be left out, so the plan gives it a
   * zero output.
   */
  readonly sharedExpert: { readonly gated: boolean; readonly required: boolean } | null;
  /** Some layers may stay dense. */
  readonly mixedLayers: boolean;
  /** Experts per token, where the family fixes it. */
  readonly topK?: number;
  /** Rewrites that bring a decoder into the family's form, in the order in which they are applied. */
  readonly rewrites: readonly Rewrite[];
}

/**
 * The router that a recipe gets in a target. A correction bias that the recipe asks for is added to every router;
 * whether the family can say so is for its config dialect to judge. Throws a plain error (a defect of the caller) for a
 * target without the recipe's router order: `choose.ts` refuses such a target beforehand.
 */
export function routerOf(
  { routers }: Target,
  { order, correctionBias }: Pick<UpcycleRecipe, "order" | "correctionBias">,
): RouterSpec {
  const router = routers[order];
  if (router === undefined) throw new Error(`the target has no ${order} router`);
  return correctionBias ? { ...router, correctionBias } : router;
}

const bothSoftmax = { "topk-softmax": softmaxRouter("topk-softmax"), "softmax-topk": softmaxRouter("softmax-topk") };
const onlyRenormalised = { "topk-softmax": softmaxRouter("topk-softmax") };

/** Sigmoid scores with a correction bias, renormalised; the bias starts at zero, so that it changes no choice. */
const sigmoid = (plus: number): RouterSpec => ({
  ...softmaxRouter("topk-softmax"),
  score: "sigmoid",
  renormalise: { plus, atLeast: 0 },
  correctionBias: true,
});

/** DeepSeek's router: renormalised or not. */
const deepseek = { "topk-softmax": sigmoid(1e-20), "softmax-topk": { ...sigmoid(0), renormalise: null } };

/** The sum of softmax weights is at most 1, so a floor of 1 under the divisor leaves them as they are. */
const ernie = (atLeast: number): RouterSpec => ({
  ...softmaxRouter("topk-softmax"),
  renormalise: { plus: 0, atLeast },
  correctionBias: true,
});

/**
 * With jitter 0 only the largest logit is near itself, so the two experts' weights are 1 and 1, whatever the logits.
 */
const sparsemixer: RouterSpec = { ...softmaxRouter("softmax-topk"), score: "sparsemixer" };

const plainShared = { gated: false, required: true };

const halves = ropePairs(false);
const folded = [plainNormWeights, foldEmbedding, foldLogits, foldResidual, foldAttentionScale];

/** All targets. Our own format comes last: it holds everything, but only this project loads it. */
export const targets: Readonly<Record<TargetFamily, Target>> = {
  mixtral: {
    routers: onlyRenormalised,
    sharedExpert: null,
    mixedLayers: false,
    rewrites: [...folded, halves, expandPartialRope],
  },
  qwen3_moe: { routers: bothSoftmax, sharedExpert: null, mixedLayers: true, rewrites: [...folded, halves] },
  qwen2_moe: {
    routers: bothSoftmax,
    sharedExpert: { gated: true, required: true },
    mixedLayers: true,
    rewrites: [...folded, halves],
  },
  granitemoe: {
    routers: onlyRenormalised,
    sharedExpert: null,
    mixedLayers: false,
    rewrites: [plainNormWeights, allAttentionBiases, halves],
  },
  granitemoe_swa: {
    routers: onlyRenormalised,
    sharedExpert: { gated: false, required: false },
    mixedLayers: false,
    rewrites: [plainNormWeights, allAttentionBiases, halves, idleSinks],
  },
  ernie4_5_moe: {
    routers: { "topk-softmax": ernie(1e-12), "softmax-topk": ernie(1) },
    sharedExpert: { gated: false, required: false },
    mixedLayers: true,
    rewrites: [...folded, ropePairs(true)],
  },
  glm4_moe: { routers: deepseek, sharedExpert: plainShared, mixedLayers: true, rewrites: [...folded, halves] },
  dots1: {
    routers: deepseek,
    sharedExpert: plainShared,
    mixedLayers: true,
    rewrites: [...folded, allAttentionBiases, halves],
  },
  solar_open: { routers: deepseek, sharedExpert: plainShared, mixedLayers: false, rewrites: [...folded, halves] },
  hy_v3: {
    routers: { "topk-softmax": sigmoid(1e-20) },
    sharedExpert: plainShared,
    mixedLayers: true,
    rewrites: [...folded, allAttentionBiases, halves],
  },
  // Its shared expert is as wide as an expert, which is what a shared expert that adds nothing gets.
  hunyuan_v1_moe: {
    routers: onlyRenormalised,
    sharedExpert: plainShared,
    mixedLayers: false,
    rewrites: [...folded, allAttentionBiases, halves],
  },
  lfm2_moe: {
    routers: { "topk-softmax": sigmoid(1e-6) },
    sharedExpert: null,
    mixedLayers: true,
    rewrites: [...folded, halves],
  },
  dbrx: { routers: bothSoftmax, sharedExpert: null, mixedLayers: false, rewrites: [...folded, untieHead, halves] },
  phimoe: {
    routers: { "topk-softmax": sparsemixer },
    sharedExpert: null,
    mixedLayers: false,
    topK: 2,
    rewrites: [...folded, allAttentionBiases, halves, expandPartialRope],
  },
  flex_olmo: { routers: bothSoftmax, sharedExpert: null, mixedLayers: false, rewrites: [...folded, halves] },
  mellum: { routers: bothSoftmax, sharedExpert: null, mixedLayers: true, rewrites: [...folded, halves] },
  upcycle: { routers: bothSoftmax, sharedExpert: { gated: false, required: false }, mixedLayers: true, rewrites: [] },
};
