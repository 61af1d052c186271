/**
 * One training run: a folder, a model, a stream of tokens. An async generator of events; whoever consumes it shows
 * them.
 *
 *   open or resume -> [evaluate at 0] -> for each step: batches -> update -> log; every so often evaluate, save -> done
 *
 * The folder holds `run.json` (what this run is), `metrics.jsonl`, `last/` (weights, moments, step), `best/` (weights
 * with the lowest held-out loss) and, where weights are averaged, `average/` at the end. A run that was stopped at any
 * moment resumes from `last/` with the same numbers to the last bit.
 */
import { join } from "node:path";
import { restoreReplaced } from "../files/io/atomic.js";
import { openJsonl, type JsonlWriter } from "../files/io/jsonl.js";
import { lockFolder } from "../files/io/lock.js";
import { timeBudget } from "../engine/optimizer/budget.js";
import { planParameters, type ParameterPlan } from "../engine/optimizer/groups.js";
import { trainProgram, type TrainProgram } from "../graph/programs/programs.js";
import { checkRouting, routingSettings, withBalance } from "../engine/routing/routing.js";
import type { TrainRuntime } from "../engine/runtime/runtime.js";
import { forwardFlops } from "../model/cost/flops.js";
import { isMoe } from "../model/decoder/types.js";
import { slotsOf } from "../model/tensors/slots.js";
import { claimRunFolder, requireSameRun } from "./claim.js";
import { noteCommand } from "../files/io/command-file.js";
import { exportMetrics, LogExporter } from "./exported-logs.js";
import { requireRunFolder } from "./fresh.js";
import { freshGuard } from "./guard.js";
import { machineOf } from "./machine.js";
import { tokensPerStep, trainLoop, type LoopState } from "./loop.js";
import { metricsFile, readMetrics, tokensPerSecond, type MetricRecord, type RunMetrics } from "./records.js";
import { loadState, savedProgress, stateLayout, type Progress, type StateLayout } from "./saved.js";
import type { RunOptions, RunResult, TrainEvent } from "./types.js";

export type { RunOptions, RunResult, TrainEvent } from "./types.js";

/**
 * Runs or resumes a training run; a finished one that is to have more steps or time as well, where the steps so
 * far would have been the same. Throws inputError if the folder holds another run, whose differences it names, or
 * cannot be written to, and for routing that the model cannot have; stopError if loss or gradient stop being finite or
 * the disk is full (the last checkpoint stays); interruptedError after saving when the signal was raised.
 */
export async function* trainRun(given: RunOptions): AsyncGenerator<TrainEvent, RunResult> {
  const options = isMoe(given.spec) ? { ...given, block: withBalance(given.block) } : given;
  const { dir } = options;
  checkRouting(options.spec, options.block);
  await requireRunFolder(dir);
  await claimRunFolder(options);
  const release = await lockFolder(dir);
  try {
    if (options.command !== undefined) await noteCommand(dir, options.command);
    return yield* work(options);
  } finally {
    await release();
  }
}

/** A run in a folder that is its own and locked. */
async function* work(options: RunOptions): AsyncGenerator<TrainEvent, RunResult> {
  const { dir, spec, block } = options;
  const last = join(dir, "last");
  await restoreReplaced(last);
  const progress = await savedProgress(last);
  const start = progress?.step ?? 0;
  await requireSameRun(options, start);
  if (start >= block.steps || (progress?.ms ?? 0) >= timeBudget(block.budget)) {
    const metrics = await readMetrics(dir);
    if (metrics.done !== null) {
      for (const format of options.log ?? []) await exportMetrics({ dir, metrics, format });
      const result = resultOf(options, metrics, last, null);
      yield { type: "done", result };
      return result;
    }
  }
  yield { type: "open", step: start, steps: block.steps, tokensPerStep: tokensPerStep(block) };

  const plan = planParameters(spec, block);
  const average = block.average !== undefined;
  const layout = stateLayout(plan, { dtype: block.checkpoints === "bfloat16" ? "BF16" : "F32", average });
  const jsonl = await openJsonl(join(dir, metricsFile));
  let peak: number | null;
  try {
    const runtime = await options.backend.openTrain(programOf(options, plan), {
      threads: options.threads,
      accumulate: block.accumulate > 1,
      tuning: plan.tuning,
      average,
    });
    peak = runtime.peakFlops ?? null;
    try {
      if (progress === null) await writeInitial(options, layout, runtime);
      else await loadState(last, spec, layout, runtime);
      await jsonl.append({ type: "resume", step: start });
      const log = await withExports(options, jsonl);
      const state = { ...stateOf(progress), collapseTold: await toldOfCollapse(options, start) };
      yield* trainLoop(options, { runtime, log, layout }, state);
      await log.append({
        type: "done",
        step: state.step,
        reason: state.step >= block.steps ? "steps" : "time",
        peakRssBytes: state.peakRss,
        machine: machineOf([options.backend]),
      });
      await log.sync();
    } finally {
      await runtime.close();
    }
  } finally {
    await jsonl.close();
  }
  const result = resultOf(options, await readMetrics(dir), last, { peak });
  yield { type: "done", result };
  return result;
}

/** The log, which also writes every record in the other forms that were asked for. */
async function withExports({ dir, log: formats = [] }: RunOptions, log: JsonlWriter): Promise<JsonlWriter> {
  if (formats.length === 0) return log;
  const metrics = await readMetrics(dir);
  for (const format of formats) await exportMetrics({ dir, metrics, format });
  const exporter = new LogExporter(dir, formats, metrics);
  return {
    ...log,
    async append(value) {
      await log.append(value);
      await exporter.add(value as MetricRecord);
    },
  };
}

/** Where the loop begins or resumes. */
function stateOf(progress: Progress | null): LoopState {
  const step = progress?.step ?? 0;
  return {
    step,
    best: progress?.bestLoss ?? null,
    ms: progress?.ms ?? 0,
    peakRss: progress?.peakRssBytes ?? 0,
    saved: step,
    measured: null,
    balanceLoss: null,
    collapseTold: false,
    guard: progress?.guard ?? freshGuard,
  };
}

/** Whether the log says up to this step, from which the run goes on, that layers have collapsed unseen. */
async function toldOfCollapse({ dir, block }: RunOptions, start: number): Promise<boolean> {
  if (start === 0 || block.routing?.balance !== "model") return false;
  const { evals } = await readMetrics(dir);
  return evals.some(({ step, unseenCollapse }) => step <= start && unseenCollapse !== undefined);
}

/** The graph of one micro-batch. */
function programOf({ spec, block, documentEnd }: RunOptions, { frozen }: ParameterPlan): TrainProgram {
  return trainProgram(spec, {
    batch: block.batch,
    sequence: block.sequence,
    documentEnd: block.resetAttention === true ? documentEnd : undefined,
    auxCoef: block.auxLoss,
    zCoef: block.zLoss,
    recompute: block.recompute,
    frozen,
    routing: routingSettings(block),
  });
}

/** Gives a runtime the first weights, and averages that begin there. */
async function writeInitial({ spec, initial }: RunOptions, layout: StateLayout, runtime: TrainRuntime): Promise<void> {
  for (const slot of slotsOf(spec)) {
    const data = await initial(slot);
    await runtime.write("weight", slot.key, data);
    if (layout.kinds(slot.key).includes("average")) await runtime.write("average", slot.key, data);
  }
}

/** `ran`: FLOP/s of the device that has just trained; null where the folder held the finished run. */
function resultOf(
  { block, spec }: RunOptions,
  metrics: RunMetrics,
  last: string,
  ran: { readonly peak: number | null } | null,
): RunResult {
  const speed = tokensPerSecond(metrics.steps, tokensPerStep(block));
  const flops = 3 * forwardFlops(spec, block.sequence, "causal").total;
  return {
    metrics,
    last,
    found: ran === null,
    finalLoss: metrics.evals.at(-1)?.loss ?? NaN,
    tokensPerSecond: speed,
    mfu: ran?.peak == null ? null : (speed * flops) / ran.peak,
    peakRssBytes: metrics.done?.peakRssBytes ?? 0,
  };
}
