/**
 * Writes a model folder. The whole layout is known before the first weight: sizes, shards and headers come from the
 * spec. Then tensors are asked for one at a time and streamed to their place, so memory holds one tensor, and the
 * finished folder gets its name last.
 *
 *   spec -> slots with names -> shards and headers -> free space? -> staged folder -> tensors -> rename
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import type { HeaderPlan } from "../format/safetensors.js";
import { planHeader } from "../format/safetensors.js";
import { indexFileName, planShards } from "../format/shards.js";
import { stageDirectory, writeAll, writeFileSynced } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { requireFreeSpace } from "../io/space.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { convertBytes, floatBytes, fromFloat32 } from "../numeric/dtype.js";
import type { ConfigDtype } from "../spec/config.js";
import { configFromSpec, stringifyConfig } from "../spec/config.js";
import type { DecoderSpec } from "../spec/types.js";
import { isWhole, putSlot, storedTensors, type Placement } from "../tensors/placement.js";
import type { Slot } from "../tensors/slots.js";
import { copyFiles, findCarried } from "./copy.js";

/** Precisions a model folder is written in. */
export type WriteDtype = Exclude<FloatDtype, "F64">;

const configNames: Readonly<Record<WriteDtype, ConfigDtype>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/** Values as float32, or stored bytes of any precision; both are converted to the precision of the folder. */
export type TensorValue = Float32Array | { readonly dtype: FloatDtype; readonly bytes: Uint8Array };

export interface WriteProgress {
  /** Hugging Face name of the tensor just written. */
  readonly name: string;
  readonly tensors: number;
  readonly totalTensors: number;
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface WriteOptions {
  /** The folder to make; parents are made as needed. */
  readonly dir: string;
  readonly spec: DecoderSpec;
  readonly dtype: WriteDtype;
  /** Called once per slot, in the order of the stored tensors, the next call only after the previous slot is written. */
  readonly tensor: (slot: Slot) => Promise<TensorValue>;
  /** A model folder whose tokenizer and generation files are copied. */
  readonly carry?: string | undefined;
  /** Further files by name; they win over carried ones. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined;
  /** Adds larger further files to the unfinished folder; they take `extraBytes`. */
  readonly finish?: ((folder: string) => Promise<void>) | undefined;
  readonly extraBytes?: number | undefined;
  /** Most bytes of tensors per file (default 5 GB). */
  readonly maxShardBytes?: number | undefined;
  readonly onProgress?: ((progress: WriteProgress) => void) | undefined;
  /** Replace a non-empty folder. The old one stays on disk until the new one is complete. */
  readonly overwrite?: boolean | undefined;
}

export interface WrittenCheckpoint {
  readonly dir: string;
  /** Names of the weight files. */
  readonly weightFiles: readonly string[];
  /** Bytes of all weight files, headers included. */
  readonly weightBytes: number;
}

interface ShardFile {
  readonly file: string;
  readonly header: HeaderPlan;
  /** Stored tensors in file order, each with the slots that lie in it. */
  readonly tensors: readonly { readonly name: string; readonly slots: readonly Placement[] }[];
}

/**
 * Writes config.json, the weights, the index if there are several files, carried and further files.
 * Throws inputError if `dir` is taken or cannot be written to, or the spec cannot be said in its family's config;
 * stopError if the disk is (or would be) full. After a failure `dir` is as it was before.
 */
export async function writeCheckpoint(options: WriteOptions): Promise<WrittenCheckpoint> {
  const { dir, spec, dtype, carry, files = {} } = options;
  const config = stringifyConfig(configFromSpec(spec, { dtype: configNames[dtype] }));
  const { shards, index } = planFiles(spec, dtype, options.maxShardBytes);
  const extras: Record<string, string | Uint8Array> = { ...(index === null ? {} : { [indexFileName]: index }), "config.json": config };
  for (const name of Object.keys(files)) {
    const taken = Object.hasOwn(extras, name) || shards.some(({ file }) => file === name);
    if (taken || /[/\\]|^\.{0,2}$/.test(name)) throw inputError(`${JSON.stringify(name)} cannot be a further file of a model folder`, { where: dir });
  }
  const carried = carry === undefined ? { names: [], bytes: 0 } : await findCarried(carry);
  const weightBytes = shards.reduce((sum, { header }) => sum + header.fileBytes, 0);
  await requireFreeSpace(dir, weightBytes + carried.bytes + sizeOf(extras) + sizeOf(files) + (options.extraBytes ?? 0));

  const stage = await stageDirectory(dir, { overwrite: options.overwrite });
  try {
    if (carry !== undefined) await copyFiles(carry, stage.path, carried.names.filter((name) => !Object.hasOwn(files, name)));
    const report = progressOf(shards, dtype, options.onProgress);
    for (const shard of shards) await writeShard(stage.path, shard, options, report);
    await options.finish?.(stage.path);
    // config.json comes last: a folder without it is no model.
    for (const [name, data] of Object.entries({ ...files, ...extras })) await writeFileSynced(join(stage.path, name), data);
    await stage.commit();
  } catch (cause) {
    await stage.discard();
    throw cause;
  }
  return { dir, weightFiles: shards.map(({ file }) => file), weightBytes };
}

/** Exact size in bytes of the weight files that `writeCheckpoint` would write. */
export function plannedWeightBytes(spec: DecoderSpec, dtype: WriteDtype, maxShardBytes?: number): number {
  return planFiles(spec, dtype, maxShardBytes).shards.reduce((sum, { header }) => sum + header.fileBytes, 0);
}

function planFiles(spec: DecoderSpec, dtype: WriteDtype, maxShardBytes: number | undefined): { shards: ShardFile[]; index: string | null } {
  const stored = storedTensors(spec);
  const plan = planShards([...stored].map(([name, [first]]) => ({ name, dtype, shape: first!.shape })), maxShardBytes);
  const shards = plan.shards.map(({ file, tensors }) => ({
    file, header: planHeader(tensors), tensors: tensors.map(({ name }) => ({ name, slots: stored.get(name)! })),
  }));
  return { shards, index: plan.index };
}

async function writeShard(folder: string, { file, header, tensors }: ShardFile, options: WriteOptions, report: (name: string, bytes: number) => void): Promise<void> {
  const path = join(folder, file);
  const fail = { path: join(options.dir, file), doing: "write weights" };
  const handle = await withFsErrors(fail.path, fail.doing, () => open(path, "wx"));
  try {
    await withFsErrors(fail.path, fail.doing, () => writeAll(handle, header.bytes, 0));
    for (const { name, slots } of tensors) {
      const { begin, end } = header.tensors.get(name)!;
      // Slots that share a tensor are put together in memory.
      const together = isWhole(slots[0]!) ? null : new Uint8Array(end - begin);
      for (const place of slots) {
        const bytes = encode(await options.tensor(place.slot), options.dtype);
        requireSize(place.slot, bytes, options.dtype);
        if (together === null) await withFsErrors(fail.path, fail.doing, () => writeAll(handle, bytes, begin));
        else putSlot(place, together, bytes, floatBytes[options.dtype]);
        // The last slot is done when its tensor is written.
        if (together !== null && place === slots.at(-1)) await withFsErrors(fail.path, fail.doing, () => writeAll(handle, together, begin));
        report(name, bytes.byteLength);
      }
    }
    await withFsErrors(fail.path, fail.doing, () => handle.sync());
  } finally {
    await handle.close();
  }
}

function requireSize({ key, shape }: Slot, bytes: Uint8Array, dtype: WriteDtype): void {
  const expected = shape.reduce((a, b) => a * b, floatBytes[dtype]);
  if (bytes.byteLength !== expected) throw new Error(`${key}: got ${bytes.byteLength} bytes, ${dtype} [${shape.join(", ")}] takes ${expected}`);
}

function encode(value: TensorValue, dtype: WriteDtype): Uint8Array {
  return value instanceof Float32Array ? fromFloat32(dtype, value) : convertBytes(value.dtype, dtype, value.bytes);
}

function progressOf(shards: readonly ShardFile[], dtype: WriteDtype, onProgress: WriteOptions["onProgress"]): (name: string, bytes: number) => void {
  const slots = shards.flatMap((shard) => shard.tensors.flatMap((tensor) => tensor.slots));
  const totalBytes = slots.reduce((sum, { slot }) => sum + floatBytes[dtype] * slot.shape.reduce((a, b) => a * b, 1), 0);
  let tensors = 0;
  let written = 0;
  return (name, bytes) => {
    tensors += 1;
    written += bytes;
    onProgress?.({ name, tensors, totalTensors: slots.length, bytes: written, totalBytes });
  };
}

function sizeOf(files: Readonly<Record<string, string | Uint8Array>>): number {
  return Object.values(files).reduce((sum, data) => sum + (typeof data === "string" ? Buffer.byteLength(data) : data.byteLength), 0);
}
