/** How much of a parent's function a child has kept: what was measured, and what it means in words. */
import type { Preservation } from "./result.js";

/** A child's logits compared with its parent's on the same tokens. */
export interface FunctionComparison extends Preservation {
  /** Mean over tokens of the Kullback-Leibler divergence of the child's distribution from the parent's, in nats. */
  readonly klDivergence: number;
  /** Fraction of tokens for which both find the same token likeliest. */
  readonly topAgreement: number;
}

/** One layer's FFN of the child against the parent's, norms and factors included, on the parent's own activations. */
export interface LayerError {
  readonly layer: number;
  /** ||child - parent|| / ||parent|| over all tokens. */
  readonly relative: number;
  /** Largest difference over the parent's largest value. */
  readonly largest: number;
}

/** Precision that weights are stored in. */
type StoredPrecision = "F64" | "F32" | "F16" | "BF16";

/** `preservation.json` in a converted model's folder, and what `verify` prints. */
export interface PreservationReport extends FunctionComparison {
  readonly version: 1;
  /** `maxAbsLogitDiff` as a fraction of `maxAbsLogit`. */
  readonly relative: number;
  /** What was measured on, in words. */
  readonly source: string;
  /** Tokens per sequence. */
  readonly sequence: number;
  /** Parts of the models that sequences of this length do not reach (`partsBeyond`). */
  readonly unreached: readonly string[];
  /** Null where the two cannot be compared layer by layer. */
  readonly layers: readonly LayerError[] | null;
  readonly precision: { readonly parent: StoredPrecision; readonly child: StoredPrecision };
  /** Whether weights were streamed from disk instead of held in memory. */
  readonly streamed: boolean;
  readonly verdict: PreservationVerdict;
}

/** What a comparison means. */
export interface PreservationVerdict {
  /**
   * `identical`: to the last bit. `same`: up to rounding of float32 arithmetic. `rounded`: up to what rounding the
   * weights to 16 bits explains. `different`. `damaged`: a logit is not a number.
   */
  readonly kind: "identical" | "same" | "rounded" | "different" | "damaged";
  /** Largest `relative` that is not judged `different`. */
  readonly tolerance: number;
  readonly words: string;
}

/** What float32 arithmetic in another order leaves of exact preservation, as a fraction of the largest logit. */
const arithmeticTolerance = 1e-5;

/**
 * What rounding weights once more can do to logits. bfloat16 keeps 8 bits of the significand, float16 11; in
 * transformers a dense model and its upcycled child, both in bfloat16, differ by up to 1.4 % of the logits' scale, and
 * a dense model from itself in float32 by 1.9 %.
 */
const roundingTolerances: Readonly<Record<StoredPrecision, number>> = {
  F64: arithmeticTolerance,
  F32: arithmeticTolerance,
  F16: 2.5e-3,
  BF16: 2e-2,
};
const names: Readonly<Record<StoredPrecision, string>> = {
  F64: "float64",
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** What a difference of `relative` of the logits' scale means for models stored like this. */
export function judgePreservation(relative: number, precision: PreservationReport["precision"]): PreservationVerdict {
  const [parent, child] = [roundingTolerances[precision.parent], roundingTolerances[precision.child]];
  const coarser = parent > child ? precision.parent : precision.child;
  const tolerance = roundingTolerances[coarser];
  const verdict = (kind: PreservationVerdict["kind"], words: string): PreservationVerdict => ({
    kind,
    tolerance,
    words,
  });
  if (!Number.isFinite(relative))
    return verdict("damaged", "A logit is not a number: one of the models has diverged or is damaged.");
  if (relative === 0) return verdict("identical", "The two models compute the same function, to the last bit.");
  if (relative <= arithmeticTolerance)
    return verdict("same", "The two models compute the same function, up to rounding.");
  if (relative <= tolerance)
    return verdict(
      "rounded",
      `The two models compute the same function, up to what rounding weights to ${names[coarser]} explains.`,
    );
  return verdict(
    "different",
    `The two models do not compute the same function: logits differ by up to ${digits(100 * relative)} % of ` +
      "the largest.",
  );
}

/** What the measurement says nothing about, as a sentence; null: it reached every part. */
export function unreachedWords({
  sequence,
  unreached,
}: Pick<PreservationReport, "sequence" | "unreached">): string | null {
  if (unreached.length === 0) return null;
  return `Sequences of ${sequence} tokens were too short to show: ${unreached.join("; ")}.`;
}

const digits = (value: number): string => String(Number(value.toPrecision(3)));

/** The layer that is furthest from the parent's; null where none was compared. */
export function worstLayer(layers: readonly LayerError[] | null): LayerError | null {
  if (layers === null || layers.length === 0) return null;
  // A NaN is worse than any number.
  return layers.reduce((worst, one) => (Number.isNaN(worst.relative) || one.relative <= worst.relative ? worst : one));
}
