/**
 * One training run: a folder, a model, a stream of tokens. An async generator of events; whoever consumes it shows
 * them.
 *
 *   open or resume -> [evaluate at 0] -> for each step: batches -> update -> log; every so often evaluate, save -> done
 *
 * The folder holds `run.json` (what this run is), `metrics.jsonl`, `last/` (weights, moments, step), `best/` (weights
 * with the lowest held-out loss) and, where weights are averaged, `average/` at the end. A run that was stopped at any
 * moment goes on from `last/` with the same numbers to the last bit.
 */
import { join } from "node:path";
import type { TrainingBlock } from "../base/schemas/index.js";
import { openJsonl } from "../files/io/jsonl.js";
import { lockFolder } from "../files/io/lock.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { timeBudget } from "../engine/optimizer/budget.js";
import { planParameters } from "../engine/optimizer/groups.js";
import { trainProgram } from "../graph/programs/programs.js";
import { checkRouting, routingSettings } from "../engine/routing/routing.js";
import type { Backend, TrainRuntime } from "../engine/runtime/runtime.js";
import { slotsOf, type Slot } from "../model/tensors/slots.js";
import type { TokenRow } from "../text/tokens/batches.js";
import type { MixPart } from "../text/tokens/mix.js";
import { claimFolder, requireSameRun } from "./claim.js";
import { requireRunFolder } from "./fresh.js";
import { freshGuard } from "./guard.js";
import { tokensPerStep, trainLoop, type LoopState } from "./loop.js";
import {
  metricsFile,
  readMetrics,
  tokensPerSecond,
  type EvalRecord,
  type RunMetrics,
  type StepRecord,
} from "./records.js";
import type { Sources } from "./sources.js";
import { loadState, savedProgress, stateLayout, type StateLayout } from "./saved.js";

export interface RunOptions {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** First weights, by slot. */
  readonly initial: (slot: Slot) => Promise<Float32Array>;
  /** Folder whose tokenizer files every checkpoint carries. */
  readonly carry: string | undefined;
  /** What every checkpoint says of how its experts were made (`lineageKey`). */
  readonly lineage?: unknown;
  /** Texts of further files that every checkpoint has, by name, such as the model's card. */
  readonly texts?: Readonly<Record<string, string>> | undefined;
  /** One row of tokens, or parts with weights; the held-out loss of parts is their weighted mean. */
  readonly text: { readonly train: TokenRow | readonly MixPart[]; readonly heldOut: TokenRow | readonly MixPart[] };
  /** The token that ends every document. */
  readonly documentEnd: number;
  readonly block: TrainingBlock;
  readonly evaluationTokens: number;
  /** Of the data order. */
  readonly seed: number;
  readonly threads: number;
  readonly backend: Backend;
  /** Says what this run is beyond the above (model, text, parent); a folder with another identity is refused. */
  readonly identity: Readonly<Record<string, unknown>>;
  /** What the files that it is made from contain (`sourcesOf`). */
  readonly sources?: Sources | undefined;
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
  /** The folder held the finished run, and nothing was trained. */
  readonly found: boolean;
}

/**
 * Runs, or goes on with, a training run; a finished one that is to have more steps or time as well, where the steps so
 * far would have been the same. Throws inputError if the folder holds another run, whose differences it names, or
 * cannot be written to, and for routing that the model cannot have; stopError if loss or gradient stop being finite or
 * the disk is full (the last checkpoint stays); interruptedError after saving when the signal was raised.
 */
export async function* trainRun(options: RunOptions): AsyncGenerator<TrainEvent, RunResult> {
  const { dir } = options;
  checkRouting(options.spec, options.block);
  await requireRunFolder(dir);
  await claimFolder(options);
  const release = await lockFolder(dir);
  try {
    return yield* work(options);
  } finally {
    await release();
  }
}

async function* work(options: RunOptions): AsyncGenerator<TrainEvent, RunResult> {
  const { dir, spec, block } = options;
  const last = join(dir, "last");
  const progress = await savedProgress(last);
  const start = progress?.step ?? 0;
  await requireSameRun(options, start);
  if (start >= block.steps || (progress?.ms ?? 0) >= timeBudget(block.budget)) {
    const metrics = await readMetrics(dir);
    if (metrics.done !== null) {
      const result = resultOf(metrics, tokensPerStep(block), last, true);
      yield { type: "done", result };
      return result;
    }
  }
  yield { type: "open", step: start, steps: block.steps, tokensPerStep: tokensPerStep(block) };

  const plan = planParameters(spec, block);
  const { frozen, tuning } = plan;
  const average = block.average !== undefined;
  const layout = stateLayout(plan, { dtype: block.checkpoints === "bfloat16" ? "BF16" : "F32", average });
  const documentEnd = block.resetAttention === true ? options.documentEnd : undefined;
  const shape = {
    batch: block.batch,
    sequence: block.sequence,
    documentEnd,
    auxCoef: block.auxLoss,
    zCoef: block.zLoss,
    frozen,
    routing: routingSettings(block),
  };
  const log = await openJsonl(join(dir, metricsFile));
  try {
    const runtime = await options.backend.openTrain(trainProgram(spec, shape), {
      threads: options.threads,
      accumulate: block.accumulate > 1,
      tuning,
      average,
    });
    try {
      if (progress === null) await writeInitial(options, layout, runtime);
      else await loadState(last, spec, layout, runtime);
      await log.append({ type: "resume", step: start });
      const state: LoopState = {
        step: start,
        best: progress?.bestLoss ?? null,
        ms: progress?.ms ?? 0,
        peakRss: progress?.peakRssBytes ?? 0,
        saved: start,
        measured: null,
        guard: progress?.guard ?? freshGuard,
      };
      yield* trainLoop(options, { runtime, log, layout }, state);
      await log.append({
        type: "done",
        step: state.step,
        reason: state.step >= block.steps ? "steps" : "time",
        peakRssBytes: state.peakRss,
      });
      await log.sync();
    } finally {
      await runtime.close();
    }
  } finally {
    await log.close();
  }
  const result = resultOf(await readMetrics(dir), tokensPerStep(block), last, false);
  yield { type: "done", result };
  return result;
}

async function writeInitial({ spec, initial }: RunOptions, layout: StateLayout, runtime: TrainRuntime): Promise<void> {
  for (const slot of slotsOf(spec)) {
    const data = await initial(slot);
    await runtime.write("weight", slot.key, data);
    if (layout.kinds(slot.key).includes("average")) await runtime.write("average", slot.key, data);
  }
}

function resultOf(metrics: RunMetrics, perStep: number, last: string, found: boolean): RunResult {
  return {
    metrics,
    last,
    found,
    finalLoss: metrics.evals.at(-1)?.loss ?? NaN,
    tokensPerSecond: tokensPerSecond(metrics.steps, perStep),
    peakRssBytes: metrics.done?.peakRssBytes ?? 0,
  };
}
