/**
 * One training run: a folder, a model, a stream of tokens. An async generator of events; whoever consumes it shows them.
 *
 *   open or resume -> [evaluate at 0] -> for each step: batches -> update -> log; every so often evaluate, save -> done
 *
 * The folder holds `run.json` (what this run is), `metrics.jsonl`, `last/` (weights, moments, step) and `best/` (weights with the
 * lowest held-out loss). A run that was stopped at any moment goes on from `last/` with the same numbers to the last bit.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { inputError, interruptedError, stopError } from "../base/errors.js";
import type { TrainingBlock } from "../config/index.js";
import { exists, writeJson } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openJsonl, type JsonlWriter } from "../io/jsonl.js";
import { lockFolder } from "../io/lock.js";
import { readJson } from "../io/ranges.js";
import { requireFreeSpace } from "../io/space.js";
import type { DecoderSpec } from "../spec/types.js";
import { trainProgram } from "../step/programs.js";
import type { Backend, TrainRuntime } from "../step/runtime.js";
import { learningRateAt } from "../step/schedule.js";
import { slotsOf, type Slot } from "../tensors/slots.js";
import { openBatches } from "../text/batches.js";
import { elements } from "../graph/ir.js";
import { measure } from "./measure.js";
import { metricsFile, readMetrics, tokensPerSecond, type EvalRecord, type RunMetrics, type StepRecord } from "./records.js";
import { loadState, savedProgress, saveState } from "./saved.js";

export interface RunOptions {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** First weights, by slot. */
  readonly initial: (slot: Slot) => Promise<Float32Array>;
  /** Folder whose tokenizer files every checkpoint carries. */
  readonly carry: string | undefined;
  readonly text: { readonly train: Int32Array; readonly heldOut: Int32Array };
  readonly block: TrainingBlock;
  readonly evaluationTokens: number;
  /** Of the data order. */
  readonly seed: number;
  readonly threads: number;
  readonly backend: Backend;
  /** Says what this run is beyond the above (model, text, parent); a folder with another identity is refused. */
  readonly identity: Readonly<Record<string, unknown>>;
  /** Expert-to-dense similarity by MoE layer, measured with every evaluation. */
  readonly similarity?: ((read: (key: string) => Promise<Float32Array>) => Promise<number[]>) | undefined;
  /** Aborting finishes the step in hand, saves and throws `interrupted`. */
  readonly signal?: AbortSignal | undefined;
}

export type TrainEvent =
  | { readonly type: "open"; readonly step: number; readonly steps: number; readonly tokensPerStep: number }
  | StepRecord
  | EvalRecord
  | { readonly type: "save"; readonly step: number; readonly dir: string }
  | { readonly type: "done"; readonly result: RunResult };

export interface RunResult {
  readonly metrics: RunMetrics;
  readonly finalLoss: number;
  readonly tokensPerSecond: number;
  readonly peakRssBytes: number;
  /** Folder of the last checkpoint. */
  readonly last: string;
}

/**
 * Runs, or goes on with, a training run.
 * Throws inputError if the folder holds another run or cannot be written to; stopError if loss or gradient stop being finite or the
 * disk is full (the last checkpoint stays); interruptedError after saving when the signal was raised.
 */
export async function* trainRun(options: RunOptions): AsyncGenerator<TrainEvent, RunResult> {
  const { dir, block } = options;
  const tokensPerStep = block.batch * block.sequence * block.accumulate;
  await claimFolder(options);
  const release = await lockFolder(dir);
  try {
    return yield* work(options, tokensPerStep);
  } finally {
    await release();
  }
}

async function* work(options: RunOptions, tokensPerStep: number): AsyncGenerator<TrainEvent, RunResult> {
  const { dir, spec, block } = options;
  const last = join(dir, "last");
  const progress = await savedProgress(last);
  const start = progress?.step ?? 0;
  if (start >= block.steps) {
    const metrics = await readMetrics(dir);
    if (metrics.done !== null) {
      const result = resultOf(metrics, tokensPerStep, last);
      yield { type: "done", result };
      return result;
    }
  }
  yield { type: "open", step: start, steps: block.steps, tokensPerStep };

  const shape = { batch: block.batch, sequence: block.sequence, auxCoef: block.auxLoss, zCoef: block.zLoss };
  const log = await openJsonl(join(dir, metricsFile));
  try {
    const runtime = await options.backend.openTrain(trainProgram(spec, shape), { threads: options.threads, accumulate: block.accumulate > 1 });
    try {
      if (progress === null) for (const slot of slotsOf(spec)) await runtime.write("weight", slot.key, await options.initial(slot));
      else await loadState(last, spec, runtime);
      await log.append({ type: "resume", step: start });
      const state: LoopState = {
        step: start, best: progress?.bestLoss ?? null, ms: progress?.ms ?? 0, peakRss: progress?.peakRssBytes ?? 0, saved: start, measured: null,
      };
      yield* loop(options, runtime, log, state, tokensPerStep);
      await log.append({ type: "done", step: block.steps, peakRssBytes: state.peakRss });
      await log.sync();
    } finally {
      await runtime.close();
    }
  } finally {
    await log.close();
  }
  const result = resultOf(await readMetrics(dir), tokensPerStep, last);
  yield { type: "done", result };
  return result;
}

interface LoopState {
  step: number;
  best: number | null;
  ms: number;
  /** Over all processes that have worked on this run. */
  peakRss: number;
  /** Step of the checkpoint in `last/`. */
  saved: number;
  /** Step whose weights are known to give a finite loss. */
  measured: number | null;
}

async function* loop(options: RunOptions, runtime: TrainRuntime, log: JsonlWriter, state: LoopState, tokensPerStep: number): AsyncGenerator<TrainEvent> {
  const { dir, block, signal } = options;
  const micro = openBatches(options.text.train, { batch: block.batch, sequence: block.sequence, seed: options.seed });
  /** A checkpoint replaces the one before it, so weights that give no finite loss must not become one. */
  const requireFiniteLoss = async (): Promise<void> => {
    if (state.measured === state.step) return;
    const { inputs, targets } = micro.at(state.step * block.accumulate);
    const { loss } = await runtime.evaluate({ ids: inputs, targets });
    if (!Number.isFinite(loss)) throw diverged(`the loss after step ${state.step} is ${loss}`, options, state);
  };
  const save = async (): Promise<TrainEvent> => {
    await requireFiniteLoss();
    await log.sync();
    state.peakRss = Math.max(state.peakRss, await runtime.peakMemory());
    await saveState({
      dir: join(dir, "last"), spec: options.spec, runtime, carry: options.carry,
      progress: { step: state.step, bestLoss: state.best, ms: state.ms, peakRssBytes: state.peakRss },
    });
    state.saved = state.step;
    return { type: "save", step: state.step, dir: join(dir, "last") };
  };
  if (state.step === 0) yield await evaluate(options, runtime, log, state, tokensPerStep);
  while (state.step < block.steps) {
    if (signal?.aborted === true) {
      if (state.saved < state.step || state.step === 0) yield await save();
      throw interruptedError(`stopped after step ${state.step} of ${block.steps}`, { where: dir, hint: "run the same command again to go on" });
    }
    const record = await oneStep(options, runtime, micro.at, state, tokensPerStep);
    await log.append(record);
    yield record;
    const atEnd = state.step === block.steps;
    if (atEnd || state.step % block.evalEvery === 0) yield await evaluate(options, runtime, log, state, tokensPerStep);
    if (atEnd || state.step % block.saveEvery === 0) yield await save();
  }
}

type ReadBatch = ReturnType<typeof openBatches>["at"];

async function oneStep(options: RunOptions, runtime: TrainRuntime, batchAt: ReadBatch, state: LoopState, tokensPerStep: number): Promise<StepRecord> {
  const { block } = options;
  const started = performance.now();
  const step = state.step + 1;
  const batches = Array.from({ length: block.accumulate }, (_, i) => {
    const { inputs, targets } = batchAt(state.step * block.accumulate + i);
    return { ids: inputs, targets };
  });
  const { beta1, beta2, eps, weightDecay, clip } = block.optimizer;
  const learningRate = learningRateAt(block.lr, block.steps, step);
  const { loss, balanceLoss, zLoss, gradNorm, applied } = await runtime.step(batches, {
    learningRate, beta1, beta2, eps, weightDecay, decayOn: "matrices", clipNorm: clip, update: step,
  });
  if (!applied) {
    throw diverged(`step ${step}: loss ${loss}, gradient norm ${gradNorm}; neither may be NaN or infinite`, options, state);
  }
  const ms = performance.now() - started;
  state.step = step;
  state.ms += ms;
  return { type: "step", step, tokens: step * tokensPerStep, loss, balanceLoss, zLoss, gradNorm, learningRate, ms };
}

/** Held-out loss, expert load and similarity; keeps the best weights. */
async function evaluate(options: RunOptions, runtime: TrainRuntime, log: JsonlWriter, state: LoopState, tokensPerStep: number): Promise<EvalRecord> {
  const { block, text, evaluationTokens, similarity } = options;
  const { loss, load } = await measure(runtime, text.heldOut, { batch: block.batch, sequence: block.sequence, limitTokens: evaluationTokens });
  if (!Number.isFinite(loss)) {
    throw diverged(`the held-out loss after step ${state.step} is ${loss}`, options, state);
  }
  state.measured = state.step;
  const record: EvalRecord = {
    type: "eval", step: state.step, tokens: state.step * tokensPerStep, loss, load,
    similarity: similarity === undefined ? [] : await similarity((key) => runtime.read("weight", key)),
  };
  await log.append(record);
  if (state.best === null || loss < state.best) {
    state.best = loss;
    // The first measurement is of the model that went in: keeping it again would be a copy.
    if (state.step > 0) await saveState({ dir: join(options.dir, "best"), spec: options.spec, runtime, carry: options.carry, progress: null });
  }
  return record;
}

function diverged(message: string, { dir, block }: RunOptions, { saved }: LoopState): Error {
  const kept = saved > 0 ? `the last good checkpoint (step ${saved}) is kept; ` : "";
  return stopError(message, { where: dir, hint: `${kept}lower the learning rate (peak ${block.lr.peak}) or lengthen the warm-up` });
}

/** Creates the folder or checks that it holds this very run; checks free space before any work. */
async function claimFolder(options: RunOptions): Promise<void> {
  const { dir, spec, block, seed, threads, evaluationTokens, identity } = options;
  const path = join(dir, "run.json");
  const wanted = JSON.parse(JSON.stringify({ ...identity, spec, training: block, evaluationTokens, seed, threads })) as Record<string, unknown>;
  if (await exists(path)) {
    const found = (await readJson(path)) as Record<string, unknown>;
    const keys = [...new Set([...Object.keys(found), ...Object.keys(wanted)])];
    const other = keys.find((key) => JSON.stringify(found[key]) !== JSON.stringify(wanted[key]));
    if (other !== undefined) {
      throw inputError(`this folder holds another run: its ${other} differs`, { where: path, hint: "choose another folder, or remove this one to start again" });
    }
    return;
  }
  // Two checkpoints are on disk while one replaces the other, each with weights and two moments; and the best weights.
  const weights = 4 * slotsOf(spec).reduce((sum, { shape }) => sum + elements(shape), 0);
  await requireFreeSpace(dir, 8 * weights);
  await withFsErrors(dir, "create run folder", () => mkdir(dir, { recursive: true }));
  await writeJson(path, wanted);
}

function resultOf(metrics: RunMetrics, tokensPerStep: number, last: string): RunResult {
  return {
    metrics, last,
    finalLoss: metrics.evals.at(-1)?.loss ?? NaN,
    tokensPerSecond: tokensPerSecond(metrics.steps, tokensPerStep),
    peakRssBytes: metrics.done?.peakRssBytes ?? 0,
  };
}
