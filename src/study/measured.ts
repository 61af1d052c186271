/** What the log of a run gives a study's result, whether the run has come to its end or not. */
import type { ArmRun, LossPoint } from "../model/results/result.js";
import { tokensPerStep } from "../train/loop.js";
import { msPerStep, tokensPerSecond, type EvalRecord, type RunMetrics, type StepRecord } from "../train/records.js";
import type { PlannedArm } from "./plan.js";

/** What of a log a result is made of. */
export interface MeasuredLog extends Pick<RunMetrics, "done"> {
  readonly steps: readonly Pick<StepRecord, "ms">[];
  readonly evals: readonly Pick<EvalRecord, "step" | "tokens" | "loss" | "load" | "similarity" | "unseenCollapse">[];
}

/** The same of a log that is kept: of its steps one that takes as long as most, of its measurements no routing. */
export function shortLog({ steps, evals, done }: RunMetrics): MeasuredLog {
  const ms = msPerStep(steps);
  return {
    done,
    steps: ms === null ? [] : [{ ms }],
    evals: evals.map(({ step, tokens, loss, load, similarity, unseenCollapse }) => ({
      step,
      tokens,
      loss,
      load,
      similarity,
      ...(unseenCollapse === undefined ? {} : { unseenCollapse }),
    })),
  };
}

/** What a run has measured, finished or not. */
export function measured(
  metrics: MeasuredLog,
  { training, flopsPerToken }: Pick<PlannedArm, "training" | "flopsPerToken">,
): Pick<ArmRun, "points" | "tokensPerSecond" | "peakRssBytes" | "load" | "similarity" | "unseenCollapse" | "machine"> {
  const evals = metrics.evals.filter(({ step }) => isMeasured(step, training));
  const [collapse] = metrics.evals.flatMap(({ step, unseenCollapse }) =>
    unseenCollapse === undefined ? [] : [{ step, ...unseenCollapse }],
  );
  const peak = metrics.done?.peakRssBytes ?? 0;
  return {
    points: pointsOf({ evals }, flopsPerToken),
    tokensPerSecond: tokensPerSecond(metrics.steps, tokensPerStep(training)),
    peakRssBytes: peak > 0 ? peak : null,
    load: evals.filter(({ load }) => load.length > 0).map(({ step, load }) => ({ step, layers: load })),
    similarity: evals
      .filter(({ similarity }) => similarity.length > 0)
      .map(({ step, similarity }) => ({ step, layers: similarity })),
    ...(collapse === undefined ? {} : { unseenCollapse: collapse }),
    ...(metrics.done?.machine === undefined ? {} : { machine: metrics.done.machine }),
  };
}

/** Whether this training measures at a step: a run that it has begun with may have ended, and measured, in between. */
const isMeasured = (step: number, { evalEvery, steps }: PlannedArm["training"]): boolean =>
  step === 0 || step === steps || step % evalEvery === 0;

/** Held-out losses with what they have cost. */
export function pointsOf({ evals }: Pick<MeasuredLog, "evals">, flopsPerToken: number): LossPoint[] {
  return evals.map(({ step, tokens, loss }) => ({ step, tokens, loss, flops: tokens * flopsPerToken }));
}
