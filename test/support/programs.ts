/** Golden models as programs with weights and batches, ready to run. */
import { openCheckpoint } from "../../src/files/checkpoint/open.js";
import { openTrainRuntime } from "../../src/engine/onnxruntime/train-runtime.js";
import type { DecoderSpec } from "../../src/model/decoder/types.js";
import { trainProgram, type TrainProgram } from "../../src/graph/programs/programs.js";
import type { AdamW, MicroBatch, TrainRuntime } from "../../src/engine/runtime/runtime.js";
import { golden, readTensors, shifted } from "./golden.js";

export interface GoldenRun {
  readonly spec: DecoderSpec;
  /** [B, S] of every batch in the file. */
  readonly batch: number;
  readonly sequence: number;
  readonly weights: ReadonlyMap<string, Float32Array>;
  /** Batch `step`, or `rows` of its sequences from `first` on. */
  readonly batchAt: (step: number, first?: number, rows?: number) => MicroBatch;
}

/** A model of golden/train with its batches. */
export async function goldenRun(name: string): Promise<GoldenRun> {
  const checkpoint = await openCheckpoint(golden(name));
  const { data, shape } = readTensors(golden(name, "batches.safetensors")).get("input_ids")!;
  const [, batch, sequence] = shape as [number, number, number];
  const { spec } = checkpoint;
  const keys = trainProgram(spec, { batch, sequence, auxCoef: 0, zCoef: 0 }).params.map(({ key }) => key);
  const weights = new Map<string, Float32Array>();
  for (const key of keys) weights.set(key, await checkpoint.readFloat32(key));
  await checkpoint.close();
  return {
    spec,
    batch,
    sequence,
    weights,
    batchAt: (step, first = 0, rows = batch) =>
      shifted(data.subarray((step * batch + first) * sequence, (step * batch + first + rows) * sequence), sequence),
  };
}

export const adamw = (update: number, changes: Partial<AdamW> = {}): AdamW => ({
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.1,
  decayOn: "matrices",
  clipNorm: 1,
  update,
  ...changes,
});

export async function load(runtime: TrainRuntime, weights: ReadonlyMap<string, Float32Array>): Promise<TrainRuntime> {
  for (const [key, data] of weights) await runtime.write("weight", key, data);
  return runtime;
}

/** A runtime in this thread that holds the given weights. */
export async function openLoaded(
  program: TrainProgram,
  weights: ReadonlyMap<string, Float32Array>,
  { threads = 1, accumulate = false } = {},
): Promise<TrainRuntime> {
  return load(await openTrainRuntime(program, { threads, accumulate }), weights);
}

/** All weights and moments. */
export async function readAll(runtime: TrainRuntime, keys: Iterable<string>): Promise<Map<string, Float32Array>> {
  const out = new Map<string, Float32Array>();
  for (const key of keys)
    for (const kind of ["weight", "moment1", "moment2"] as const)
      out.set(`${kind} ${key}`, await runtime.read(kind, key));
  return out;
}
