/** What a reader of a plan must know before believing it, one sentence each. */
import { compact, fixed, percent } from "../../base/format.js";
import type { PlanResults, RecipePlan } from "./plan-types.js";
import { recipeEvidence } from "./training.js";

/** One thing a reader must know, with its kind for those who look for it. */
export interface Note {
  readonly kind:
    "clamped" | "extrapolation" | "second-crossing" | "recipe" | "uncertainty" | "layout" | "coefficients" | "shape";
  readonly text: string;
}

/** All notes of a plan, those about the coefficients first. */
export function notesOf(plan: PlanResults): readonly Note[] {
  return [
    ...coefficientNotes(plan),
    ...clampNotes(plan),
    ...rangeNotes(plan),
    ...crossingNotes(plan),
    ...recipeNotes(plan),
    ...layoutNotes(plan),
  ];
}

function coefficientNotes({ coefficients, level, draws }: PlanResults): Note[] {
  const label: Note[] = coefficients.published
    ? [
        {
          kind: "coefficients",
          text:
            `${coefficients.source}. Another tokenizer or corpus moves every loss; differences between arms ` +
            "carry over better than the losses themselves.",
        },
      ]
    : [];
  const why: Record<PlanResults["coefficients"]["uncertainty"], string> = {
    rounding:
      `Intervals are ${percent(level)} over ${draws} draws of the digits that Table 2 does not print. The error ` +
      "of its fit is not published and comes on top.",
    draws:
      `Intervals are ${percent(level)} over ${draws} bootstrap draws of your fits. They hold where the law does; ` +
      "extrapolation comes on top.",
    none: "No intervals: the fits carry no draws. Repeat them with upcycle fit --bootstrap 400 --draws --json.",
  };
  return [...label, { kind: "uncertainty", text: why[coefficients.uncertainty] }];
}

function clampNotes({ arms, validFrom, parentLoss }: PlanResults): Note[] {
  const clamped = arms.flatMap(({ tokens, unclamped }) =>
    tokens === null || unclamped === null ? [] : [{ tokens, unclamped }],
  )[0];
  if (clamped === undefined) return [];
  const from =
    validFrom === null ? "It never passes the parent." : `It passes the parent at ${compact(validFrom)} tokens.`;
  return [
    {
      kind: "clamped",
      text:
        `At ${compact(clamped.tokens)} further tokens the upcycled law says ${fixed(clamped.unclamped, 4)}, ` +
        `worse than the parent itself (${fixed(parentLoss, 4)}): it does not hold there, and the parent's loss ` +
        `stands instead. ${from}`,
    },
  ];
}

/** Sizes and token counts beyond those that the laws were fitted on. */
function rangeNotes({ coefficients: { ranges, published }, size, seen, arms }: PlanResults): Note[] {
  const notes: Note[] = [];
  const whose = published ? "The published fit used" : "Your fit used";
  const outside = (what: string, value: number, range: readonly [number, number] | null, unit: string): void => {
    if (range === null || (value >= range[0] / 1.05 && value <= range[1] * 1.05)) return;
    const factor = value > range[1] ? value / range[1] : range[0] / value;
    notes.push({
      kind: "extrapolation",
      text:
        `${what} = ${compact(value)} is ${compact(factor, 2)} times ` +
        `${value > range[1] ? "beyond the largest" : "below the smallest"} of the fit. ${whose} ` +
        `${compact(range[0])} to ${compact(range[1])} ${unit}${published ? " (as far as known)" : ""}.`,
    });
  };
  outside("N", size, ranges.size, "parameters");
  outside("D1", seen, ranges.tokens, "tokens");
  const tokens = arms.flatMap((arm) => (arm.tokens === null ? [] : [arm.tokens]));
  if (tokens.length > 0) {
    outside("D2", Math.max(...tokens), ranges.tokens, "tokens");
    if (Math.min(...tokens) < (ranges.tokens?.[0] ?? 0)) outside("D2", Math.min(...tokens), ranges.tokens, "tokens");
  }
  if (ranges.size === null && ranges.tokens === null)
    notes.push({
      kind: "extrapolation",
      text: "The fits do not say over which sizes and tokens they were made, so extrapolation cannot be seen.",
    });
  return notes;
}

/** What is odd about D* of the main recipe, or about a budget beyond it. */
function crossingNotes(plan: PlanResults): Note[] {
  const main = plan.recipes.find(({ name }) => name === plan.main);
  if (main === undefined) return [];
  return [...artefactNotes(main), ...(main.sunk.tokens === null ? [] : catchUpNotes(plan, main.sunk.tokens))];
}

/** Crossings that are found but not believed. */
function artefactNotes({ sunk, chargedTokens, chargedFlops }: RecipePlan): Note[] {
  const notes: Note[] = [];
  if (sunk.outcome === "at" && sunk.artefact !== null) {
    notes.push({
      kind: "second-crossing",
      text:
        `The curves cross a second time at ${compact(sunk.artefact)} tokens, where upcycled would ` +
        "overtake: an artefact of the laws' different limits, far beyond any data. D* is the first crossing.",
    });
  }
  const [artefact] = [chargedTokens, chargedFlops].flatMap((charged) =>
    charged.outcome === "never-ahead" && charged.artefact !== null ? [charged.artefact] : [],
  );
  if (artefact !== undefined) {
    notes.push({
      kind: "second-crossing",
      text:
        `With the parent's tokens charged, upcycled overtakes only at ${compact(artefact)} tokens, the ` +
        "same artefact: reported as none.",
    });
  }
  return notes;
}

/** What limits how far D*, `star` tokens, can be believed, and whether the budget is beyond it. */
function catchUpNotes({ arms, main, validFrom, coefficients }: PlanResults, star: number): Note[] {
  const notes: Note[] = [];
  const limit = coefficients.ranges.tokens?.[1];
  if (limit !== undefined && star > limit)
    notes.push({
      kind: "extrapolation",
      text: `D* = ${compact(star)} lies beyond the fitted tokens (${compact(limit)}).`,
    });
  if (validFrom !== null && star < validFrom) {
    notes.push({
      kind: "clamped",
      text:
        `D* = ${compact(star)} lies below ${compact(validFrom)}, where the upcycled law starts to hold: scratch ` +
        "catches up with the law, but then both are still worse than the parent.",
    });
  }
  const scratch = arms.find(({ id, recipe }) => id === "scratch" && recipe === main);
  if (scratch?.tokens != null && scratch.tokens > star) {
    notes.push({
      kind: "second-crossing",
      text:
        `The budget of ${compact(scratch.tokens)} tokens is past D* = ${compact(star)}: by the laws an MoE ` +
        "from scratch has caught up.",
    });
  }
  return notes;
}

function recipeNotes({ recipes, coefficients }: PlanResults): Note[] {
  const others = recipes.filter(({ name }) => name !== coefficients.recipe).map(({ name }) => name);
  if (others.length === 0) return [];
  const about =
    coefficients.recipe === null
      ? "MoEs of a recipe that the fit does not name"
      : `${coefficients.recipe} (${coefficients.recipe === "E8G1T2" ? "8 experts, 2 chosen" : "your fit's"})`;
  return [
    {
      kind: "recipe",
      text:
        `The laws are of ${about}; for ${others.join(", ")} the same curve is shown, marked ~, so losses do not ` +
        `rank recipes; only cost and memory do. Measured elsewhere: ${recipeEvidence.join("; ")}.`,
    },
  ];
}

function layoutNotes({ models, gpus, gpu }: PlanResults): Note[] {
  return models.flatMap(({ recipe, needs, placing }): Note[] => {
    if (placing.best !== null) return [];
    const what = recipe === null ? "The dense model" : `E${recipe.expansion}G${recipe.granularity}T${recipe.topK}`;
    const least =
      `needs at least ${compact(placing.leastBytes / 1e9)} GB per GPU on ${gpus} ${gpu.title}, which ` +
      `${gpus === 1 ? "has" : "have"} ${compact(gpu.memory / 1e9)} GB`;
    return [
      {
        kind: "layout",
        text:
          `${what} does not fit: it ${placing.tried === 0 ? `cannot be laid out on ${gpus} GPUs` : least}. ` +
          `${needs === null ? "No number of them up to 65,536 suffices." : `It fits on ${needs}.`}`,
      },
    ];
  });
}
