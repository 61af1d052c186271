/**
 * The numbers that the page's charts draw: means and ranges over the seeds of a study's result, rounded, and thinned
 * where they are many. Letters of shapes: `E` experts.
 */
import { at } from "../../base/at.js";
import { toneIndices } from "../page/palette.js";
import type { ArmResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import type { RunUnderWay, ShownStudy } from "./shown.js";
import { armCurve, balance, mainParent, recipeShape, spread, type Curve } from "./statistics.js";

/** What the scripts of a study's page read as `report`. */
export interface ReportData {
  readonly parent: {
    /** Null where it is not known yet. */
    readonly loss: number | null;
    readonly tokens: readonly number[];
    readonly flops: readonly number[];
    readonly losses: readonly number[];
  };
  readonly arms: readonly ArmView[];
}

/** One arm's curves and maps. */
export interface ArmView {
  readonly id: string;
  readonly label: string;
  readonly kind: ArmResult["kind"];
  /** Index into `armTones`. */
  readonly tone: number;
  readonly curve: Curve;
  readonly imbalance: ImbalanceSeries | null;
  readonly similarity: { readonly steps: readonly number[]; readonly layers: readonly (readonly number[])[] } | null;
  readonly load: LoadView | null;
  /** Runs that have not come to their ends and are not part of the curve; left out in a finished study. */
  readonly underWay?: readonly RunUnderWay[];
}

/** Mean and range over the seeds, by training step. */
interface ImbalanceSeries {
  readonly steps: readonly number[];
  readonly mean: readonly number[];
  readonly low: readonly number[];
  readonly high: readonly number[];
}

interface LoadView {
  /** Experts of one copy of the dense FFN: the heat map leaves a gap between copies. */
  readonly group: number;
  readonly runs: readonly {
    readonly seed: number;
    readonly steps: readonly number[];
    /** By step, layer and expert: hundredths of an equal share, so 100 is balanced. */
    readonly shares: readonly (readonly (readonly number[])[])[];
  }[];
}

/** More than this many moments per run would only make the file larger: the slider has no room for them. */
const mostMoments = 25;

/** The data of a study's page. */
export function reportData(result: ShownStudy): ReportData {
  const tones = toneIndices(result.arms);
  const parentPoints = mainParent(result).points.filter((point) => Number.isFinite(point.loss));
  return {
    parent: {
      loss: Number.isFinite(mainParent(result).loss) ? rounded(mainParent(result).loss) : null,
      tokens: parentPoints.map((point) => point.tokens),
      flops: parentPoints.map((point) => rounded(point.flops)),
      losses: parentPoints.map((point) => rounded(point.loss)),
    },
    arms: result.arms.map((arm, index) => {
      const underWay = result.progress?.underWay.filter((run) => run.arm === arm.id) ?? [];
      return { ...armView(arm, at(tones, index)), ...(underWay.length > 0 && { underWay }) };
    }),
  };
}

function armView(arm: ArmResult, tone: number): ArmView {
  const curve = armCurve(arm);
  return {
    id: arm.id,
    label: arm.label,
    kind: arm.kind,
    tone,
    curve: {
      tokens: curve.tokens,
      flops: curve.flops.map((value) => rounded(value)),
      mean: curve.mean.map((value) => rounded(value)),
      low: curve.low.map((value) => rounded(value)),
      high: curve.high.map((value) => rounded(value)),
    },
    imbalance: imbalance(arm),
    similarity: similarity(arm),
    load: loadView(arm),
  };
}

/** The busiest expert as a multiple of an equal share, mean over layers, at every step that all seeds have measured. */
function imbalance(arm: ArmResult): ImbalanceSeries | null {
  const runs = arm.runs.filter((run) => run.load.length > 0);
  if (runs.length === 0) return null;
  const series = { steps: [] as number[], mean: [] as number[], low: [] as number[], high: [] as number[] };
  for (const { step } of at(runs, 0).load) {
    const measurements = runs.flatMap((run) => run.load.find((one) => one.step === step) ?? []);
    const overSeeds = spread(measurements.map(({ layers }) => meanOf(balance(layers).busiest)));
    if (overSeeds === null || measurements.length < runs.length) continue;
    series.steps.push(step);
    series.mean.push(rounded(overSeeds.mean));
    series.low.push(rounded(overSeeds.min));
    series.high.push(rounded(overSeeds.max));
  }
  return series.steps.length === 0 ? null : series;
}

/** Cosine similarity to the parent, mean over seeds, as one line for each layer. */
function similarity(arm: ArmResult): ArmView["similarity"] {
  const runs = arm.runs.filter((run) => (run.similarity[0]?.layers.length ?? 0) > 0);
  if (runs.length === 0) return null;
  const moments = at(runs, 0)
    .similarity.map(({ step }) => ({
      step,
      measurements: runs.flatMap((run) => run.similarity.find((one) => one.step === step) ?? []),
    }))
    .filter(({ measurements }) => measurements.length === runs.length);
  if (moments.length === 0) return null;
  const layers = at(at(runs, 0).similarity, 0).layers.map((_, layer) =>
    moments.map(({ measurements }) => rounded(meanOf(measurements.map(({ layers }) => at(layers, layer))))),
  );
  return { steps: moments.map(({ step }) => step), layers };
}

/** The load [steps, MoE layers, E] of every seed, at most `mostMoments` steps of each. */
function loadView(arm: ArmResult): LoadView | null {
  const runs = arm.runs.filter((run) => (run.load[0]?.layers.length ?? 0) > 0);
  if (runs.length === 0) return null;
  const experts = at(at(at(runs, 0).load, 0).layers, 0).length;
  const shape = recipeShape(arm.recipe);
  const hasCopies = shape !== null && shape.granularity > 1 && shape.expansion * shape.granularity === experts;
  return {
    group: hasCopies ? shape.granularity : experts,
    runs: runs.map((run) => {
      const moments = thinned(run.load, mostMoments);
      return {
        seed: run.seed,
        steps: moments.map((one) => one.step),
        shares: moments.map((one) =>
          one.layers.map((layer) => layer.map((load) => Math.round(100 * load * layer.length))),
        ),
      };
    }),
  };
}

/** At most `count` items, evenly spaced, the first and the last among them. */
export function thinned<Item>(items: readonly Item[], count: number): readonly Item[] {
  if (items.length <= count) return items;
  return Array.from({ length: count }, (_, i) => at(items, Math.round((i * (items.length - 1)) / (count - 1))));
}

/** A number with five significant digits, which is finer than any pixel. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
