/** What a reader of a plan must know before believing it, one sentence each. */
import { compact, fixed, percent } from "../../base/format.js";
import type { PlanResults, RecipePlan } from "./plan-types.js";
import { recipeEvidence } from "./training.js";

/** One thing a reader must know, with its kind for those who look for it. */
export interface Note {
  readonly kind:
    | "clamped"
    | "extrapolation"
    | "second-crossing"
    | "recipe"
    | "uncertainty"
    | "layout"
    | "coefficients"
    | "shape"
    | "time";
  readonly text: string;
}

/** All notes of a plan, those about the coefficients first. */
export function notesOf(plan: PlanResults): readonly Note[] {
  return [
    ...(plan.moeParent ? moeParentNotes : coefficientNotes(plan)),
    ...clampNotes(plan),
    ...rangeNotes(plan),
    ...crossingNotes(plan),
    ...recipeNotes(plan),
    ...layoutNotes(plan),
  ];
}

const moeParentNotes: readonly Note[] = [
  {
    kind: "coefficients",
    text:
      "The parent is an MoE already. No law that we know is about training one on or about multiplying its experts, " +
      "so there are no losses here: parameters, FLOPs, layout, time and cost only.",
  },
];

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
      `Intervals are ${percent(level)} over ${draws} draws: the digits that Table 2 does not print; an error of the ` +
      "fit of 0.2 % for each law, which is our estimate because none is published; the form of the upcycled law " +
      "(with interaction, without, additive); and an error that grows outside of the fitted range.",
    draws:
      `Intervals are ${percent(level)} over ${draws} bootstrap draws of your fits, with the form of the upcycled law ` +
      "(with interaction, without, additive) and an error that grows outside of the fitted range.",
    none: "No intervals: the fits carry no draws. Repeat them with upcycle fit --bootstrap 400 --draws --json.",
  };
  return [...label, { kind: "uncertainty", text: why[coefficients.uncertainty] }];
}

function clampNotes({ arms, validFrom, parentLoss }: PlanResults): Note[] {
  if (parentLoss === null) return [];
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
function rangeNotes({ coefficients: { ranges, published }, size, seen, arms, moeParent }: PlanResults): Note[] {
  if (moeParent) return [];
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
        `With the parent's tokens charged, upcycled overtakes only at ${compact(artefact)} tokens, an artefact of ` +
        "the laws' different limits, far beyond any data: reported as none.",
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

function layoutNotes(plan: PlanResults): Note[] {
  return [...misfitNotes(plan), ...batchNotes(plan), ...fillingNotes(plan), ...timeNotes(plan)];
}

/** Steps that are not as long as asked. */
function batchNotes({ models, batchTokens, gpus }: PlanResults): Note[] {
  const others = models.flatMap(({ name, placing: { best } }) =>
    best === null || best.tokensPerStep === batchTokens ? [] : [`${name} ${compact(best.tokensPerStep, 4)}`],
  );
  if (others.length === 0) return [];
  return [
    {
      kind: "layout",
      text:
        `A step of ${compact(batchTokens, 4)} tokens is no whole number of micro-batches in any layout that fits on ` +
        `${gpus} GPUs: ${others.join(", ")} instead.`,
    },
  ];
}

/** Steps that are so short that GPUs wait for the pipeline. */
function fillingNotes({ models, gpus, batchTokens }: PlanResults): Note[] {
  const waiting = models.flatMap(({ name, placing: { best }, largerBatch }) =>
    best === null || largerBatch === null ? [] : [{ name, seconds: best.seconds, larger: largerBatch }],
  );
  if (waiting.length === 0) return [];
  const shares = waiting.map(({ name, seconds }) => `${percent(seconds.pipeline / seconds.total)} (${name})`);
  const times = waiting.map(({ name, larger }) => `${fixed(larger.time, 2)} (${name})`);
  return [
    {
      kind: "layout",
      text:
        `A step of ${compact(batchTokens, 4)} tokens is short for ${gpus} GPUs: filling the pipeline takes ` +
        `${shares.join(", ")} of it. With --batch ${4 * batchTokens} a token would take ${times.join(", ")} of the ` +
        "time. Whether the model learns as much from a token then is another question.",
    },
  ];
}

/** How far times can be trusted. */
function timeNotes({ calibration: { speed, low, high, count }, arms, level }: PlanResults): Note[] {
  if (arms.every(({ secondsInterval }) => secondsInterval === null)) return [];
  return [
    {
      kind: "time",
      text:
        `Times are those of the speed model over ${fixed(speed, 2)}, the geometric mean of its GPU hours over the ` +
        `published ones of ${count} trainings. One more training takes ${fixed(low, 2)} to ${fixed(high, 2)} times ` +
        `the time shown (${percent(level)}). Pass your own --mfu to be surer.`,
    },
  ];
}

function misfitNotes({ models, gpus, gpu }: PlanResults): Note[] {
  return models.flatMap(({ name, needs, placing }): Note[] => {
    if (placing.best !== null) return [];
    const what = name === "dense" ? "The dense model" : name;
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
