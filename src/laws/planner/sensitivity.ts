/** Which assumption the answer hangs on: each is moved alone, and the arms are compared again. */
import { at } from "../../base/at.js";
import { compact, percent } from "../../base/format.js";
import { affordable, lossOf, type ArmId } from "./arms.js";
import type { Curves } from "./coefficients.js";
import { saturatingReuse } from "./backtest.js";
import { withForm } from "./law-draws.js";
import type { PlanContext, PlanResults } from "./plan-types.js";

/** What the arms reach at one end of a variation. */
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
  /** At one end, or at both, another arm is best than the one that is ahead in the plan, or those that tie. */
  readonly decides: boolean;
}

/** What a variation may change. */
interface World {
  readonly size: number;
  readonly seen: number;
  readonly curves: Curves;
  /** Factor on the tokens of dense arms and of MoEs. */
  readonly dense: number;
  readonly moe: number;
}

/** One end of a variation: what it is called, and what it changes. */
type End = readonly [label: string, change: Partial<World>];

/** An arm with the tokens that the budget pays for. */
interface PaidArm {
  readonly id: ArmId;
  readonly tokens: number;
}

/** Every assumption that can be varied in this plan; empty where the arms cannot be compared. */
export function sensitivityOf(context: PlanContext, plan: PlanResults): readonly Variation[] {
  const { best, answer } = plan;
  // Where no law answers there is no choice that could hang on anything.
  if (best === null || answer === null || answer.verdict === "open") return [];
  const { request, size, curves, draws } = context;
  const arms = plan.arms.flatMap(({ id, tokens, recipe }): PaidArm[] =>
    tokens === null || (recipe !== null && recipe !== plan.main) ? [] : [{ id, tokens }],
  );
  const base: World = { size, seen: request.seen, curves, dense: 1, moe: 1 };
  const variations = assumptionsOf(context).map(([assumption, lowEnd, highEnd]): Variation => {
    const low = outcomeOf(arms, lowEnd[0], { ...base, ...lowEnd[1] });
    const high = outcomeOf(arms, highEnd[0], { ...base, ...highEnd[1] });
    return { assumption, low, high, decides: [low, high].some(({ best: other }) => !answer.ahead.includes(other)) };
  });
  const ends = drawnEnds(draws, (drawn) => outcomeOf(arms, "", { ...base, curves: drawn }));
  if (ends === null) return variations;
  const name = plan.coefficients.uncertainty === "rounding" ? "errors of the laws" : "errors of the fits";
  const share = best.share === null ? "" : `, same best arm in ${percent(best.share)} of draws`;
  return [
    ...variations,
    {
      assumption: `${name}${share}`,
      low: { ...ends[0], label: "worst twentieth" },
      high: { ...ends[1], label: "best twentieth" },
      decides: ends.some(({ best: drawn }) => !answer.ahead.includes(drawn)),
    },
  ];
}

/** The assumptions that the request leaves open, each with two ends. */
function assumptionsOf({
  request,
  size,
  curves,
  models,
}: PlanContext): readonly [assumption: string, low: End, high: End][] {
  const { budget, seen, gpu, gpus, coefficients } = request;
  const withoutEmbeddings = size - at(models, 0).params.embedding;
  // Speed and price matter where the budget is not in tokens alone.
  const isTimed = affordable({ ...budget, tokens: null }, gpu, gpus, 1) !== null;
  const assumptions: [string, End, End][] = [
    ["tokens after the parent (D2)", ["half", { dense: 0.5, moe: 0.5 }], ["double", { dense: 2, moe: 2 }]],
    ["tokens the parent has seen (D1)", ["half", { seen: seen / 2 }], ["double", { seen: seen * 2 }]],
  ];
  if (isTimed) assumptions.push(["speed of the MoE", ["25 % slower", { moe: 0.75 }], ["25 % faster", { moe: 1.25 }]]);
  if (isTimed && budget.money !== null) {
    const cheaper: End = ["20 % less", { dense: 1.25, moe: 1.25 }];
    assumptions.push(["price of a GPU hour", cheaper, ["25 % more", { dense: 0.8, moe: 0.8 }]]);
  }
  if (withoutEmbeddings > 0) {
    const without: End = [`without embeddings, ${compact(withoutEmbeddings)}`, { size: withoutEmbeddings }];
    assumptions.push(["what N counts", without, [`with, ${compact(size)}`, {}]]);
  }
  const saturating = saturatingReuse(coefficients, curves);
  if (saturating !== null) {
    const form = (name: "no-interaction" | "additive"): Partial<World> => ({
      curves: withForm(curves, coefficients, coefficients.arms.upcycled.params, name),
    });
    assumptions.push(
      ["gains of a dense model on D1", ["as D1 + D2", {}], ["saturate", { curves: saturating }]],
      ["form of the upcycled law", ["no interaction", form("no-interaction")], ["additive", form("additive")]],
    );
  }
  return assumptions;
}

/** Which arm is best in a world, and what upcycling gains there. The first arm is the dense one. */
function outcomeOf(arms: readonly PaidArm[], label: string, { curves, size, seen, dense, moe }: World): VariedOutcome {
  const losses = arms.map(({ id, tokens }) => lossOf(id, curves, size, seen, tokens * (id === "dense" ? dense : moe)));
  const upcycled = Math.min(...losses.filter((_, i) => at(arms, i).id === "upcycled"));
  return { label, best: at(arms, losses.indexOf(Math.min(...losses))).id, gain: at(losses, 0) - upcycled };
}

/** Outcomes at the 5 % and 95 % points of the gain. */
function drawnEnds(
  draws: readonly Curves[],
  outcome: (drawn: Curves) => VariedOutcome,
): [VariedOutcome, VariedOutcome] | null {
  if (draws.length < 20) return null;
  const byGain = draws.map(outcome).sort((a, b) => a.gain - b.gain);
  return [at(byGain, Math.floor(0.05 * byGain.length)), at(byGain, Math.floor(0.95 * byGain.length))];
}
