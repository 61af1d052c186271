/** Checkpoints of a run: ordinary model folders that also hold the optimizer's moments and the step. */
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { openCheckpoint } from "../files/checkpoint/open.js";
import { writeCheckpoint, type WriteDtype } from "../files/checkpoint/write.js";
import { elements } from "../graph/ir/ir.js";
import { completeFolder, exists, writeJson } from "../files/io/atomic.js";
import { readJson } from "../files/io/ranges.js";
import { openTensorFile, writeTensorFile } from "../files/io/tensor-file.js";
import type { DecoderSpec } from "../model/decoder/types.js";
import type { ParameterPlan } from "../engine/optimizer/groups.js";
import type { StateKind, TrainRuntime } from "../engine/runtime/runtime.js";
import { slotsOf } from "../model/tensors/slots.js";
import type { GuardState } from "./guard.js";

/** How far a run is: `training.json` beside the weights in `last/`. */
export interface Progress {
  /** Updates done. */
  readonly step: number;
  readonly bestLoss: number | null;
  /** Milliseconds spent training so far. */
  readonly ms: number;
  /** Largest resident memory of any process so far. */
  readonly peakRssBytes: number;
  /** What the spike guard goes by; absent without one. */
  readonly guard?: GuardState | undefined;
}

const progressFile = "training.json";
const momentsFile = "optimizer.safetensors";

/** What a checkpoint holds beside the model. */
export interface StateLayout {
  /** Precision of the model's files; other than F32, the weights themselves lie beside the moments. */
  readonly dtype: WriteDtype;
  /** Float32 tensors to keep per parameter. */
  readonly kinds: (key: string) => readonly StateKind[];
}

/** State in the order of the file that holds it. */
const kindOrder = ["weight", "moment1", "moment2", "average"] as const satisfies readonly StateKind[];

/** What an exact resume needs for each parameter. */
export function stateLayout(
  { frozen, tuning }: ParameterPlan,
  { dtype, average }: { readonly dtype: WriteDtype; readonly average: boolean },
): StateLayout {
  return {
    dtype,
    kinds: (key) =>
      kindOrder.filter((kind) => {
        if (kind === "weight") return dtype !== "F32";
        if (frozen.has(key)) return false;
        if (kind === "average") return average;
        return kind !== "moment2" || tuning[key]?.method !== "muon";
      }),
  };
}

const bytesOf = (data: Float32Array): Uint8Array => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** What is saved, and where. */
interface SaveOptions {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** The runtime, or a copy of its state. */
  readonly state: Pick<TrainRuntime, "read">;
  readonly layout: StateLayout;
  /** Folder whose tokenizer files come along. */
  readonly carry: string | undefined;
  readonly lineage: unknown;
  /** Texts of further files, such as the model's card. */
  readonly texts?: Readonly<Record<string, string>> | undefined;
  /** Null: the weights are saved without the state of the training. */
  readonly progress: Progress | null;
  /** Whether the model is made of averages; a parameter without an average is saved with its weight. */
  readonly averaged?: boolean;
}

/** Replaces `dir` with the current state; at every moment the old or the new one is complete on disk. */
export async function saveState({
  dir,
  spec,
  state,
  layout,
  carry,
  lineage,
  texts,
  progress,
  averaged = false,
}: SaveOptions): Promise<void> {
  const tensors = kindOrder.flatMap((kind) =>
    slotsOf(spec)
      .filter(({ key }) => layout.kinds(key).includes(kind))
      .map(({ key, shape }) => ({ name: `${kind}.${key}`, dtype: "F32" as const, shape })),
  );
  await writeCheckpoint({
    dir,
    spec,
    dtype: layout.dtype,
    carry,
    lineage,
    overwrite: "checkpoint",
    weights: ({ key }) => state.read(averaged && layout.kinds(key).includes("average") ? "average" : "weight", key),
    files: { ...texts, ...(progress === null ? {} : { [progressFile]: `${JSON.stringify(progress)}\n` }) },
    extraBytes: progress === null ? 0 : 4 * tensors.reduce((sum, { shape }) => sum + elements(shape), 0),
    finish: async (folder) => {
      if (progress === null) return;
      await writeTensorFile(join(folder, momentsFile), tensors, async (name) => {
        const [kind, ...key] = name.split(".");
        return bytesOf(await state.read(kind as StateKind, key.join(".")));
      });
    },
  });
}

/** Says how far the model in `dir` has been trained, where another program has trained it. */
export const writeProgress = (dir: string, progress: Progress): Promise<void> =>
  writeJson(join(dir, progressFile), progress);

/**
 * The progress of a saved run, or null if nothing was saved yet. Only looks, since the run may be another command's,
 * which is just replacing the folder: whoever goes on with a run puts back first what was cut off (`restoreReplaced`).
 */
export async function savedProgress(dir: string): Promise<Progress | null> {
  // The folder that was complete may be gone when it is read, and another one then lies in its place.
  for (let look = 0; look < 3; look++) {
    const path = join(await completeFolder(dir), progressFile);
    const value = (await exists(path)) ? await readJson(path).catch(unlessGone) : undefined;
    if (value !== undefined) return progressOf(value, path);
  }
  return null;
}

/** Undefined for a file that is not there any more; throws any other cause. */
function unlessGone(cause: unknown): undefined {
  if (((cause as Error).cause as NodeJS.ErrnoException | undefined)?.code !== "ENOENT") throw cause;
}

function progressOf(value: Partial<Progress> | null, path: string): Progress {
  const { step, ms, bestLoss = null, peakRssBytes = 0, guard } = value ?? {};
  if (step === undefined || !Number.isInteger(step) || typeof ms !== "number") {
    throw inputError("this is not the progress of a run", {
      where: path,
      hint: "remove the run folder to start again",
    });
  }
  return { step, ms, bestLoss, peakRssBytes, guard };
}

/** Loads weights and moments into a runtime. */
export async function loadState(
  dir: string,
  spec: DecoderSpec,
  layout: StateLayout,
  runtime: TrainRuntime,
): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const optimizer = await openTensorFile(join(dir, momentsFile));
    try {
      for (const { key } of slotsOf(spec)) {
        const kinds = layout.kinds(key);
        if (!kinds.includes("weight")) await runtime.write("weight", key, await checkpoint.readFloat32(key));
        for (const kind of kinds)
          await runtime.write(kind, key, new Float32Array((await optimizer.read(`${kind}.${key}`)).buffer));
      }
    } finally {
      await optimizer.close();
    }
  } finally {
    await checkpoint.close();
  }
}
