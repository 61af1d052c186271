/**
 * A run of a study that Megatron-LM trains. The model that it begins with is written as a checkpoint of Megatron-Core,
 * the study's training text as its data, and a launch file beside both; the run is started, watched and started again
 * as `upcycle launch` and `upcycle watch --keep` do it. Its log becomes the run's metrics, its last checkpoint comes
 * back as a model folder, on which the held-out loss is measured as on any other run.
 *
 *   begin/  data_document.*  launch.yaml  megatron/{run.sh,logs,checkpoints}  ->  last/  metrics.jsonl
 */
import { join, resolve } from "node:path";
import { stringify } from "yaml";
import { stopError } from "../base/errors.js";
import { resultOf } from "../base/events.js";
import { parseLaunchConfig, type LaunchConfig } from "../base/schemas/launch.js";
import type { MegatronConfig } from "../base/schemas/study-blocks.js";
import { launchPlanOf } from "../cluster/plan/launch-plan.js";
import { checkpointsOf, type LaunchPlan } from "../cluster/plan/scripts.js";
import { RunKeeper } from "../cluster/run/keep.js";
import { watchRun, type WatchEvent } from "../cluster/run/watch.js";
import { meanLoss } from "../evals/compare.js";
import { openModel } from "../evals/model.js";
import { openCheckpoint, type ModelSource } from "../files/checkpoint/open.js";
import { foldersOf, modelFolderOf } from "../files/checkpoint/model-source.js";
import type { IterationEvent } from "../files/formats/megatron-log.js";
import { exists, writeFileAtomic, restoreReplaced } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { lockFolder } from "../files/io/lock.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import { expertUtility } from "../surgery/calibration/expert-utility.js";
import { exporting, importing } from "../surgery/convert/reform.js";
import { isUnnamed, nameRelease, releaseFolder } from "../surgery/convert/release.js";
import { makeByWorkflow } from "../surgery/convert/workflow.js";
import { writeOneDocument } from "../text/prepare/one-document.js";
import { claimRunFolder } from "../train/claim.js";
import { exportMetrics } from "../train/exported-logs.js";
import { tokensPerStep } from "../train/loop.js";
import { metricsFile, readMetrics, tokensPerSecond, type EvalRecord, type StepRecord } from "../train/records.js";
import type { RunOptions, RunResult, TrainEvent } from "../train/run.js";
import { savedProgress, writeProgress } from "../train/saved.js";
import { similarityRecord } from "../train/similarity.js";
import { gpuNamed, launchConfig } from "./megatron-plan.js";
import type { PlannedArm } from "./plan.js";
import type { StudyOptions } from "./types.js";

/** Milliseconds between two looks after a run: at its log, and at its jobs. */
const every = { log: 500, local: 1000, scheduler: 60_000 } as const;

/** What a run of Megatron-LM takes. */
export interface MegatronRun {
  readonly arm: PlannedArm;
  readonly megatron: MegatronConfig;
  /** The model that it begins with. */
  readonly from: ModelSource;
  /** What a run of this program would be made of; its folder, record, text and measurements are the same. */
  readonly run: Omit<RunOptions, "initial">;
  readonly study: StudyOptions;
  /** Tells what is done outside of the training. */
  readonly note: (text: string) => void;
}

/**
 * Trains, or goes on with what was started. Throws inputError for settings that Megatron-LM does not have, stopError
 * where it ends too early again and again, and the signal's reason.
 */
export async function* megatronRun(request: MegatronRun): AsyncGenerator<TrainEvent, RunResult> {
  const { run, arm } = request;
  await claimRunFolder({ ...run, initial: () => Promise.reject(new Error("Megatron-LM has the weights")) });
  const release = await lockFolder(run.dir);
  try {
    const last = join(run.dir, "last");
    await restoreReplaced(last);
    const found = (await savedProgress(last))?.step === arm.training.steps;
    if (!found) {
      yield { type: "open", step: 0, steps: arm.training.steps, tokensPerStep: tokensPerStep(arm.training) };
      const plan = await preparedRun(request);
      const trained = yield* trainedSteps(request, plan);
      await bringBack(request, plan, last);
      yield* writeMetrics(request, trained, last);
    }
    for (const format of run.log ?? [])
      await exportMetrics({ dir: run.dir, metrics: await readMetrics(run.dir), format });
    const metrics = await readMetrics(run.dir);
    const result: RunResult = {
      metrics,
      finalLoss: metrics.evals.at(-1)?.loss ?? NaN,
      tokensPerSecond: tokensPerSecond(metrics.steps, tokensPerStep(arm.training)),
      mfu: null,
      peakRssBytes: metrics.done?.peakRssBytes ?? 0,
      last,
      found,
    };
    yield { type: "done", result };
    return result;
  } finally {
    await release();
  }
}

/** Writes the checkpoint, the data and the launch file, unless they are there. */
async function preparedRun({ arm, megatron, from, run, study, note }: MegatronRun): Promise<LaunchPlan> {
  const dir = resolve(run.dir);
  const places = {
    out: join(dir, "megatron"),
    checkpoint: join(dir, "begin"),
    data: join(dir, "data_document"),
    tokenizer: resolve(run.carry ?? modelFolderOf(from)),
  };
  if (!(await exists(releaseFolder(places.checkpoint)))) {
    note("writing the checkpoint for Megatron-LM");
    const threads = { prompts: 1, calibration: 1, writing: 1, proof: 1 };
    const tools = { backend: run.backend, threads, signal: run.signal, report: false };
    const out = releaseFolder(places.checkpoint);
    await resultOf(makeByWorkflow(exporting({ source: from, dtype: "F32" }), { ...tools, out }));
  }
  if (await isUnnamed(places.checkpoint)) await nameRelease(places.checkpoint);
  if (!(await exists(`${places.data}.idx`))) await writeOneDocument(places.data, trainingTokens(run), arm.spec.vocab);
  const config = launchConfig(megatron, arm.training, run.seed, places);
  const file = join(dir, "launch.yaml");
  await writeFileAtomic(
    file,
    `# Of a study's arm ${arm.id}: upcycle launch goes on with it\n${stringify(withoutBlanks(config))}`,
  );
  const read = parseLaunchConfig(stringify(withoutBlanks(config)), file);
  return launchPlanOf(read, arm.spec, await gpuNamed(study, megatron), file);
}

/** YAML has no word for what is not there. */
const withoutBlanks = (config: LaunchConfig): unknown => JSON.parse(JSON.stringify(config));

function trainingTokens({ text }: Pick<RunOptions, "text">): Int32Array {
  if (text.train instanceof Int32Array) return text.train;
  throw new Error("a study trains on one text");
}

/** What the log of a run says. */
interface Trained {
  /** The records of its steps, by their number. */
  readonly steps: ReadonlyMap<number, StepRecord>;
  /** Most memory of a GPU that was allocated, in bytes; 0: the log does not say it. */
  readonly peakBytes: number;
}

/** Starts and watches the run until all iterations are saved; gives what its log says. */
async function* trainedSteps({ arm, run, note }: MegatronRun, plan: LaunchPlan): AsyncGenerator<TrainEvent, Trained> {
  const logs = join(plan.config.out, "logs");
  await withFsErrors(logs, "create folder", () => makeFolders(logs));
  const isLocal = plan.config.slurm === undefined;
  const keeper = new RunKeeper({ plan, every: isLocal ? every.local : every.scheduler });
  const steps = new Map<number, StepRecord>();
  const moeLayers = arm.spec.layers.filter(({ ffn }) => ffn.kind === "moe").length;
  let peakBytes = 0;
  let isStarted = false;
  try {
    for await (const event of watchRun({ names: [logs], once: false, every: every.log, keeper, signal: run.signal })) {
      if (event.type === "event" && event.event.type === "iteration") {
        const step = stepOf(event.event, tokensPerStep(arm.training), moeLayers);
        steps.set(step.step, step);
        yield step;
      }
      if (event.type === "event" && event.event.type === "memory") {
        const { megabytes } = event.event;
        peakBytes = Math.max(peakBytes, (megabytes["max allocated"] ?? megabytes["allocated"] ?? 0) * 2 ** 20);
      }
      const words = wordsOf(event, !isStarted);
      isStarted ||= event.type === "kept" && event.action === "restarted";
      if (words !== null) note(words);
      if (event.type === "kept" && event.action === "given-up")
        throw stopError(event.message, { where: logs, hint: "the log says why; the same command goes on" });
    }
  } finally {
    await keeper.close();
  }
  run.signal?.throwIfAborted();
  return { steps, peakBytes };
}

function wordsOf(event: WatchEvent, isFirst: boolean): string | null {
  // The keeper's first start is the run's own.
  if (event.type === "kept" && event.action === "restarted" && isFirst) return "Megatron-LM is started";
  if (event.type === "kept") return event.action === "finished" ? null : event.message;
  return event.type === "alert" ? `${event.level}: ${event.message}` : null;
}

/**
 * A line of the log as a record of ours. What the log does not say is not known. Megatron-Core logs the mean of its MoE
 * layers' balance losses (`_aggregate` in megatron/core/transformer/moe/moe_logging.py); ours is their sum.
 */
function stepOf(event: IterationEvent, perStep: number, moeLayers: number): StepRecord {
  const { iteration, loss, losses, gradNorm, learningRate, milliseconds } = event;
  const named = (pattern: RegExp): number | null =>
    Object.entries(losses).find(([name]) => pattern.test(name))?.[1] ?? null;
  const balance = named(/load_balancing/);
  return {
    type: "step",
    step: iteration,
    tokens: iteration * perStep,
    loss,
    balanceLoss: balance === null ? null : balance * moeLayers,
    zLoss: named(/z_loss/),
    gradNorm: gradNorm ?? NaN,
    learningRate: learningRate ?? NaN,
    ms: milliseconds ?? NaN,
  };
}

/** The last checkpoint as a model folder of the form that the run began with. */
async function bringBack({ arm, run, from }: MegatronRun, plan: LaunchPlan, last: string): Promise<void> {
  if (await exists(last)) return;
  const folder = modelFolderOf(from);
  const surgery = importing({
    source: checkpointsOf(plan.config),
    reading: { vocab: arm.spec.vocab, like: join(folder, "config.json") },
    carry: run.carry ?? folder,
    family: arm.spec.family,
    dtype: "F32",
  });
  const threads = { prompts: 1, calibration: 1, writing: 1, proof: 1 };
  await resultOf(
    makeByWorkflow(surgery, { backend: run.backend, threads, signal: run.signal, report: false, out: last }),
  );
}

/** Measures both ends on held-out text and writes the log as any run's; the progress comes last. */
async function* writeMetrics(
  { arm, run, from }: MegatronRun,
  { steps, peakBytes }: Trained,
  last: string,
): AsyncGenerator<TrainEvent> {
  const total = arm.training.steps;
  const begin = await measured(run, arm.spec, from, 0);
  const end = await measured(run, arm.spec, last, total * tokensPerStep(arm.training));
  const ordered = [...steps.values()].filter(({ step }) => step <= total).sort((a, b) => a.step - b.step);
  const evals = [
    { ...begin, step: 0 },
    { ...end, step: total },
  ];
  const done = { type: "done", step: total, reason: "steps", peakRssBytes: peakBytes };
  const lines = [evals[0], ...ordered, evals[1], done].map((record) => JSON.stringify(record));
  await writeFileAtomic(join(run.dir, metricsFile), `${lines.join("\n")}\n`);
  yield* evals;
  const ms = ordered.reduce((sum, step) => sum + (Number.isFinite(step.ms) ? step.ms : 0), 0);
  await writeProgress(last, { step: total, bestLoss: Math.min(begin.loss, end.loss), ms, peakRssBytes: peakBytes });
}

/** Held-out loss, expert load and similarity of a model. */
async function measured(
  { text, block, evaluationTokens, similarity, backend, threads, signal }: MegatronRun["run"],
  spec: DecoderSpec,
  source: ModelSource,
  tokens: number,
): Promise<Omit<EvalRecord, "step">> {
  if (!(text.heldOut instanceof Int32Array)) throw new Error("a study holds out one text");
  const model = await openModel(source, backend, threads);
  let loss: number;
  try {
    const limits = { sequence: block.sequence, limitTokens: evaluationTokens, signal };
    loss = (await meanLoss(model, text.heldOut, limits)).loss;
  } finally {
    await model.close();
  }
  const ids = text.heldOut.subarray(0, evaluationTokens);
  const isMixture = spec.layers.some(({ ffn }) => ffn.kind === "moe");
  const load = isMixture ? await loadOf({ source, ids, sequence: block.sequence, backend, threads, signal }) : [];
  const checkpoint = await openCheckpoint(source);
  try {
    const alike = similarityRecord(await similarity?.((key) => checkpoint.readFloat32(key)));
    return { type: "eval", tokens, loss, load, ...alike };
  } finally {
    await checkpoint.close();
  }
}

type LoadRequest = Pick<RunOptions, "backend" | "threads" | "signal"> & {
  readonly source: ModelSource;
  readonly ids: Int32Array;
  readonly sequence: number;
};

/** Fractions of all assignments per expert, by MoE layer. */
async function loadOf({ source, ids, ...others }: LoadRequest): Promise<number[][]> {
  const encoded = { ids, source: foldersOf(source).join("+") };
  const { values } = await expertUtility({ ...others, source, by: "load", encoded, tokens: ids.length });
  return values.flatMap((counts) => {
    if (counts === null) return [];
    const sum = counts.reduce((a, b) => a + b, 0);
    return [counts.map((count) => count / sum)];
  });
}
