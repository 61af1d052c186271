/**
 * The arithmetic behind the report: means and ranges over seeds, curves read at one x, expert load.
 * Values that are not finite (of a run that diverged; they are `null` in `result.json`) are left out and count as
 * missing.
 */
import { at, entryOf } from "../../base/at.js";
import { firstAtLeast } from "../../base/search.js";
import { deadExperts } from "../../model/results/collapse.js";
import type { ArmResult, ArmRun, LossPoint, ParentResult, StudyResult } from "../../model/results/result.js";

/** The parent that an arm started from. Throws RangeError for a result without it. */
export function parentOf({ parents }: Pick<StudyResult, "parents">, { parent }: ArmResult): ParentResult {
  return entryOf(new Map(parents.map((one) => [one.id, one])), parent);
}

/** The first parent: the only one of most studies. */
export const mainParent = ({ parents }: Pick<StudyResult, "parents">): ParentResult => at(parents, 0);

/** A value's mean and range over several seeds; `min` to `max` is the spread that the report speaks of. */
export interface Spread {
  readonly n: number;
  readonly mean: number;
  readonly min: number;
  readonly max: number;
}

/** The spread of the finite values; null where there are none. */
export function spread(values: readonly number[]): Spread | null {
  const finite = values.filter((value) => Number.isFinite(value));
  if (finite.length === 0) return null;
  return {
    n: finite.length,
    mean: finite.reduce((sum, value) => sum + value, 0) / finite.length,
    min: Math.min(...finite),
    max: Math.max(...finite),
  };
}

/** What curves are read against. */
export type CurveAxis = "tokens" | "flops";

function finitePoints(points: readonly LossPoint[]): readonly LossPoint[] {
  return points.filter((point) => Number.isFinite(point.loss));
}

/**
 * Loss at `x` of a curve of ascending `xs`, linear between its points; null outside of them, because nothing here
 * extrapolates, and beside a loss that is not finite.
 */
export function readAt(xs: readonly number[], losses: readonly number[], x: number): number | null {
  const right = firstAtLeast(xs, x);
  const [afterX, after] = [xs[right], losses[right]];
  if (afterX === undefined || after === undefined || !Number.isFinite(after)) return null;
  if (afterX === x) return after;
  const [beforeX, before] = [xs[right - 1], losses[right - 1]];
  if (beforeX === undefined || before === undefined || !Number.isFinite(before)) return null;
  return before + ((x - beforeX) / (afterX - beforeX)) * (after - before);
}

/** Loss at `x` by the finite points of a curve; null outside of them. */
export function lossAt(points: readonly LossPoint[], axis: CurveAxis, x: number): number | null {
  const curve = finitePoints(points);
  return readAt(
    curve.map((point) => point[axis]),
    curve.map(({ loss }) => loss),
    x,
  );
}

/** Smallest amount of `axis` at which the loss is at or below `loss` (linear between points); null if it never is. */
export function firstReach(points: readonly LossPoint[], axis: CurveAxis, loss: number): number | null {
  const curve = finitePoints(points);
  const first = curve.findIndex((point) => point.loss <= loss);
  if (first < 0) return null;
  if (first === 0) return at(curve, 0)[axis];
  const before = at(curve, first - 1);
  const after = at(curve, first);
  return before[axis] + ((before.loss - loss) / (before.loss - after.loss)) * (after[axis] - before[axis]);
}

/** Largest amount of `axis` that every run of the arm reached with a finite loss; null without runs. */
export function reached(arm: ArmResult, axis: CurveAxis): number | null {
  const ends = arm.runs.map((run) => finitePoints(run.points).at(-1)?.[axis]);
  if (ends.length === 0 || ends.some((end) => end === undefined)) return null;
  return Math.min(...(ends as number[]));
}

/** Mean and range over the seeds, on every x that was measured and that all seeds reached. */
export interface Curve {
  readonly tokens: readonly number[];
  readonly flops: readonly number[];
  readonly mean: readonly number[];
  readonly low: readonly number[];
  readonly high: readonly number[];
}

/** The curve of an arm; a run without a finite loss is left out. */
export function armCurve(arm: ArmResult): Curve {
  const runs = arm.runs.filter((run) => finitePoints(run.points).length > 0);
  const grid = new Map<number, number>();
  for (const run of runs) for (const point of run.points) grid.set(point.tokens, point.flops);
  const curve = {
    tokens: [] as number[],
    flops: [] as number[],
    mean: [] as number[],
    low: [] as number[],
    high: [] as number[],
  };
  for (const tokens of [...grid.keys()].sort((a, b) => a - b)) {
    const losses = runs.flatMap((run) => lossAt(run.points, "tokens", tokens) ?? []);
    const overSeeds = spread(losses);
    if (overSeeds === null || losses.length < runs.length) continue;
    curve.tokens.push(tokens);
    curve.flops.push(entryOf(grid, tokens));
    curve.mean.push(overSeeds.mean);
    curve.low.push(overSeeds.min);
    curve.high.push(overSeeds.max);
  }
  return curve;
}

/** How evenly the experts of all MoE layers are used. */
interface Balance {
  /** The busiest expert of each layer, as a multiple of an equal share. */
  readonly busiest: readonly number[];
  /** How many experts are dead, over all layers. */
  readonly dead: number;
  /** How many experts there are, over all layers. */
  readonly experts: number;
}

/** The balance of a load [MoE layers, experts], given as fractions of each layer's choices. */
export function balance(layers: readonly (readonly number[])[]): Balance {
  const shares = layers.map((layer) => layer.map((load) => load * layer.length));
  return {
    busiest: shares.map((layer) => Math.max(...layer)),
    dead: layers.flatMap(deadExperts).length,
    experts: shares.flat().length,
  };
}

/** The balance of a run's last measurement; null for a dense model. */
export function finalBalance(run: ArmRun): Balance | null {
  const last = run.load.at(-1);
  return last === undefined || last.layers.length === 0 ? null : balance(last.layers);
}

/** E, G and T of a recipe such as `E8G1T2`; null for a dense arm or another spelling. */
export function recipeShape(recipe: string | null): { expansion: number; granularity: number; topK: number } | null {
  const match = /^E(\d+)G(\d+)T(\d+)/.exec(recipe ?? "");
  if (match === null) return null;
  const [, expansion, granularity, topK] = match;
  return { expansion: Number(expansion), granularity: Number(granularity), topK: Number(topK) };
}
