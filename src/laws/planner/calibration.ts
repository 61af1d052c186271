/**
 * From the speed model's times to those of real trainings: published runs took longer than the model says, because
 * they also contain restarts, evaluations and slower first stages, and because not every code is as fast.
 */
import { inputError } from "../../base/errors.js";
import { studentQuantile } from "../fitting/distributions.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Gpu } from "./hardware.js";
import { bestLayout } from "./layout.js";
import { publishedRuns, type PublishedRun } from "./published-runs.js";
import { publishedShape } from "./shape.js";
import { defaultSpeed } from "./speed.js";

/** How times of the speed model stand to those of published runs. */
export interface Calibration {
  /** Geometric mean of predicted over published GPU hours: the speed model's tokens per second are multiplied by it. */
  readonly speed: number;
  /** Ends of the interval of one more run's time, as factors of the calibrated time. */
  readonly low: number;
  readonly high: number;
  /** Runs behind it. */
  readonly count: number;
}

/** The calibration from all published runs: Student's interval of one more run, in ln of the ratio. */
export function calibration(level: number): Calibration {
  const ratios = publishedRuns.map(({ predicted, published }) => Math.log(predicted / published));
  const count = ratios.length;
  const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / count;
  const variance = ratios.reduce((sum, ratio) => sum + (ratio - mean) ** 2, 0) / (count - 1);
  const half = studentQuantile((1 + level) / 2, count - 1) * Math.sqrt(variance * (1 + 1 / count));
  return { speed: Math.exp(mean), low: Math.exp(-half), high: Math.exp(half), count };
}

/** GPU hours of a published run by the speed model. Throws inputError for a run that does not fit its GPUs. */
export function predictedHours(run: PublishedRun, gpu: Gpu): number {
  const { best } = bestLayout({
    spec: specOfRun(run),
    gpu,
    gpus: run.gpus,
    sequence: run.sequence,
    batchTokens: run.batchTokens,
    speed: defaultSpeed,
    precision: run.precision,
  });
  if (best === null) throw inputError(`${run.title} does not fit on ${run.gpus} ${gpu.title}`, { where: run.id });
  return ((run.tokens / best.tokensPerSecond) * run.gpus) / 3600;
}

/** The decoder of a published run. */
function specOfRun({ id }: PublishedRun): DecoderSpec {
  return publishedShape(id);
}
