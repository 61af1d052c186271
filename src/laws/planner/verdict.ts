/**
 * Which of two models has the lower loss, how surely, and on what that rests. Inside of the fitted range a law answers.
 * Where the law of the upcycled model does not hold (it lies above its own parent) or the place is far outside, no
 * verdict is drawn: published comparisons give an interval instead.
 */
import { at } from "../../base/at.js";
import { quantile } from "../fitting/distributions.js";
import { lossOf, type ArmId } from "./arms.js";
import type { Coefficients, Curves } from "./coefficients.js";
import { narrowing, publishedDifference, type Narrowing, type PublishedDifference } from "./evidence.js";
import { beyond, distanceOutside, farOutside, nearestInside } from "./range.js";

/** Ends of a confidence interval. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** The middle `level` of the values, such as 0.9; null of fewer than two finite ones. */
export function intervalOf(values: readonly number[], level: number): Interval | null {
  const ascending = Float64Array.from(values.filter(Number.isFinite)).sort();
  if (ascending.length < 2) return null;
  return { low: quantile(ascending, (1 - level) / 2), high: quantile(ascending, (1 + level) / 2) };
}

/** One model: which, and its further tokens D2. */
export interface Contender {
  readonly id: ArmId;
  readonly tokens: number;
}

/** A number that lies outside of what the laws were fitted on. */
export interface Outside {
  readonly what: "N" | "D1" | "D2" | "D1 + D2";
  readonly value: number;
  /** How many times it is beyond the end of the range. */
  readonly factor: number;
  readonly above: boolean;
}

/** How the loss of one model compares with that of another. */
export interface Comparison {
  readonly one: Contender;
  readonly other: Contender;
  /** What the difference and its interval rest on. */
  readonly basis: "law" | "published";
  /** Loss of `one` less loss of `other`, in nats per token: by the law, or the middle of the published interval. */
  readonly difference: number;
  readonly interval: Interval | null;
  /** Loss of `other` by its law, to which shares refer. */
  readonly loss: number;
  /**
   * `lower`, `higher`: the interval leaves out 0. `tie`: it does not, and the difference is no more than two runs of
   * one recipe differ by. `open`: nothing can be said.
   */
  readonly verdict: "lower" | "higher" | "tie" | "open";
  /** Null where the law answers. */
  readonly published: PublishedDifference | null;
}

/** What comparisons are computed from. */
export interface Ground {
  readonly size: number;
  /** D1. */
  readonly seen: number;
  readonly coefficients: Coefficients;
  readonly curves: Curves;
  readonly draws: readonly Curves[];
  readonly level: number;
}

/** Two runs of one recipe differ by about this share of their loss; a smaller difference is a tie. */
const runToRun = 0.0025;

/** Everything about these contenders that lies outside of the fitted range. */
export function outsideOf({ size, seen, coefficients: { ranges } }: Ground, all: readonly Contender[]): Outside[] {
  const of = (what: Outside["what"], value: number, range: readonly [number, number] | null): Outside[] => {
    const distance = beyond(value, range);
    if (distance === 0 || range === null) return [];
    return [{ what, value, factor: Math.exp(distance), above: value > range[1] }];
  };
  const further = [...new Set(all.map(({ tokens }) => tokens))];
  const dense = all.filter(({ id, tokens }) => id === "dense" && tokens > 0).map(({ tokens }) => seen + tokens);
  return [
    ...of("N", size, ranges.size),
    ...of("D1", seen, ranges.tokens),
    ...further.filter((tokens) => tokens > 0).flatMap((tokens) => of("D2", tokens, ranges.tokens)),
    // D1 + D2 is named only where neither of the two is outside by itself.
    ...dense
      .filter((total) => beyond(seen, ranges.tokens) === 0 && beyond(total - seen, ranges.tokens) === 0)
      .flatMap((total) => of("D1 + D2", total, ranges.tokens)),
  ];
}

/** The tokens whose range matters to a contender: all those that its law is asked at. */
function tokensOf({ seen }: Ground, { id, tokens }: Contender): readonly number[] {
  if (id === "dense") return [seen + tokens];
  return id === "scratch" ? [tokens] : [seen, tokens];
}

/** The upcycled law lies above the parent here, so that it does not hold. */
export function isClamped({ size, seen, curves }: Ground, { id, tokens }: Contender): boolean {
  return id === "upcycled" && curves.upcycled(size, seen, tokens) > curves.dense(size, seen);
}

/** Distance of the further out of two contenders, as ln of a factor. */
function distanceOf(ground: Ground, pair: readonly Contender[]): number {
  const { ranges } = ground.coefficients;
  return Math.max(...pair.map((contender) => distanceOutside(ranges, ground.size, tokensOf(ground, contender))));
}

/** A law may be asked for a verdict about these two. */
export function lawAnswers(ground: Ground, pair: readonly Contender[]): boolean {
  return !pair.some((contender) => isClamped(ground, contender)) && distanceOf(ground, pair) <= farOutside + 1e-9;
}

/**
 * Compares `one` with `other`. `without` leaves one group of published comparisons out, to test the answer against it.
 */
export function compare(ground: Ground, one: Contender, other: Contender, without?: string): Comparison {
  const { size, seen, curves, draws, level } = ground;
  const lossIn = (drawn: Curves, { id, tokens }: Contender): number => lossOf(id, drawn, size, seen, tokens);
  const loss = lossIn(curves, other);
  if (lawAnswers(ground, [one, other])) {
    const difference = lossIn(curves, one) - loss;
    const interval = intervalOf(
      draws.map((drawn) => lossIn(drawn, one) - lossIn(drawn, other)),
      level,
    );
    return {
      one,
      other,
      basis: "law",
      difference,
      interval,
      loss,
      verdict: verdictOf(difference, interval, loss),
      published: null,
    };
  }
  if (one.id !== "upcycled" || other.id === "upcycled") return unpublished(ground, one, other);
  const published = publishedDifference({
    against: other.id,
    place: { size, seen, tokens: one.tokens },
    law: lawInside(ground, one.tokens, other.id),
    level,
    ...(without !== undefined && { without }),
  });
  // Published comparisons are after equal tokens; what the dense model gains from more of its own is the dense law's.
  const shift = lossIn(curves, { ...other, tokens: one.tokens }) - loss;
  const nats = (share: number): number => share * loss + shift;
  return {
    one,
    other,
    basis: "published",
    difference: nats(published.mean),
    interval: { low: nats(published.low), high: nats(published.high) },
    loss,
    verdict: "open",
    published,
  };
}

/** The law at the nearest place inside of its range, as a share of the other's loss, and the distance to there. */
function lawInside(
  { size, seen, coefficients: { ranges }, curves }: Ground,
  tokens: number,
  against: "dense" | "scratch",
): { difference: number; distance: number } {
  const [n, d1, d2] = [
    nearestInside(size, ranges.size),
    nearestInside(seen, ranges.tokens),
    nearestInside(tokens, ranges.tokens),
  ];
  const other = lossOf(against, curves, n, d1, d2);
  return {
    difference: lossOf("upcycled", curves, n, d1, d2) / other - 1,
    distance: distanceOutside(ranges, size, [seen, tokens]),
  };
}

/** No published comparison is of these two: the draws alone, and no verdict. */
function unpublished(ground: Ground, one: Contender, other: Contender): Comparison {
  const { size, seen, curves, draws, level } = ground;
  const differenceIn = (drawn: Curves): number =>
    lossOf(one.id, drawn, size, seen, one.tokens) - lossOf(other.id, drawn, size, seen, other.tokens);
  return {
    one,
    other,
    basis: "law",
    difference: differenceIn(curves),
    interval: intervalOf(draws.map(differenceIn), level),
    loss: lossOf(other.id, curves, size, seen, other.tokens),
    verdict: "open",
    published: null,
  };
}

function verdictOf(difference: number, interval: Interval | null, loss: number): Comparison["verdict"] {
  const isSmall = Math.abs(difference) <= runToRun * loss;
  if (interval === null) return isSmall ? "tie" : difference < 0 ? "lower" : "higher";
  if (interval.high < 0) return "lower";
  if (interval.low > 0) return "higher";
  return isSmall ? "tie" : "open";
}

/** What a plan answers: which use of the budget gets furthest, and the comparisons behind it. */
export interface Answer {
  /** `open`: no verdict. `tie`: the arms in `ahead` are too close to be told apart. */
  readonly verdict: ArmId | "tie" | "open";
  /** The arm that is ahead, or those that tie; empty without a verdict. */
  readonly ahead: readonly ArmId[];
  /** Upcycled against the dense model, after equal tokens and after equal FLOPs. */
  readonly equalTokens: Comparison;
  readonly equalFlops: Comparison;
  /** Upcycled against the MoE from scratch, after equal tokens, which for these two are equal FLOPs. */
  readonly scratch: Comparison;
  /** Why no law answers; empty where one does. */
  readonly outside: readonly Outside[];
  readonly clamped: boolean;
  /** The measurement that would narrow the interval most; null where a law answers. */
  readonly narrowing: Narrowing | null;
}

/**
 * The answer for contenders as the budget pays for them. `ratio`: FLOPs per token of the MoE over the dense model's.
 */
export function answerOf(ground: Ground, contenders: Readonly<Record<ArmId, Contender>>, ratio: number): Answer {
  const { dense, upcycled, scratch } = contenders;
  const equalTokens = compare(ground, upcycled, { id: "dense", tokens: upcycled.tokens });
  const equalFlops = compare(ground, upcycled, { id: "dense", tokens: ratio * upcycled.tokens });
  const ahead = aheadOf(ground, [dense, upcycled, scratch]);
  const isOpen = ahead.length === 0;
  return {
    verdict: isOpen ? "open" : ahead.length > 1 ? "tie" : at(ahead, 0),
    ahead,
    equalTokens,
    equalFlops,
    scratch: compare(ground, upcycled, { id: "scratch", tokens: upcycled.tokens }),
    outside: outsideOf(ground, [dense, upcycled, scratch]),
    clamped: isClamped(ground, upcycled),
    narrowing: equalTokens.published === null ? null : narrowing(equalTokens.published, upcycled.tokens, ground.level),
  };
}

/** The arms that no other one beats, as far as the laws answer; empty where they do not. */
export function aheadOf(ground: Ground, contenders: readonly Contender[]): readonly ArmId[] {
  if (!lawAnswers(ground, contenders)) return [];
  const { size, seen, curves } = ground;
  const losses = contenders.map(({ id, tokens }) => lossOf(id, curves, size, seen, tokens));
  const best = at(contenders, losses.indexOf(Math.min(...losses)));
  return contenders
    .filter((other) => other === best || compare(ground, best, other).verdict !== "lower")
    .map(({ id }) => id);
}
