/** The loop of a training run: step, log, measure, save. */
import { join } from "node:path";
import { at } from "../base/at.js";
import { interruptedError, stopError, UpcycleError } from "../base/errors.js";
import type { TrainingBlock } from "../base/schemas/index.js";
import type { JsonlWriter } from "../files/io/jsonl.js";
import { timeBudget } from "../engine/optimizer/budget.js";
import { correctionKeys, movedBias } from "../engine/routing/routing.js";
import type { StateSnapshot, StepMetrics, StepSettings, TrainRuntime } from "../engine/runtime/runtime.js";
import { learningRateAt } from "../engine/optimizer/schedule.js";
import { openBatches, type BatchReader } from "../text/tokens/batches.js";
import { openMix } from "../text/tokens/mix.js";
import { DivergedError } from "./diverged.js";
import { afterStep, guardLimits, type GuardState } from "./guard.js";
import { coactivationRecord, collapseRecord, measureAll, routingRecord, trainedRouting } from "./measure.js";
import type { EvalRecord, StepRecord } from "./records.js";
import { saveState, type StateLayout } from "./saved.js";
import { similarityRecord } from "./similarity.js";
import type { RunOptions, TrainEvent } from "./types.js";

/** Tokens that one optimizer step sees. */
export const tokensPerStep = ({ batch, sequence, accumulate }: TrainingBlock): number => batch * sequence * accumulate;

/** How far a training has come; the loop changes it. */
export interface LoopState {
  /** Steps so far. */
  step: number;
  /** Lowest held-out loss so far; null before the first measurement. */
  best: number | null;
  /** Milliseconds spent training so far. */
  ms: number;
  /** Largest resident memory in bytes of all processes that have worked on this run. */
  peakRss: number;
  /** Step of the checkpoint in `last/`. */
  saved: number;
  guard: GuardState;
  /** Load-balancing loss of the last step; null before the first of this process, and for a dense model. */
  balanceLoss: number | null;
  /** Whether the log says already that layers have collapsed unseen. */
  collapseTold: boolean;
  /** Step whose weights are known to give a finite loss. */
  measured: number | null;
}

/** What the loop of a training works with. */
export interface Engine {
  readonly runtime: TrainRuntime;
  readonly log: JsonlWriter;
  readonly layout: StateLayout;
}

/** Milliseconds of work that a device is given ahead, so that it goes on while this thread does other things. */
const AHEAD_MS = 40;
/** Steps that are asked for ahead at most. */
const MOST_AHEAD = 16;
/** Steps over which the pace is averaged. */
const PACE_STEPS = 8;

/**
 * How many steps to ask for beyond the one that is waited for. `pace`: milliseconds that a step takes, or null where
 * none has answered. Short steps need many: making a checkpoint can hold this thread up for longer than one takes.
 */
export const stepsAhead = (pace: number | null): number =>
  pace === null ? 1 : Math.max(1, Math.min(MOST_AHEAD, Math.floor(AHEAD_MS / pace)));

/** Steps until the schedule or the time is over; the last one is measured and saved. Changes `state`. */
export async function* trainLoop(options: RunOptions, engine: Engine, state: LoopState): AsyncGenerator<TrainEvent> {
  const { dir, block, signal } = options;
  const { runtime, log } = engine;
  const timeLimit = timeBudget(block.budget);
  const order = { batch: block.batch, sequence: block.sequence, seed: options.seed };
  const { train } = options.text;
  const micro = ArrayBuffer.isView(train) ? openBatches(train, order) : openMix(train, order);
  const saver = new Saver(options, engine, micro, state);
  const begin = (step: number): StepUnderWay => beginStep(options, runtime, micro, state, step);
  /** Steps that were asked for and have not been looked at, in their order. */
  const underWay: StepUnderWay[] = [];
  let answered = 0;
  let pace: number | null = null;
  try {
    if (state.step === 0) yield await evaluate(options, engine, state);
    while (state.step < block.steps && state.ms < timeLimit) {
      await saver.requireSound();
      if (signal?.aborted === true && underWay.length === 0) {
        yield* saver.finished();
        if (state.saved < state.step || state.step === 0) yield* saver.save(true);
        throw interruptedError(`stopped after step ${state.step} of ${block.steps}`, {
          where: dir,
          hint: "run the same command again to go on",
        });
      }
      const now = underWay.shift() ?? begin(state.step + 1);
      let last = underWay.at(-1)?.step ?? now.step;
      const ahead = stepsAhead(pace);
      while (underWay.length < ahead && looksAhead(options, runtime, last) && (await saver.isBehind(last)))
        underWay.push(begin(++last));
      const record = await endStep(options, runtime, state, now, answered);
      answered = performance.now();
      pace = pace === null ? record.ms : pace + (record.ms - pace) / PACE_STEPS;
      await log.append(record);
      yield record;
      const atEnd = state.step === block.steps || state.ms >= timeLimit;
      if (atEnd || state.step % block.evalEvery === 0) yield await evaluate(options, engine, state);
      if (atEnd && block.average !== undefined) await saveModel(options, engine, state, "average", true);
      if (atEnd || state.step % block.saveEvery === 0) yield* saver.save(atEnd, underWay[0]?.metrics);
    }
  } finally {
    // A checkpoint that is being written is finished, whatever has become of the steps behind it.
    await saver.settled();
  }
}

/**
 * Saves checkpoints, one at a time; while one is written, steps go on where the runtime can hold a copy. Where steps
 * queue, the copy is asked for right behind its step, so that the device has the next ones already.
 */
class Saver {
  private pending: Promise<TrainEvent> | null = null;
  private isWriting = false;
  /** Whether `pending` has failed. */
  private hasFailed = false;
  /** The state behind a step that has not answered yet. */
  private copy: { readonly step: number; readonly snapshot: StateSnapshot } | null = null;

  constructor(
    private readonly options: RunOptions,
    private readonly engine: Engine,
    private readonly micro: BatchReader,
    private readonly state: LoopState,
  ) {}

  /** Whether steps behind this one, the last that was asked for, may be asked for: a checkpoint needs no more of it. */
  async isBehind(step: number): Promise<boolean> {
    if (step % this.options.block.saveEvery !== 0 || this.copy?.step === step) return true;
    if (this.isWriting || this.copy !== null) return false;
    const snapshot = (await this.engine.runtime.snapshot?.()) ?? null;
    if (snapshot === null) return false;
    this.copy = { step, snapshot };
    return true;
  }

  /**
   * Begins a checkpoint of the state behind the step that has answered last; with `wait`, it is complete when this
   * returns. `next`: the step behind it, where it was asked for; its loss then says whether the weights are sound.
   */
  async *save(wait: boolean, next?: Promise<StepMetrics>): AsyncGenerator<TrainEvent> {
    yield* this.finished();
    const { options, engine, micro, state } = this;
    const { runtime } = engine;
    const early = this.copy?.step === state.step ? this.copy.snapshot : null;
    if (early === null || next === undefined) await requireFiniteLoss(options, runtime, micro, state);
    state.peakRss = Math.max(state.peakRss, await runtime.peakMemory());
    // Until here `settled` gives the copy back, where the checkpoint is refused.
    if (early !== null) this.copy = null;
    const snapshot = early ?? (wait ? null : ((await runtime.snapshot?.()) ?? null));
    const write = saveCheckpoint(options, engine, state, snapshot ?? runtime);
    this.isWriting = true;
    const { step } = state;
    const checked = early === null ? null : (next ?? null);
    const written = (checked === null ? Promise.resolve() : requireFiniteStep(options, state, step, checked))
      .then(write)
      .finally(() => {
        this.isWriting = false;
        return snapshot?.close();
      });
    // What fails is said where it is waited for: at the next step.
    written.catch(() => (this.hasFailed = true));
    this.pending = written;
    if (snapshot === null) yield* this.finished();
  }

  /** Waits for the checkpoint that is being written, if there is one. Throws what its writing has thrown. */
  async *finished(): AsyncGenerator<TrainEvent> {
    const { pending } = this;
    if (pending === null) return;
    this.pending = null;
    yield await pending;
  }

  /** Throws what the writing of a checkpoint has thrown by now: steps behind one that failed could be lost as well. */
  async requireSound(): Promise<void> {
    if (this.hasFailed) await this.pending;
  }

  /** As `finished`, where nothing more can be said; a copy that no checkpoint was made of is given back. */
  async settled(): Promise<void> {
    await this.pending?.catch(() => undefined);
    await this.copy?.snapshot.close();
  }
}

/**
 * What saves `last/` as it is behind the step that has answered last, from the runtime or a copy of its state. Changes
 * `state` when it is done.
 */
function saveCheckpoint(
  options: RunOptions,
  engine: Engine,
  state: LoopState,
  from: Pick<TrainRuntime, "read">,
): () => Promise<TrainEvent> {
  const { spec, block, carry, lineage, texts } = options;
  const { log, layout } = engine;
  const { step } = state;
  const dir = join(options.dir, "last");
  const progress = {
    step,
    bestLoss: state.best,
    ms: state.ms,
    peakRssBytes: state.peakRss,
    guard: block.guard === undefined ? undefined : state.guard,
  };
  return async () => {
    await log.sync();
    await stopping(state, () => saveState({ dir, spec, state: from, carry, lineage, texts, layout, progress }));
    state.saved = step;
    return { type: "save", step, dir };
  };
}

/**
 * Saves something of a run under way. What cannot be written then is no fault of what was given, whatever the system
 * calls it: stopError says so, and which checkpoint there is.
 */
async function stopping({ saved }: LoopState, save: () => Promise<void>): Promise<void> {
  try {
    await save();
  } catch (cause) {
    if (!(cause instanceof UpcycleError)) throw cause;
    const kept = saved > 0 ? `the last checkpoint (step ${saved}) is kept` : "no checkpoint was written yet";
    const hint = cause.hint === undefined ? kept : `${kept}; ${cause.hint}`;
    throw stopError(cause.message, { where: cause.where, hint, cause });
  }
}

/** A checkpoint replaces the one before it, so weights that give no finite loss are refused. Throws stopError. */
async function requireFiniteLoss(
  options: RunOptions,
  runtime: TrainRuntime,
  micro: BatchReader,
  state: LoopState,
): Promise<void> {
  if (state.measured === state.step) return;
  const { inputs, targets } = micro.at(state.step * options.block.accumulate);
  const { loss } = await runtime.evaluate({ ids: inputs, targets });
  requireFinite(loss, state.step, options, state);
}

/** The same by the step behind it, which begins with those weights. Rejects also where that step fails. */
async function requireFiniteStep(
  options: RunOptions,
  state: LoopState,
  step: number,
  next: Promise<StepMetrics>,
): Promise<void> {
  requireFinite((await next).loss, step, options, state);
}

function requireFinite(loss: number, step: number, options: RunOptions, state: LoopState): void {
  if (!Number.isFinite(loss)) throw diverged(`the loss after step ${step} is ${loss}`, options, state);
}

/** A step that a runtime was asked for. */
interface StepUnderWay {
  readonly step: number;
  /** When it was asked for. */
  readonly began: number;
  readonly settings: StepSettings;
  readonly metrics: Promise<StepMetrics>;
}

/** Asks for a step. */
function beginStep(
  options: RunOptions,
  runtime: TrainRuntime,
  micro: BatchReader,
  state: LoopState,
  step: number,
): StepUnderWay {
  const { block } = options;
  const began = performance.now();
  const batches = Array.from({ length: block.accumulate }, (_, i) => {
    const { inputs, targets } = micro.at((step - 1) * block.accumulate + i);
    return { ids: inputs, targets };
  });
  const settings = stepSettings(options, state, step);
  const metrics = runtime.step(batches, settings);
  // A step that fails while the one before it is looked at is told of when its turn comes.
  metrics.catch(() => undefined);
  return { step, began, settings, metrics };
}

/**
 * Whether the step behind this one may be asked for before this one has answered: nothing that this one's numbers
 * decide, and nothing that reads the weights, lies between them. Of checkpoints `Saver` says that.
 */
function looksAhead({ block, signal }: RunOptions, runtime: TrainRuntime, step: number): boolean {
  const { guard, routing, budget, steps, evalEvery } = block;
  const decides = guard !== undefined || routing?.bias !== undefined || Number.isFinite(timeBudget(budget));
  const stops = step >= steps || step % evalEvery === 0 || signal?.aborted === true;
  return runtime.queues === true && !decides && !stops;
}

/** Waits for a step; what the log says of it. Changes `state`. `answered`: when the step before it had answered. */
async function endStep(
  options: RunOptions,
  runtime: TrainRuntime,
  state: LoopState,
  { step, began, settings, metrics: asked }: StepUnderWay,
  answered: number,
): Promise<StepRecord> {
  const { block } = options;
  const metrics = await asked;
  const { loss, balanceLoss, zLoss, gradNorm, applied, spike, counts, kept, entropy } = metrics;
  if (block.guard !== undefined) state.guard = afterStep(state.guard, block.guard, { loss, gradNorm, applied });
  requireProgress(options, state, step, metrics);
  const biasRate = block.routing?.bias;
  if (applied && biasRate !== undefined) await moveBiases(options, runtime, counts, biasRate);
  const ms = performance.now() - Math.max(began, answered);
  state.step = step;
  state.balanceLoss = balanceLoss;
  state.ms += ms;
  return {
    type: "step",
    step,
    tokens: step * tokensPerStep(block),
    loss,
    balanceLoss,
    zLoss,
    gradNorm,
    learningRate: settings.learningRate,
    ms,
    ...trainedRouting({ counts, kept, entropy }, step % block.evalEvery === 0),
    ...(spike === null ? {} : { skipped: spike }),
  };
}

/** How the optimizer moves in step number `step`. */
function stepSettings({ block, seed }: RunOptions, state: LoopState, step: number): StepSettings {
  const { guard, average, routing, optimizer } = block;
  const { beta1, beta2, eps, weightDecay, clip, momentum = 0.95, nesterov = true, muonScale = "rms" } = optimizer;
  return {
    learningRate: learningRateAt(block.lr, block.steps, step),
    beta1,
    beta2,
    eps,
    weightDecay,
    decayOn: "matrices",
    clipNorm: clip,
    update: guard === undefined ? step : state.guard.updates + 1,
    muon: optimizer.method === "muon" ? { momentum, nesterov, scale: muonScale } : undefined,
    averageDecay: average?.decay,
    draw: routing?.jitter === undefined ? undefined : { seed, step, jitter: routing.jitter },
    limits: guard === undefined ? undefined : guardLimits(state.guard, guard),
  };
}

/** Throws stopError where too many steps in a row were spikes, and for numbers that are not finite. */
function requireProgress(options: RunOptions, state: LoopState, step: number, metrics: StepMetrics): void {
  const { guard } = options.block;
  const { loss, gradNorm, applied, spike } = metrics;
  const { skipped } = state.guard;
  if (guard !== undefined && spike !== null && skipped >= guard.patience) {
    const checkpoint = state.saved > 0 ? `the last checkpoint (step ${state.saved}) is kept; ` : "";
    const last = `the last with loss ${loss} and gradient norm ${gradNorm}`;
    throw new DivergedError(`${skipped} steps in a row were skipped as spikes, ${last}`, {
      where: options.dir,
      hint: `${checkpoint}look at the data, lower the learning rate, or raise guard.deviations or guard.patience`,
    });
  }
  if (applied || spike !== null) return;
  const numbers = `step ${step}: loss ${loss}, gradient norm ${gradNorm}; neither may be NaN or infinite`;
  throw diverged(numbers, options, state);
}

/** The biases lie with the weights, so that checkpoints hold them and evaluation routes by them. */
async function moveBiases(
  { spec }: RunOptions,
  runtime: TrainRuntime,
  counts: readonly (readonly number[])[],
  rate: number,
): Promise<void> {
  for (const [i, key] of correctionKeys(spec).entries())
    await runtime.write("weight", key, movedBias(await runtime.read("weight", key), at(counts, i), rate));
}

/** Held-out loss, expert load and similarity; keeps the best weights. */
async function evaluate(options: RunOptions, engine: Engine, state: LoopState): Promise<EvalRecord> {
  const { block, text, evaluationTokens, similarity } = options;
  const { runtime, log } = engine;
  const weights = block.average?.evaluate === true ? "average" : "weight";
  const { loss, load, entropy, pairs, parts } = await measureAll(runtime, text.heldOut, {
    batch: block.batch,
    sequence: block.sequence,
    limitTokens: evaluationTokens,
    weights,
  });
  if (!Number.isFinite(loss)) {
    throw diverged(`the held-out loss after step ${state.step} is ${loss}`, options, state);
  }
  state.measured = state.step;
  const record: EvalRecord = {
    type: "eval",
    step: state.step,
    tokens: state.step * tokensPerStep(block),
    loss,
    load,
    ...(parts === null ? {} : { parts }),
    ...routingRecord({ load, entropy }),
    ...similarityRecord(await similarity?.((key) => runtime.read("weight", key))),
    ...coactivationRecord({ pairs }),
    ...(state.collapseTold ? {} : collapseRecord(load, options, state.balanceLoss)),
  };
  state.collapseTold ||= record.unseenCollapse !== undefined;
  await log.append(record);
  if (state.best === null || loss < state.best) {
    state.best = loss;
    // The first measurement is of the model that went in: keeping it again would be a copy.
    if (state.step > 0) await saveModel(options, engine, state, "best", weights === "average");
  }
  return record;
}

/** A model without the state of its training. */
function saveModel(
  { dir, spec, carry, lineage, texts }: RunOptions,
  { runtime, layout }: Engine,
  progress: LoopState,
  name: string,
  averaged: boolean,
): Promise<void> {
  return stopping(progress, () =>
    saveState({
      dir: join(dir, name),
      spec,
      state: runtime,
      carry,
      lineage,
      texts,
      layout,
      progress: null,
      averaged,
    }),
  );
}

/** The error for numbers that are no longer finite. */
function diverged(message: string, { dir, block }: RunOptions, { saved }: LoopState): Error {
  const checkpoint = saved > 0 ? `the last good checkpoint (step ${saved}) is kept; ` : "";
  return new DivergedError(message, {
    where: dir,
    hint: `${checkpoint}lower the learning rate (peak ${block.lr.peak}) or lengthen the warm-up`,
  });
}
