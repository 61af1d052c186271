/** Which assumption the answer hangs on: each is moved alone, and the arms are compared again. */
import { at } from "../../base/at.js";
import { compact, percent } from "../../base/format.js";
import { affordable, lossOf, type ArmId } from "./arms.js";
import type { Curves } from "./coefficients.js";
import type { PlanContext, PlanResults } from "./plan-types.js";

interface VariedOutcome {
  readonly label: string;
  readonly best: ArmId;
  /** Loss of the dense model trained on, less that of the best upcycled one: positive is a gain. */
  readonly gain: number;
}

/** One assumption at two other values. */
export interface Variation {
  readonly assumption: string;
  readonly low: VariedOutcome;
  readonly high: VariedOutcome;
  /** One end, or both, has another best arm than the plan. */
  readonly decides: boolean;
}

interface World {
  readonly size: number;
  readonly seen: number;
  readonly curves: Curves;
  /** Factor on the tokens of dense arms and of mixtures. */
  readonly dense: number;
  readonly moe: number;
}

/** Every assumption that can be varied in this plan; empty where the arms cannot be compared. */
export function sensitivityOf(
  { request, size, curves, draws, models }: PlanContext,
  plan: PlanResults,
): readonly Variation[] {
  const { best } = plan;
  if (best === null) return [];
  const arms = plan.arms.filter(({ recipe }) => recipe === null || recipe === plan.main);
  const base: World = { size, seen: request.seen, curves, dense: 1, moe: 1 };
  const outcome = (label: string, world: World): VariedOutcome => {
    const losses = arms.map(({ id, tokens }) =>
      lossOf(id, world.curves, world.size, world.seen, tokens! * (id === "dense" ? world.dense : world.moe)),
    );
    const upcycled = Math.min(...losses.filter((_, i) => at(arms, i).id === "upcycled"));
    return { label, best: at(arms, losses.indexOf(Math.min(...losses))).id, gain: at(losses, 0) - upcycled };
  };
  const kind = at(plan.arms, best.arm).id;
  const vary = (assumption: string, low: [string, Partial<World>], high: [string, Partial<World>]): Variation => {
    const ends = [low, high].map(([label, change]) => outcome(label, { ...base, ...change })) as [
      VariedOutcome,
      VariedOutcome,
    ];
    return { assumption, low: ends[0], high: ends[1], decides: ends.some((end) => end.best !== kind) };
  };
  const bare = size - at(models, 0).params.embedding;
  const timed = affordable({ ...request.budget, tokens: null }, request.gpu, request.gpus, 1) !== null;
  const variations = [
    vary("tokens after the parent (D2)", ["half", { dense: 0.5, moe: 0.5 }], ["double", { dense: 2, moe: 2 }]),
    vary(
      "tokens the parent has seen (D1)",
      ["half", { seen: request.seen / 2 }],
      ["double", { seen: request.seen * 2 }],
    ),
    ...(timed ? [vary("speed of the mixture", ["25 % slower", { moe: 0.75 }], ["25 % faster", { moe: 1.25 }])] : []),
    ...(timed && request.budget.money !== null
      ? [
          vary(
            "price of a GPU hour",
            ["20 % less", { dense: 1.25, moe: 1.25 }],
            ["25 % more", { dense: 0.8, moe: 0.8 }],
          ),
        ]
      : []),
    ...(bare > 0
      ? [
          vary(
            "what N counts",
            [`without embeddings, ${compact(bare)}`, { size: bare }],
            [`with, ${compact(size)}`, {}],
          ),
        ]
      : []),
  ];
  const ends = drawnEnds(draws, (one) => outcome("", { ...base, curves: one }));
  if (ends !== null) {
    const name =
      plan.coefficients.uncertainty === "rounding" ? "digits the coefficients do not print" : "error of the fits";
    const share = best.share === null ? "" : `, same best arm in ${percent(best.share)} of draws`;
    variations.push({
      assumption: `${name}${share}`,
      low: { ...ends[0], label: "worst twentieth" },
      high: { ...ends[1], label: "best twentieth" },
      decides: best.share !== null && best.share < 0.9,
    });
  }
  return variations;
}

/** Outcomes at the 5 % and 95 % points of the gain. */
function drawnEnds(
  draws: readonly Curves[],
  of: (one: Curves) => VariedOutcome,
): [VariedOutcome, VariedOutcome] | null {
  if (draws.length < 20) return null;
  const sorted = draws.map(of).sort((a, b) => a.gain - b.gain);
  return [at(sorted, Math.floor(0.05 * sorted.length)), at(sorted, Math.floor(0.95 * sorted.length))];
}
