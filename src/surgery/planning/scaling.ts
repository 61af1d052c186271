/**
 * How much the experts' weights are scaled so that the MoE layer's output is as large as the dense FFN's. Letters: E
 * copies of the FFN, each cut into G parts; T experts per token.
 *
 * Output factor s (He et al. 2024, arXiv 2410.07524, equation 2; Megatron-Core `upcycling_utils.py`), for any router:
 * let w be the weight that each of T selected experts gets from equal logits. Each of G parts is selected T/G times,
 * so s = G / (T w).
 *
 * - renormalised weights: w = 1/T, s = G, for any logits.
 * - softmax without renormalising: w = 1/(E*G), s = E*G*G/T.
 * - sigmoid without renormalising: w = 1/2, s = 2G/T.
 *
 * Where s is put, for down(act(gate x) * up x) or down(act(up x)):
 *
 * - `exact`: all of it on down. The output is linear in down, so this is exact. (In a gated FFN sqrt(s) on up and on
 *   down would be exact too, but is irrational for most s.) s itself is a power of two whenever E, G and T are, and
 *   multiplying a float by a power of two changes its exponent only: bit-exact even in bfloat16.
 * - `paper`: s^(1/3) on every matrix of a gated FFN or one with squared ReLU, s^(1/2) on both matrices otherwise, as
 *   Megatron-Core does. It multiplies float32 by float32, so the factor is a float32. This is exact only if the
 *   activation is homogeneous (`isHomogeneous`), which silu and gelu are not (relative FFN error at unit
 *   pre-activations: about 20 % for E8G8T8 topk-softmax, 31 % softmax-topk). It is there for reproduction.
 * - `calibrated`: like `exact`, with a factor that is measured for each layer, because the formula holds for equal
 *   logits only. The selected weights of a token sum to m, so the output is s m / G times the FFN's, and
 *   s = G E[m] / E[m^2] makes the mean squared error smallest.
 * - `none`: weights as they are.
 *
 * Biases in front of the activation take their matrix's factor. The bias behind down is not part of the copies' sum:
 * every selected expert adds it with its weight, so it is divided by their sum T w. `paper` is the exception, because
 * Megatron-Core leaves it as it is (`_process_fc2_bias_param`).
 */
import type { ActivationKind, DecoderSpec, RouterSpec } from "../../model/decoder/types.js";
import { chosenLayers } from "./layers.js";
import type { UpcycleRecipe } from "./recipe.js";

/** What the weights of one layer's experts are multiplied by. */
export interface Factors {
  /** s: what the layer's output must be multiplied by. */
  readonly output: number;
  /** On gate and its bias. */
  readonly gate: number;
  /** On up and its bias. */
  readonly up: number;
  /** On down. */
  readonly down: number;
  /** On the bias behind down. */
  readonly downBias: number;
}

/** What of an FFN decides where factors may go. */
export interface FfnKind {
  readonly gated: boolean;
  readonly activation: ActivationKind;
}

/**
 * Factors for the experts that take an FFN's place behind `router`; `measured` is the layer's factor for `calibrated`
 * scaling.
 */
export function scaleFactors(
  recipe: UpcycleRecipe,
  router: RouterSpec,
  ffn: FfnKind,
  measured: number | null = null,
): Factors {
  const { granularity, topK, scaling } = recipe;
  const weight = selectedWeight(router, recipe.expansion * granularity, topK);
  if (scaling === "paper") return paperFactors(recipe, weight, ffn);
  // Fewer selected experts than parts: none is picked twice, and adding them once each is the least-squares answer for
  // parts that are independent of each other.
  const output = Math.min(topK, granularity) / (topK * weight);
  if (scaling === "none") return { output, gate: 1, up: 1, down: 1, downBias: 1 };
  const downBias = 1 / (topK * weight);
  if (scaling === "calibrated" && measured !== null)
    return { output: measured, gate: 1, up: 1, down: measured, downBias: measured / granularity };
  return { output, gate: 1, up: 1, down: output, downBias };
}

/** Computed in the order in which Megatron-Core does, so that the factors are the same to the last bit. */
function paperFactors(
  { expansion, granularity, topK }: UpcycleRecipe,
  weight: number,
  { gated, activation }: FfnKind,
): Factors {
  const output = paperOutput(expansion * granularity, granularity, topK, weight);
  const each = Math.fround(output ** (gated || activation === "relu2" ? 1 / 3 : 1 / 2));
  return { output, gate: each, up: each, down: each, downBias: 1 };
}

function paperOutput(experts: number, granularity: number, topK: number, weight: number): number {
  if (weight === 1 / topK) return granularity;
  return weight === 1 / experts ? (experts * granularity) / topK : granularity / (topK * weight);
}

/** The factors of every layer in turn; null where a layer keeps its dense FFN. */
export function layerFactors(
  recipe: UpcycleRecipe,
  router: RouterSpec,
  source: DecoderSpec,
): readonly (Factors | null)[] {
  const chosen = chosenLayers(recipe, source.layers.length);
  return source.layers.map(({ ffn }, layer) =>
    chosen[layer] ? scaleFactors(recipe, router, ffn, recipe.calibration?.[layer]) : null,
  );
}

/** The score of each expert while all logits are zero. */
const zeroLogitScore: Readonly<Record<RouterSpec["score"], (experts: number) => number>> = {
  softmax: (experts) => 1 / experts,
  sigmoid: () => 1 / 2,
  sparsemixer: () => 1,
};

/** The weight of each of `topK` selected experts while all logits are zero. */
export function selectedWeight({ score, renormalise, scaling }: RouterSpec, experts: number, topK: number): number {
  const one = zeroLogitScore[score](experts);
  const divisor = renormalise === null ? 1 : Math.max(topK * one + renormalise.plus, renormalise.atLeast);
  // If the divisor is the sum itself, the weight is 1 / T: computed as such, it has no rounding of the score in it.
  return (divisor === topK * one ? 1 / topK : one / divisor) * scaling;
}

/**
 * Whether c on the matrices in front of the activation, and on down, multiplies the output by the power of c that
 * `paper` expects.
 */
export function isHomogeneous({ gated, activation }: FfnKind): boolean {
  return activation === "relu" || (activation === "relu2" && !gated);
}

/** A factor with at most four significant digits, without trailing zeros. */
export function formatFactor(value: number): string {
  return String(Number(value.toPrecision(4)));
}
