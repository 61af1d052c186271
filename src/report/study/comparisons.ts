/** Two arms of a study at the same tokens or FLOPs, judged among all arms of the study. */
import { at } from "../../base/at.js";
import type { ArmResult } from "../../model/results/result.js";
import { judge, type Judgement } from "./judgement.js";
import { lossAt, reached, spread, type CurveAxis, type Spread } from "./statistics.js";

/** Two arms at one x. */
export interface ArmComparison {
  readonly axis: CurveAxis;
  /** Where both curves were read: the most that all runs of both arms reached. */
  readonly at: number;
  /** Losses of the seeds that both arms have; of all, where they have none in common. */
  readonly a: Spread;
  readonly b: Spread;
  /** Mean of a minus mean of b: negative where a is better. */
  readonly difference: number;
  /** `difference` relative to b's mean. */
  readonly relative: number;
  readonly judgement: Judgement;
}

/**
 * Compares two of the arms at the largest x that all runs of both have reached; null where a run of one of them has no
 * finite loss.
 */
export type Compare = (a: ArmResult, b: ArmResult, axis: CurveAxis) => ArmComparison | null;

/** Compares any two of `arms`, with p-values corrected for all pairs of them. */
export function comparisonsAmong(arms: readonly ArmResult[]): Compare {
  const found = new Map<CurveAxis, ReadonlyMap<string, ArmComparison>>();
  const ofAxis = (axis: CurveAxis): ReadonlyMap<string, ArmComparison> => {
    const known = found.get(axis) ?? allPairs(arms, axis);
    found.set(axis, known);
    return known;
  };
  return (a, b, axis) => {
    const comparison = ofAxis(axis).get(pairKey(a, b));
    if (comparison !== undefined) return comparison;
    const other = ofAxis(axis).get(pairKey(b, a));
    return other === undefined ? null : reversed(other);
  };
}

const pairKey = (a: ArmResult, b: ArmResult): string => JSON.stringify([a.id, b.id]);

/** All pairs of arms that can be compared, each once. */
function allPairs(arms: readonly ArmResult[], axis: CurveAxis): ReadonlyMap<string, ArmComparison> {
  const ends = arms.map((arm) => reached(arm, axis));
  const pairs = arms.flatMap((a, i) =>
    arms.slice(i + 1).flatMap((b, j) => {
      const [endA, endB] = [ends[i] ?? null, ends[i + 1 + j] ?? null];
      if (endA === null || endB === null) return [];
      const read = lossesAt(a, b, axis, Math.min(endA, endB));
      return read === null ? [] : [{ key: pairKey(a, b), ...read }];
    }),
  );
  const judgements = judge(pairs.map(({ differences }) => differences));
  return new Map(
    pairs.map(({ key, x, a, b }, i) => {
      const difference = a.mean - b.mean;
      return [key, { axis, at: x, a, b, difference, relative: difference / b.mean, judgement: at(judgements, i) }];
    }),
  );
}

/** Losses of two arms at `x`, and their differences seed by seed; null where one of them has none there. */
function lossesAt(
  armA: ArmResult,
  armB: ArmResult,
  axis: CurveAxis,
  x: number,
): { readonly x: number; readonly a: Spread; readonly b: Spread; readonly differences: readonly number[] } | null {
  const bySeed = ({ runs }: ArmResult): ReadonlyMap<number, number> =>
    new Map(
      runs.flatMap(({ seed, points }) => {
        const loss = lossAt(points, axis, x);
        return loss === null ? [] : [[seed, loss] as const];
      }),
    );
  const [ofA, ofB] = [bySeed(armA), bySeed(armB)];
  const pairs = [...ofA].flatMap(([seed, a]) => {
    const b = ofB.get(seed);
    return b === undefined ? [] : [{ a, b }];
  });
  const a = spread(pairs.length > 0 ? pairs.map((pair) => pair.a) : [...ofA.values()]);
  const b = spread(pairs.length > 0 ? pairs.map((pair) => pair.b) : [...ofB.values()]);
  return a === null || b === null ? null : { x, a, b, differences: pairs.map((pair) => pair.a - pair.b) };
}

/** The same comparison with its arms in the other order. */
function reversed({ a, b, difference, judgement, ...where }: ArmComparison): ArmComparison {
  return {
    ...where,
    a: b,
    b: a,
    difference: -difference,
    relative: -difference / a.mean,
    judgement: { ...judgement, mean: -judgement.mean, low: -judgement.high, high: -judgement.low },
  };
}
