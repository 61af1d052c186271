/** What to train an upcycled model with, and why: from the literature on upcycling, and labelled as such. */
import { compact } from "../../base/format.js";
import type { RecipeShape } from "../../surgery/planning/recipe.js";

/** One piece of advice: what it is about, the value, and why. */
export interface Advice {
  readonly what: string;
  readonly value: string;
  readonly why: string;
}

const nv = "He et al. 2024 (arXiv 2410.07524)";

/**
 * Peak learning rate where the parent's is not known: through the published peaks 3e-4 at 7-8B and 1.5e-4 at 65-70B
 * (Llama 1 to 3) as a power of the size, at most 1e-3.
 */
export function usualPeak(size: number): number {
  const power = Math.log(1.5e-4 / 3e-4) / Math.log(70 / 7.5);
  return Math.min(1e-3, Number((3e-4 * (size / 7.5e9) ** power).toPrecision(2)));
}

/**
 * Tokens per optimizer step: 4M, the best in the literature, or fewer so that there are at least 2,000 steps. A power
 * of two.
 */
export function batchFor(tokens: number): number {
  const most = 2 ** 22;
  return Math.min(most, Math.max(2 ** 16, 2 ** Math.floor(Math.log2(Math.max(1, tokens) / 2000))));
}

interface AdviceRequest {
  readonly size: number;
  readonly tokens: number | null;
  readonly batch: number;
  readonly recipe: RecipeShape;
  /** Highest learning rate of the parent's training, if known. */
  readonly parentPeak: number | null;
}

/** What to train an upcycled model of a dense parent of `size` parameters with. */
export function trainingAdvice({ size, tokens, batch, recipe, parentPeak }: AdviceRequest): readonly Advice[] {
  const peak = parentPeak ?? usualPeak(size);
  const steps = tokens === null ? null : Math.round(tokens / batch);
  const warmup = steps === null ? null : Math.max(10, Math.min(2000, Number((steps / 100).toPrecision(1))));
  return [
    {
      what: "peak learning rate",
      value: peak.toExponential(1).replace("e+", "e"),
      why:
        `the parent's own peak${parentPeak === null ? " (not given; this is a usual one at its size)" : ""}, ` +
        "warmed up again and decayed: re-warming beat a constant low rate, which plateaus with experts that stay " +
        `alike, and did not forget [${nv}, 3.2]`,
    },
    {
      what: "schedule",
      value:
        warmup === null
          ? "warm-up, cosine to peak / 100"
          : `${warmup} steps of warm-up, cosine to ${(peak / 100).toExponential(1)}`,
      why:
        `decay far down: the measured long run went from 3e-4 to a hundredth of the parent's lowest rate [${nv}, ` +
        "3.2]",
    },
    {
      what: "batch",
      value: `${compact(batch)} tokens${steps === null ? "" : `, ${compact(steps)} steps`}`,
      why:
        "each expert sees a part of a batch and the balance is noisy: 4M tokens beat 2M and 32M " +
        `[${nv}]${batch < 2 ** 22 ? "; smaller here so that there are at least 2,000 steps" : ""}`,
    },
    {
      what: "auxiliary loss",
      value: "1e-2",
      why: `1e-2 to 1e-3 were best; none leaves experts dead, much more drowns the loss [${nv}]; z-loss had no effect`,
    },
    {
      what: "router",
      value: "softmax, then top-k, not renormalised",
      why:
        "better than the other order for upcycling " +
        `[${nv}]${recipe.topK === 1 ? "; with top-1 the other order gives the router no gradient" : ""}; a ` +
        "constant factor then fits only a constant router: check with upcycle verify, or keep topk-softmax, " +
        "which starts exactly at the parent",
    },
    ...(recipe.granularity === 1
      ? []
      : [
          {
            what: "experts",
            value: "virtual groups",
            why:
              `G = ${recipe.granularity}: parts of one copy share a router row, so that whole copies are chosen; ` +
              `without, the loss starts high and stays there [${nv}, appendix A]`,
          },
        ]),
  ];
}

/** What was measured about the choice of a recipe, in a sentence each; the laws say nothing about it. */
export const recipeEvidence: readonly string[] = [
  `top-2 of 8 beat top-1 at 15B (training loss 1.358 and 1.380) for more FLOPs per token [${nv}, 3.6, 3.7]`,
  `at equal FLOPs 64 experts beat 8; 128 and 256 brought little [${nv}, 3.6, 3.7]`,
  `granularity helped most with few tokens (0.1T), little at 1T [${nv}, 3.6, 3.7]`,
  `15B, 1T tokens: validation loss 1.377 continued dense, 1.320 E8G8T8, 1.306 E8G1T2 [${nv}]`,
];
