/** Checkpoints of a run: ordinary model folders that also hold the optimizer's moments and the step. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { writeCheckpoint } from "../checkpoint/write.js";
import { elements } from "../graph/ir.js";
import { exists, restoreReplaced } from "../io/atomic.js";
import { readJson } from "../io/ranges.js";
import { openTensorFile, writeTensorFile } from "../io/tensor-file.js";
import type { DecoderSpec } from "../spec/types.js";
import type { StateKind, TrainRuntime } from "../step/runtime.js";
import { slotsOf } from "../tensors/slots.js";

/** Beside the weights in `last/`. */
export interface Progress {
  /** Updates done. */
  readonly step: number;
  readonly bestLoss: number | null;
  /** Milliseconds spent training so far. */
  readonly ms: number;
  /** Largest resident memory of any process so far. */
  readonly peakRssBytes: number;
}

const progressFile = "training.json";
const momentsFile = "optimizer.safetensors";
const moments = ["moment1", "moment2"] as const satisfies readonly StateKind[];

const bytesOf = (data: Float32Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

export interface SaveOptions {
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly runtime: TrainRuntime;
  /** Keys without moments. */
  readonly frozen: ReadonlySet<string>;
  /** Folder whose tokenizer files come along. */
  readonly carry: string | undefined;
  /** Null: weights only. */
  readonly progress: Progress | null;
}

/** Replaces `dir` with the current state; at every moment the old or the new one is complete on disk. */
export async function saveState({ dir, spec, runtime, frozen, carry, progress }: SaveOptions): Promise<void> {
  const trained = slotsOf(spec).filter(({ key }) => !frozen.has(key));
  await writeCheckpoint({
    dir, spec, dtype: "F32", carry, overwrite: true,
    weights: (slot) => runtime.read("weight", slot.key),
    files: progress === null ? {} : { [progressFile]: `${JSON.stringify(progress)}\n` },
    extraBytes: progress === null ? 0 : 2 * 4 * trained.reduce((sum, { shape }) => sum + elements(shape), 0),
    finish: async (folder) => {
      if (progress === null) return;
      const tensors = moments.flatMap((kind) => trained.map(({ key, shape }) => ({ name: `${kind}.${key}`, dtype: "F32" as const, shape })));
      await writeTensorFile(join(folder, momentsFile), tensors, async (name) => {
        const [kind, ...key] = name.split(".");
        return bytesOf(await runtime.read(kind as StateKind, key.join(".")));
      });
    },
  });
}

/** The progress of a saved run, or null if nothing was saved yet. */
export async function savedProgress(dir: string): Promise<Progress | null> {
  await restoreReplaced(dir);
  const path = join(dir, progressFile);
  if (!(await exists(path))) return null;
  const value = (await readJson(path)) as Partial<Progress> | null;
  if (!Number.isInteger(value?.step) || typeof value?.ms !== "number") {
    throw inputError("this is not the progress of a run", { where: path, hint: "remove the run folder to start again" });
  }
  return { step: value.step!, ms: value.ms, bestLoss: value.bestLoss ?? null, peakRssBytes: value.peakRssBytes ?? 0 };
}

/** Loads weights and moments into a runtime. */
export async function loadState(dir: string, spec: DecoderSpec, frozen: ReadonlySet<string>, runtime: TrainRuntime): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const optimizer = await openTensorFile(join(dir, momentsFile));
    try {
      for (const { key } of slotsOf(spec)) {
        await runtime.write("weight", key, await checkpoint.readFloat32(key));
        for (const kind of frozen.has(key) ? [] : moments) await runtime.write(kind, key, new Float32Array((await optimizer.read(`${kind}.${key}`)).buffer));
      }
    } finally {
      await optimizer.close();
    }
  } finally {
    await checkpoint.close();
  }
}
