/**
 * Writes a model folder. The whole layout is known before the first weight: sizes, shards and headers come from the
 * spec. Then the weights are made chunk by chunk and written to their places, so memory holds a chunk, and the
 * finished folder gets its name last.
 *
 *   spec -> slots with names -> shards and headers -> free space? -> staged folder -> chunks -> rename
 */
import { open } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../base/errors.js";
import { indexFileName } from "../format/shards.js";
import { stageDirectory, writeAll, writeFileSynced } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import { requireFreeSpace } from "../io/space.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { convertBytes, floatBytes, fromFloat32 } from "../numeric/dtype.js";
import type { ConfigDtype } from "../spec/config.js";
import { configFromSpec, stringifyConfig } from "../spec/config.js";
import type { DecoderSpec } from "../spec/types.js";
import { copyRegion } from "../surgery/evaluate.js";
import { matrixShape } from "../surgery/values.js";
import type { Slot } from "../tensors/slots.js";
import { planChunks } from "./chunks.js";
import { copyFiles, findCarried } from "./copy.js";
import { fillChunk, type MakeArea } from "./fill.js";
import { planFiles, type FilePlan, type PlannedFile, type SlotDtype, type WriteDtype } from "./plan-files.js";

export type { SlotDtype, WriteDtype } from "./plan-files.js";

const configNames: Readonly<Record<WriteDtype, ConfigDtype>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/** Values as float32, or stored bytes of any precision; both are converted to the precision of the folder. */
export type TensorValue = Float32Array | { readonly dtype: FloatDtype; readonly bytes: Uint8Array };

export type Weights =
  /** Whole tensors: asked for once per slot, in the order of the stored tensors; the slots of one stored tensor are kept together. */
  | ((slot: Slot) => Promise<TensorValue>)
  /** Rectangles of slots, for tensors that are too large to hold. */
  | { readonly area: MakeArea; /** Equal for slots with equal values, which are then made once. */ readonly sameAs?: (slot: Slot) => string };

export interface WriteProgress {
  /** Hugging Face name of the tensor just worked on. */
  readonly name: string;
  readonly bytes: number;
  readonly totalBytes: number;
}

export interface WriteOptions {
  /** The folder to make; parents are made as needed. */
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** Of config.json, and of every slot unless `slotDtype` says otherwise. */
  readonly dtype: WriteDtype;
  readonly slotDtype?: ((slot: Slot) => WriteDtype) | undefined;
  /** Where the weights come from. */
  readonly weights: Weights;
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

/**
 * Writes config.json, the weights, the index if there are several files, carried and further files.
 * Throws inputError if `dir` is taken or cannot be written to, or the spec cannot be said in its family's config;
 * stopError if the disk is (or would be) full. After a failure `dir` is as it was before.
 */
export async function writeCheckpoint(options: WriteOptions): Promise<WrittenCheckpoint> {
  const { dir, spec, dtype, carry, files = {} } = options;
  const config = stringifyConfig(configFromSpec(spec, { dtype: configNames[dtype] }));
  const plan = planFiles(spec, options.slotDtype ?? dtype, options.maxShardBytes);
  const extras: Record<string, string | Uint8Array> = { ...(plan.index === null ? {} : { [indexFileName]: plan.index }), "config.json": config };
  for (const name of Object.keys(files)) {
    const taken = Object.hasOwn(extras, name) || plan.files.some(({ file }) => file === name);
    if (taken || /[/\\]|^\.{0,2}$/.test(name)) throw inputError(`${JSON.stringify(name)} cannot be a further file of a model folder`, { where: dir });
  }
  const carried = carry === undefined ? { names: [], bytes: 0 } : await findCarried(carry);
  await requireFreeSpace(dir, plan.weightBytes + carried.bytes + sizeOf(extras) + sizeOf(files) + (options.extraBytes ?? 0));

  const stage = await stageDirectory(dir, { overwrite: options.overwrite });
  try {
    if (carry !== undefined) await copyFiles(carry, stage.path, carried.names.filter((name) => !Object.hasOwn(files, name)));
    await writeWeights(stage.path, plan, options);
    await options.finish?.(stage.path);
    // config.json comes last: a folder without it is no model.
    for (const [name, data] of Object.entries({ ...files, ...extras })) await writeFileSynced(join(stage.path, name), data);
    await stage.commit();
  } catch (cause) {
    await stage.discard();
    throw cause;
  }
  return { dir, weightFiles: plan.files.map(({ file }) => file), weightBytes: plan.weightBytes };
}

/** Exact size in bytes of the weight files that `writeCheckpoint` would write. */
export function plannedWeightBytes(spec: DecoderSpec, dtype: SlotDtype, maxShardBytes?: number): number {
  return planFiles(spec, dtype, maxShardBytes).weightBytes;
}

async function writeWeights(folder: string, { files }: FilePlan, { dir, weights, onProgress }: WriteOptions): Promise<void> {
  const make = typeof weights === "function" ? areasOfWhole(weights, files) : weights.area;
  const chunks = planChunks(files, undefined, typeof weights === "function" ? undefined : weights.sameAs);
  const totalBytes = chunks.reduce((sum, { bytes, places }) => sum + bytes * places.length, 0);
  const memory = new Uint8Array(Math.max(...chunks.map(({ bytes }) => bytes)));
  const failing = <T>(file: string, run: () => Promise<T>): Promise<T> => withFsErrors(join(dir, file), "write weights", run);
  const handles = await Promise.all(files.map(({ file }) => failing(file, () => open(join(folder, file), "wx"))));
  try {
    for (const [i, { file, header }] of files.entries()) await failing(file, () => writeAll(handles[i]!, header.bytes, 0));
    let written = 0;
    for (const chunk of chunks) {
      const out = memory.subarray(0, chunk.bytes);
      await fillChunk(chunk, make, out);
      for (const { file, offset } of chunk.places) await failing(files[file]!.file, () => writeAll(handles[file]!, out, offset));
      written += chunk.bytes * chunk.places.length;
      onProgress?.({ name: chunk.name, bytes: written, totalBytes });
    }
    for (const [i, { file }] of files.entries()) await failing(file, () => handles[i]!.sync());
  } finally {
    await Promise.all(handles.map((handle) => handle.close()));
  }
}

/** Cuts rectangles out of whole tensors; those of one stored tensor are kept until another's turn. */
function areasOfWhole(tensor: (slot: Slot) => Promise<TensorValue>, files: readonly PlannedFile[]): MakeArea {
  const storedAs = new Map(files.flatMap(({ tensors }) => tensors.flatMap(({ name, slots }) => slots.map(({ slot }): [string, string] => [slot.key, name]))));
  const held = new Map<string, Promise<Uint8Array>>();
  let current: string | undefined;
  return async (slot, { rowStart, rowCount, columnStart, columnCount }, dtype) => {
    const stored = storedAs.get(slot.key)!;
    if (stored !== current) held.clear();
    current = stored;
    let whole = held.get(slot.key);
    if (whole === undefined) held.set(slot.key, (whole = tensor(slot).then((value) => encoded(slot, value, dtype))));
    const [, columns] = matrixShape(slot.shape);
    const size = floatBytes[dtype];
    return copyRegion(await whole, { key: slot.key, rowStart, rowCount, columnStart: columnStart * size, columnCount: columnCount * size, stride: columns * size });
  };
}

function encoded({ key, shape }: Slot, value: TensorValue, dtype: WriteDtype): Uint8Array {
  const bytes = value instanceof Float32Array ? fromFloat32(dtype, value) : convertBytes(value.dtype, dtype, value.bytes);
  const expected = shape.reduce((a, b) => a * b, floatBytes[dtype]);
  if (bytes.byteLength !== expected) throw new Error(`${key}: got ${bytes.byteLength} bytes, ${dtype} [${shape.join(", ")}] takes ${expected}`);
  return bytes;
}

function sizeOf(files: Readonly<Record<string, string | Uint8Array>>): number {
  return Object.values(files).reduce((sum, data) => sum + (typeof data === "string" ? Buffer.byteLength(data) : data.byteLength), 0);
}
