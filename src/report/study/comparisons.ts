/**
 * Two arms at the same tokens or FLOPs, judged among all arms. Each pair is read at the most that all runs of both have
 * reached: a third arm that was trained for less takes no data from them. A study's report, its terminal table and the
 * studio all ask here.
 */
import { at } from "../../base/at.js";
import type { ArmResult } from "../../model/results/result.js";
import { judge, type Judgement } from "./judgement.js";
import { readAt, spread, type CurveAxis, type Spread } from "./statistics.js";

/** A run as it is compared: its held-out losses by tokens or FLOPs, ascending. */
export interface ComparedRun {
  readonly seed: number;
  readonly x: readonly number[];
  readonly loss: readonly number[];
}

/** An arm as it is compared, made by `comparedArm`. */
export interface ComparedArm {
  readonly id: string;
  readonly runs: readonly ComparedRun[];
}

/** Two arms at one x. */
export interface PairComparison {
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

/** Two arms of a study at one x of an axis. */
export interface ArmComparison extends PairComparison {
  readonly axis: CurveAxis;
}

/**
 * Compares two arms by their ids; null where a run of one of them has no finite loss behind its start.
 */
export type ComparePair = (a: string, b: string) => PairComparison | null;

/** Compares two arms of a study on an axis; null where `ComparePair` is. */
export type Compare = (a: ArmResult, b: ArmResult, axis: CurveAxis) => ArmComparison | null;

/** Compares any two of a study's arms, with p-values corrected for all pairs of them. */
export function comparisonsAmong(arms: readonly ArmResult[]): Compare {
  const found = new Map<CurveAxis, ComparePair>();
  return (a, b, axis) => {
    const compare = found.get(axis) ?? comparePairs(arms.map((arm) => armOn(arm, axis)));
    found.set(axis, compare);
    const comparison = compare(a.id, b.id);
    return comparison === null ? null : { axis, ...comparison };
  };
}

/** An arm of a study as it is compared on an axis. */
const armOn = ({ id, runs }: ArmResult, axis: CurveAxis): ComparedArm =>
  comparedArm(
    id,
    runs.map(({ seed, points }) => ({
      seed,
      x: points.map((point) => point[axis]),
      loss: points.map(({ loss }) => loss),
    })),
  );

/** An arm of such runs; losses that are not finite are left out. */
export const comparedArm = (id: string, runs: readonly ComparedRun[]): ComparedArm => ({
  id,
  runs: runs.map(({ seed, x, loss }) => ({
    seed,
    x: x.filter((_, i) => Number.isFinite(loss[i])),
    loss: loss.filter(Number.isFinite),
  })),
});

/** Compares any two of some arms, with p-values corrected for all pairs of them. */
export function comparePairs(arms: readonly ComparedArm[]): ComparePair {
  const pairs = allPairs(arms);
  return (a, b) => {
    const comparison = pairs.get(a)?.get(b);
    if (comparison !== undefined) return comparison;
    const other = pairs.get(b)?.get(a);
    return other === undefined ? null : reversed(other);
  };
}

/** The most that all runs of an arm have reached; null where one has no loss behind its start. */
export function endOf({ runs }: ComparedArm): number | null {
  const end = Math.min(...runs.map(({ x }) => x.at(-1) ?? 0));
  return runs.length > 0 && end > 0 ? end : null;
}

/** All pairs of arms that can be compared, each once, by the ids of the first and the second. */
function allPairs(arms: readonly ComparedArm[]): ReadonlyMap<string, ReadonlyMap<string, PairComparison>> {
  const ends = arms.map(endOf);
  const read = arms.flatMap((a, i) =>
    arms.slice(i + 1).flatMap((b, j) => {
      const [endA, endB] = [ends[i] ?? null, ends[i + 1 + j] ?? null];
      if (endA === null || endB === null) return [];
      const losses = lossesAt(a, b, Math.min(endA, endB));
      return losses === null ? [] : [{ ids: [a.id, b.id] as const, ...losses }];
    }),
  );
  const judgements = judge(read.map(({ differences }) => differences));
  const pairs = new Map<string, Map<string, PairComparison>>();
  for (const [i, { ids, x, a, b }] of read.entries()) {
    const difference = a.mean - b.mean;
    const comparison = { at: x, a, b, difference, relative: difference / b.mean, judgement: at(judgements, i) };
    pairs.set(ids[0], (pairs.get(ids[0]) ?? new Map<string, PairComparison>()).set(ids[1], comparison));
  }
  return pairs;
}

/** Losses of two arms at `x`, and their differences seed by seed; null where one of them has none there. */
function lossesAt(
  armA: ComparedArm,
  armB: ComparedArm,
  x: number,
): { readonly x: number; readonly a: Spread; readonly b: Spread; readonly differences: readonly number[] } | null {
  const bySeed = ({ runs }: ComparedArm): ReadonlyMap<number, number> =>
    new Map(
      runs.flatMap((run) => {
        const loss = readAt(run.x, run.loss, x);
        return loss === null ? [] : [[run.seed, loss] as const];
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
function reversed({ a, b, difference, judgement, ...where }: PairComparison): PairComparison {
  return {
    ...where,
    a: b,
    b: a,
    difference: -difference,
    relative: -difference / a.mean,
    judgement: { ...judgement, mean: -judgement.mean, low: -judgement.high, high: -judgement.low },
  };
}
