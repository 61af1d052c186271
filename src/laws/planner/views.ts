/**
 * The laws seen from four sides: how D* moves with D1, who wins where, where compute is best spent, and how the gain
 * from further tokens falls with the parent's.
 */
import { at } from "../../base/at.js";
import type { ArmId } from "./arms.js";
import { curvesOf, upcyclingParams } from "./coefficients.js";
import { catchUp } from "./crossing.js";
import { curveDraws } from "./law-draws.js";
import { computeOptimal, type Optimum } from "./optimum.js";
import type { Plan } from "./plan.js";
import type { PlanRequest } from "./plan-types.js";
import { distanceOutside } from "./range.js";
import { aheadOf, type Contender, type Ground } from "./verdict.js";

/** D* (parent sunk) against D1, a line for each N. */
export interface StarView {
  /** D1. */
  readonly seen: readonly number[];
  readonly lines: readonly {
    readonly size: number;
    /** Null: an MoE from scratch never catches up, or is ahead at once. */
    readonly tokens: readonly (number | null)[];
  }[];
}

/**
 * Who is ahead: one arm, the upcycled model and the MoE from scratch alike (`moe`), others that tie, or nobody because
 * no law answers there (`open`).
 */
export type Winner = "dense" | "upcycled" | "scratch" | "moe" | "tie" | "open";

/** Who is ahead at the plan's N, by D1 and D2 or by D1 and compute. */
export interface WinnerView {
  /** `tokens`: all arms get D2. `flops`: the dense model gets as many FLOPs as the MoEs. */
  readonly equal: "tokens" | "flops";
  readonly seen: readonly number[];
  /** D2 of the MoEs. */
  readonly tokens: readonly number[];
  /** FLOP of each D2, as the laws count: 6 r N D2. */
  readonly compute: readonly number[];
  /** By D1, then by D2. */
  readonly cells: readonly (readonly Winner[])[];
}

/** Loss against compute where each compute is spent best, for parents of any size that have seen the plan's D1. */
export interface FrontierView {
  readonly seen: number;
  /** FLOPs per token of the MoE over the dense model's. */
  readonly ratio: number;
  readonly points: readonly (Optimum & { readonly compute: number; readonly inside: boolean })[];
}

/** How fast the upcycled loss falls with D2 (exponent of its data term), against D1; null: the law has no such term. */
export interface ExponentView {
  readonly seen: readonly number[];
  readonly exponent: readonly number[];
}

/** All views of a plan. */
export interface PlanViews {
  readonly ranges: Plan["coefficients"]["ranges"];
  readonly stars: StarView;
  readonly winners: readonly WinnerView[];
  readonly frontier: FrontierView | null;
  readonly exponents: ExponentView | null;
}

const steps = 25;
const mapSteps = 20;
/** The map asks every cell, so it draws fewer. */
const mapDraws = 80;
const usualSizes: readonly number[] = [1e8, 1e9, 7e9, 7e10];

/** The views of a plan; null where its parent is an MoE, of which the laws say nothing. */
export function planViews(request: PlanRequest, plan: Plan): PlanViews | null {
  if (plan.moeParent) return null;
  const { coefficients, seen } = request;
  const { ranges } = coefficients;
  const curves = curvesOf(coefficients.arms);
  const [low, high] = ranges.tokens ?? [1e9, 1e12];
  const seenSteps = logSteps(Math.min(low, seen), Math.max(10 * high, 2 * seen), steps);
  const main = plan.recipes.find(({ name }) => name === plan.main) ?? null;
  return {
    ranges,
    stars: starView(plan, curves, seenSteps),
    winners: winnerViews(request, plan, main?.ratio ?? 1),
    frontier: main === null ? null : frontierView(request, plan, main.ratio),
    exponents: exponentView(request, seenSteps),
  };
}

/** `count` values from `low` to `high`, evenly apart in ln, with four digits. */
function logSteps(low: number, high: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => Number((low * (high / low) ** (i / (count - 1))).toPrecision(4)));
}

function starView(
  { size, coefficients }: Plan,
  curves: ReturnType<typeof curvesOf>,
  seen: readonly number[],
): StarView {
  const largestFitted = coefficients.ranges.tokens?.[1] ?? Infinity;
  const isUsual = usualSizes.some((usual) => Math.abs(Math.log(usual / size)) < 0.2);
  const sizes = isUsual
    ? usualSizes.map((usual) => (Math.abs(Math.log(usual / size)) < 0.2 ? size : usual))
    : [...usualSizes, size];
  return {
    seen,
    lines: sizes
      .toSorted((a, b) => a - b)
      .map((one) => ({
        size: one,
        tokens: seen.map((count) => catchUp(curves, { size: one, seen: count, credit: 0, largestFitted }).tokens),
      })),
  };
}

function winnerViews(request: PlanRequest, plan: Plan, ratio: number): WinnerView[] {
  const { coefficients, level } = request;
  const { size, arms } = plan;
  const curves = curvesOf(coefficients.arms);
  const draws = curveDraws(coefficients, mapDraws, request.seed);
  const [low, high] = coefficients.ranges.tokens ?? [1e9, 1e12];
  const budget = arms.find(({ id, tokens }) => id === "upcycled" && tokens !== null)?.tokens ?? high;
  const seenSteps = logSteps(Math.min(low, request.seen), Math.max(3 * high, 1.5 * request.seen), mapSteps);
  const tokenSteps = logSteps(Math.min(low, budget), Math.max(3 * high, 1.5 * budget), mapSteps);
  return (["tokens", "flops"] as const).map((equal) => ({
    equal,
    seen: seenSteps,
    tokens: tokenSteps,
    compute: tokenSteps.map((tokens) => Number((6 * ratio * size * tokens).toPrecision(4))),
    cells: seenSteps.map((seen) => {
      const ground: Ground = { size, seen, coefficients, curves, draws, level };
      return tokenSteps.map((tokens) => winnerOf(ground, tokens, equal === "flops" ? ratio * tokens : tokens));
    }),
  }));
}

function winnerOf(ground: Ground, tokens: number, denseTokens: number): Winner {
  const contenders: readonly Contender[] = [
    { id: "dense", tokens: denseTokens },
    { id: "upcycled", tokens },
    { id: "scratch", tokens },
  ];
  const ahead: readonly ArmId[] = aheadOf(ground, contenders);
  if (ahead.length === 0) return "open";
  if (ahead.length === 1) return at(ahead, 0);
  return ahead.includes("dense") ? "tie" : "moe";
}

function frontierView({ coefficients, seen }: PlanRequest, { size, arms, main }: Plan, ratio: number): FrontierView {
  const curves = curvesOf(coefficients.arms);
  const tokens = arms.find(
    ({ id, recipe, tokens: some }) => id === "upcycled" && recipe === main && some !== null,
  )?.tokens;
  const middle = 6 * ratio * size * (tokens ?? 1e10);
  return {
    seen,
    ratio,
    points: logSteps(middle / 300, middle * 300, steps).map((compute) => {
      const optimum = computeOptimal(coefficients.arms.upcycled, curves, { compute, seen, ratio });
      const inside = distanceOutside(coefficients.ranges, optimum.size, [seen, optimum.tokens]) === 0;
      return { compute, ...optimum, inside };
    }),
  };
}

function exponentView({ coefficients: { arms } }: PlanRequest, seen: readonly number[]): ExponentView | null {
  const params = upcyclingParams(arms.upcycled, arms.upcycled.params);
  if (params === null) return null;
  const { alpha2 = NaN, alpha3 = NaN } = params;
  return { seen, exponent: seen.map((count) => alpha2 - alpha3 * Math.log(count)) };
}
