/**
 * The numbers that the page's charts draw, reduced from the study result: means and ranges, rounded, thinned where
 * long.
 */
import { at } from "../../base/at.js";
import { toneIndices } from "../page/palette.js";
import type { ArmResult, StudyResult } from "../../model/results/result.js";
import { meanOf } from "../../base/mean.js";
import { armCurve, balance, recipeShape, spread, type Curve } from "./statistics.js";

export interface ReportData {
  readonly parent: {
    readonly loss: number;
    readonly tokens: readonly number[];
    readonly flops: readonly number[];
    readonly losses: readonly number[];
  };
  readonly arms: readonly ArmView[];
  /** A cell's class is the number of these that its load (1 = equal share) reaches. */
  readonly loadSteps: readonly number[];
}

export interface ArmView {
  readonly id: string;
  readonly label: string;
  readonly kind: ArmResult["kind"];
  readonly tone: number;
  readonly curve: Curve;
  readonly imbalance: ImbalanceSeries | null;
  readonly similarity: { readonly steps: readonly number[]; readonly layers: readonly (readonly number[])[] } | null;
  readonly load: LoadView | null;
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

/** Upper ends of the load classes, as multiples of an equal share. */
export const loadSteps: readonly number[] = [0.01, 0.25, 0.5, 0.8, 1.25, 2, 4];

/** More than this many moments per run would only make the file larger: the slider has no room for them. */
const mostMoments = 25;

export function reportData(result: StudyResult): ReportData {
  const tones = toneIndices(result.arms);
  const parentPoints = result.parent.points.filter((point) => Number.isFinite(point.loss));
  return {
    parent: {
      loss: rounded(result.parent.loss),
      tokens: parentPoints.map((point) => point.tokens),
      flops: parentPoints.map((point) => rounded(point.flops)),
      losses: parentPoints.map((point) => rounded(point.loss)),
    },
    arms: result.arms.map((arm, index) => armView(arm, at(tones, index))),
    loadSteps,
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

/** Busiest expert as a multiple of an equal share, mean over layers. */
function imbalance(arm: ArmResult): ImbalanceSeries | null {
  const runs = arm.runs.filter((run) => run.load.length > 0);
  if (runs.length === 0) return null;
  const series = { steps: [] as number[], mean: [] as number[], low: [] as number[], high: [] as number[] };
  for (const { step } of at(runs, 0).load) {
    const found = runs.flatMap((run) => run.load.find((one) => one.step === step) ?? []);
    const over = spread(found.map((one) => meanOf(balance(one.layers).busiest)));
    if (over === null || found.length < runs.length) continue;
    series.steps.push(step);
    series.mean.push(rounded(over.mean));
    series.low.push(rounded(over.min));
    series.high.push(rounded(over.max));
  }
  return series.steps.length === 0 ? null : series;
}

/** Mean over seeds, as one line per layer. */
function similarity(arm: ArmResult): ArmView["similarity"] {
  const runs = arm.runs.filter((run) => (run.similarity[0]?.layers.length ?? 0) > 0);
  if (runs.length === 0) return null;
  const moments = at(runs, 0)
    .similarity.map(({ step }) => ({
      step,
      found: runs.flatMap((run) => run.similarity.find((one) => one.step === step) ?? []),
    }))
    .filter(({ found }) => found.length === runs.length);
  if (moments.length === 0) return null;
  const layers = at(at(runs, 0).similarity, 0).layers.map((_, layer) =>
    moments.map(({ found }) => rounded(meanOf(found.map((one) => at(one.layers, layer))))),
  );
  return { steps: moments.map(({ step }) => step), layers };
}

function loadView(arm: ArmResult): LoadView | null {
  const runs = arm.runs.filter((run) => (run.load[0]?.layers.length ?? 0) > 0);
  if (runs.length === 0) return null;
  const experts = at(at(at(runs, 0).load, 0).layers, 0).length;
  const shape = recipeShape(arm.recipe);
  const grouped = shape !== null && shape.granularity > 1 && shape.expansion * shape.granularity === experts;
  return {
    group: grouped ? shape.granularity : experts,
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

/** At most `count` items, evenly spaced, first and last kept. */
export function thinned<Item>(items: readonly Item[], count: number): readonly Item[] {
  if (items.length <= count) return items;
  return Array.from({ length: count }, (_, i) => at(items, Math.round((i * (items.length - 1)) / (count - 1))));
}

/** Five significant digits: finer than any pixel. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}
