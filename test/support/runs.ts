/** Tiny training runs. */
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { UpcycleError } from "../../src/base/errors.js";
import { randomStream } from "../../src/base/random.js";
import type { TrainingBlock } from "../../src/base/schemas/index.js";
import { plainAttention, plainRope } from "../../src/model/decoder/plain.js";
import {
  plainBlocks,
  plainExperts,
  rmsNorm,
  softmaxRouter,
  type DecoderSpec,
  type RouterSpec,
} from "../../src/model/decoder/types.js";
import type { Backend, TrainRuntime } from "../../src/engine/runtime/runtime.js";
import { freshTensor } from "../../src/train/init.js";
import { readMetrics, type RunMetrics } from "../../src/train/records.js";
import { trainRun, type RunOptions, type RunResult, type TrainEvent } from "../../src/train/run.js";
import { inThread } from "./backend.js";

export const moeSpec: DecoderSpec = {
  family: "mixtral",
  vocab: 64,
  hidden: 16,
  tiedHead: true,
  ...plainBlocks,
  norm: rmsNorm(1e-5),
  maxPositions: 64,
  attn: plainAttention({ heads: 2, kvHeads: 1, headDim: 8 }),
  layers: Array.from({ length: 2 }, () => ({
    window: null,
    rope: plainRope(10000, 8),
    ffn: {
      kind: "moe",
      activation: "silu",
      ffnDim: 24,
      experts: 4,
      topK: 2,
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    } as const,
  })),
  tokens: { bos: null, eos: [0], pad: null },
  initStd: 0.05,
  auxLossCoef: 0.01,
};

/** The mixture with another router, which our own format can write. */
export const routed = (router: RouterSpec, topK = 2): DecoderSpec => ({
  ...moeSpec,
  family: "upcycle",
  layers: moeSpec.layers.map((layer) => ({
    ...layer,
    ffn: {
      kind: "moe",
      activation: "silu",
      ffnDim: 24,
      experts: 4,
      topK,
      router,
      ...plainExperts,
      shared: null,
    } as const,
  })),
});

export const denseSpec: DecoderSpec = {
  ...moeSpec,
  family: "llama",
  auxLossCoef: 0,
  layers: moeSpec.layers.map(() => ({
    window: null,
    rope: plainRope(10000, 8),
    ffn: { kind: "dense", ffnDim: 32, bias: false, activation: "silu", gated: true },
  })),
};

export const block: TrainingBlock = {
  steps: 12,
  batch: 2,
  sequence: 16,
  accumulate: 2,
  lr: { peak: 3e-3, schedule: "cosine", warmup: 2, final: 0.1 },
  optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, clip: 1 },
  auxLoss: 0.01,
  zLoss: 0.001,
  evalEvery: 4,
  saveEvery: 3,
};

/** Text with something to learn: each token follows from the one before, with noise. */
export function text(count: number, name: string, vocab = 64): Int32Array {
  const stream = randomStream(9, name);
  const out = new Int32Array(count);
  for (let i = 1; i < count; i++)
    out[i] =
      stream.uniformAt(2 * i) < 0.8 ? (out[i - 1]! * 5 + 7) % vocab : Math.floor(stream.uniformAt(2 * i + 1) * vocab);
  return out;
}

/** Options of a run on one text. */
export type PlainOptions = RunOptions & { readonly text: { readonly train: Int32Array; readonly heldOut: Int32Array } };

export function runOptions(dir: string): PlainOptions;
export function runOptions<C extends Partial<RunOptions>>(
  dir: string,
  changes: C,
): C extends { text: unknown } ? RunOptions : PlainOptions;
export function runOptions(dir: string, changes: Partial<RunOptions> = {}): RunOptions {
  const spec = changes.spec ?? moeSpec;
  return {
    dir,
    spec,
    block,
    carry: undefined,
    evaluationTokens: 100,
    seed: 4,
    threads: 1,
    backend: inThread,
    initial: (slot) => Promise.resolve(freshTensor(spec, slot, 1)),
    documentEnd: 0,
    text: { train: text(800, "train"), heldOut: text(150, "held-out") },
    identity: { model: "tiny" },
    ...changes,
  };
}

export async function finish(
  options: RunOptions,
  onEvent?: (event: TrainEvent) => void | Promise<void>,
): Promise<RunResult> {
  const events = trainRun(options);
  for (;;) {
    const next = await events.next();
    if (next.done === true) return next.value;
    await onEvent?.(next.value);
  }
}

/** The error that a promise is rejected with; it must be one that users are shown. */
export async function failure(promise: Promise<unknown>): Promise<UpcycleError> {
  const error: unknown = await promise.then(
    () => "no error",
    (cause: unknown) => cause,
  );
  if (!(error instanceof UpcycleError)) throw new Error(`expected an UpcycleError, got ${String(error)}`);
  return error;
}

/** Runs until so many steps are done, then stops the run by its signal. */
export async function stopAfter(options: RunOptions, step: number): Promise<void> {
  const controller = new AbortController();
  const stopped = await failure(
    finish({ ...options, signal: controller.signal }, (event) => {
      if (event.type === "step" && event.step === step) controller.abort();
    }),
  );
  if (stopped.kind !== "interrupted") throw stopped;
}

/** Number of the step that a run's last checkpoint holds. */
export function savedStep(dir: string): number {
  return (JSON.parse(readFileSync(join(dir, "last/training.json"), "utf8")) as { step: number }).step;
}

/** Names in a folder that begin with a dot, such as what was not finished. */
export const hiddenEntries = (dir: string): string[] => readdirSync(dir).filter((name) => name.startsWith("."));

/** What a run leaves behind that must not depend on when it was stopped: metrics without times, weights, moments. */
export async function remains(dir: string): Promise<{ metrics: unknown; files: Record<string, string> }> {
  const { steps, evals, done } = await readMetrics(dir);
  const metrics = { steps: steps.map((step) => ({ ...step, ms: 0 })), evals, done: done?.step };
  const names = [
    "run.json",
    "last/config.json",
    "last/model.safetensors",
    "last/optimizer.safetensors",
    "best/model.safetensors",
  ];
  return {
    metrics,
    files: Object.fromEntries(
      names.map((name) => [
        name,
        createHash("sha256")
          .update(readFileSync(join(dir, name)))
          .digest("hex"),
      ]),
    ),
  };
}

export const losses = (metrics: RunMetrics): number[] => metrics.steps.map(({ loss }) => loss);

/** A backend whose training runtimes are changed by `change`. */
export function changedBackend(change: (runtime: TrainRuntime) => Partial<TrainRuntime>): Backend {
  return {
    ...inThread,
    async openTrain(program, options) {
      const runtime = await inThread.openTrain(program, options);
      return { ...runtime, ...change(runtime) };
    },
  };
}
