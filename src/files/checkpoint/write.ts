/**
 * Writes a model folder. The whole layout is known before the first weight: sizes, shards and headers come from the
 * spec. Then the weights are made chunk by chunk and written to their places, so memory holds a chunk, and the
 * finished folder gets its name last.
 *
 *   spec -> slots with names -> shards and headers -> free space? -> staged folder -> chunks -> rename
 *
 * Letters: R rows of a slot, its first dimension; C elements of a row, the product of all others.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { at, entryOf } from "../../base/at.js";
import { UpcycleError, inputError } from "../../base/errors.js";
import { stageDirectory, writeFileSynced } from "../io/atomic.js";
import type { Overwrite } from "../io/model-folder.js";
import { requireFreeSpace } from "../io/space.js";
import { convertBytes, floatBytes, fromFloat32 } from "../numeric/dtype.js";
import { copyRectangle, matrixShape, type TypedBytes } from "../numeric/rectangles.js";
import type { ConfigDtype } from "../../model/decoder/config.js";
import { configFromSpec, stringifyConfig } from "../../model/decoder/config.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Slot } from "../../model/tensors/slots.js";
import { openResumableWrite, type ResumableWrite, type Identity } from "./resumable-write.js";
import { openChunkWriter, type ChunkTarget, type ChunkWriter } from "./chunk-writer.js";
import type { Chunk } from "./chunks.js";
import { copyFiles, findCarried } from "./copy.js";
import type { MakeRectangle } from "./fill.js";
import { type PlannedFile, type SlotDtype, type WriteDtype } from "./plan-files.js";
import { createWeightFiles, fillWeightFiles, writeBetween } from "./weight-files.js";
import type { WeightFormat, WeightLayout } from "./weight-format.js";
import { layoutOf } from "./weight-layout.js";

export type { SlotDtype, WriteDtype } from "./plan-files.js";

/**
 * Key of config.json under which stands how the experts were made (`surgery/convert/lineage.ts`), for whoever merges
 * them when the record beside it is lost. Programs that load the model pass over keys that they do not know, and
 * transformers writes them again with a model that it has trained.
 */
export const lineageKey = "upcycle";

const configNames: Readonly<Record<WriteDtype, ConfigDtype>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/**
 * A whole tensor in its slot's shape, row-major: values as float32, or stored bytes of any precision. Both are
 * converted to the precision of the folder, rounding to nearest even.
 */
export type TensorValue = Float32Array | TypedBytes;

/** Where the weights of a new folder come from. */
export type Weights =
  /**
   * Gives whole tensors. It is called once for each slot, in the order of the stored tensors; the slots of one stored
   * tensor are held in memory together.
   */
  | ((slot: Slot) => Promise<TensorValue>)
  /** Makes rectangles of slots, for tensors that are too large for memory. */
  | RectangleWeights;

/** Weights that are made rectangle by rectangle. */
export interface RectangleWeights {
  /** Gives equal texts for slots with equal values, which are then made once. */
  readonly sameAs?: (slot: Slot) => string;
  /** Opens what makes and writes chunks, on this thread or others. */
  readonly open: (target: ChunkTarget) => Promise<ChunkWriter> | ChunkWriter;
}

/** Weights whose rectangles `make` makes on this thread; `sameAs` as in `RectangleWeights`. */
export function rectangleWeights(make: MakeRectangle, sameAs?: (slot: Slot) => string): RectangleWeights {
  return { open: (target) => openChunkWriter(target, make), ...(sameAs === undefined ? {} : { sameAs }) };
}

/** How far the writing of weights has come. */
export interface WriteProgress {
  /** Hugging Face name of the tensor just worked on. */
  readonly name: string;
  /** Bytes of weights that are written, those of an interrupted earlier write included. */
  readonly bytes: number;
  /** Bytes of all weights, without the files' headers. */
  readonly totalBytes: number;
}

/** What `writeCheckpoint` makes, and of what. */
export interface WriteOptions {
  /** The folder to make; parents are made as needed. */
  readonly dir: string;
  /** How the weights are stored; `safetensors` if left out. */
  readonly format?: WeightFormat | undefined;
  /** The model without its weights; config.json is written from it. */
  readonly spec: DecoderSpec;
  /**
   * The precision of config.json, and of every slot that the family does not keep in float32, unless `slotDtype` says
   * otherwise.
   */
  readonly dtype: WriteDtype;
  /** The precision of each slot, where that is not the same for all. */
  readonly slotDtype?: ((slot: Slot) => WriteDtype) | undefined;
  /** Where the weights come from. */
  readonly weights: Weights;
  /** A model folder whose tokenizer and generation files are copied. */
  readonly carry?: string | undefined;
  /** What config.json says under `lineageKey`. */
  readonly lineage?: unknown;
  /** Further files by name; they win over carried ones. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined;
  /** Texts in place of those of `files`, where they depend on the weights that were written. */
  readonly amended?: (() => Readonly<Record<string, string>>) | undefined;
  /** Adds larger further files to the unfinished folder; they take `extraBytes`. */
  readonly finish?: ((folder: string) => Promise<void>) | undefined;
  /** Bytes that `finish` will write, for the check of free space. */
  readonly extraBytes?: number | undefined;
  /** Most bytes of tensors per file (default 5 GB). */
  readonly maxShardBytes?: number | undefined;
  /**
   * Called for a run of bytes with values that are NaN or infinite: the names of the stored tensors that it is written
   * to, the slots that lie in it, and how many values those are. What it throws stops the writing.
   */
  readonly onNonFinite?: ((found: NonFiniteRun) => void | Promise<void>) | undefined;
  /** Called after each chunk of weights. */
  readonly onProgress?: ((progress: WriteProgress) => void) | undefined;
  /**
   * Resumes an interrupted write of the same folder, and leaves what is done on disk after a failure
   * (`resumable-write.ts`).
   */
  readonly resume?: ResumeOptions | undefined;
  /** Stops the writing between two chunks. */
  readonly signal?: AbortSignal | undefined;
  /**
   * For tests and measurements: bytes that are made in one go, bytes after which they are flushed to disk and recorded,
   * and whether they go past the page cache.
   */
  readonly pace?:
    | {
        readonly chunkBytes?: number | undefined;
        readonly flushBytes?: number | undefined;
        readonly direct?: boolean | undefined;
      }
    | undefined;
  /**
   * Replace a folder that is a model and nothing else, or a checkpoint. The old one stays on disk until the new one is
   * complete.
   */
  readonly overwrite?: Overwrite | undefined;
}

/** A run of bytes with values that are NaN or infinite. */
export interface NonFiniteRun {
  /** The stored tensors that hold it. */
  readonly names: readonly string[];
  readonly slots: readonly Slot[];
  readonly values: number;
}

/** The stored tensors that a chunk is written to. */
function namesOf({ name, places }: Chunk, files: readonly PlannedFile[]): string[] {
  return places.map(({ file, offset }) => {
    const tensor = at(files, file).tensors.find(({ begin, end }) => begin <= offset && offset < end);
    return tensor?.name ?? name;
  });
}

interface ResumeOptions {
  readonly identity: Identity;
  /** The identity's sources as they are now, looked at once more before the folder gets its name. */
  readonly sources: () => Promise<Identity["sources"]>;
  /** Called with what an earlier write left: its bytes, or the name of other unfinished work that was removed. */
  readonly onFound?:
    | ((earlier: { readonly bytes: number; readonly totalBytes: number } | { readonly replaced: string }) => void)
    | undefined;
}

/** A folder that was written. */
export interface WrittenCheckpoint {
  readonly dir: string;
  /** Names of the weight files. */
  readonly weightFiles: readonly string[];
  /** Bytes of all weight files, headers included. */
  readonly weightBytes: number;
  /** Whether an earlier process had written all of it, so that nothing was written now. */
  readonly earlier: boolean;
}

/**
 * Writes config.json, the weights, the index if there are several files, carried and further files.
 * Throws inputError if `dir` is taken or cannot be written to, or the spec cannot be said in its family's config;
 * stopError if the disk is (or would be) full; interruptedError for the signal. After a failure `dir` is as it was
 * before.
 */
export async function writeCheckpoint(options: WriteOptions): Promise<WrittenCheckpoint> {
  const { dir, carry } = options;
  const plan = planFolder(options);
  const carried = carry === undefined ? { names: [], bytes: 0 } : await findCarried(carry);
  const extraBytes = carried.bytes + sizeOf(plan.files) + (options.extraBytes ?? 0);
  const write = await beginWrite(options, plan.weights, extraBytes);
  const { files: weightFiles, weightBytes } = plan.weights;
  const result = { dir, weightFiles: weightFiles.map(({ file }) => file), weightBytes };
  if (write.finished) return { ...result, earlier: true };
  try {
    if (options.resume !== undefined)
      await requireFreeSpace(dir, weightBytes + extraBytes - (await allocatedBytes(write.path, plan.weights)));
    await writeWeights(write, plan.weights, options);
    if (carry !== undefined) await copyFiles(carry, write.path, carriedAlone(carried.names, options));
    await options.finish?.(write.path);
    await requireSameSources(options.resume);
    const files = { ...plan.files, ...options.amended?.() };
    for (const [name, data] of Object.entries(files)) await writeFileSynced(join(write.path, name), data);
    await write.commit();
  } catch (cause) {
    // A full disk, Ctrl-C, a forbidden file: what is done stays. A value that cannot be written would be met again.
    if (cause instanceof UpcycleError && cause.kind === "input" && cause.cause === undefined) await write.discard();
    else await write.leave();
    throw cause;
  }
  return { ...result, earlier: false };
}

interface FolderPlan {
  readonly weights: WeightLayout;
  /** All other files that are not copied, in the order in which they are written. */
  readonly files: Readonly<Record<string, string | Uint8Array>>;
}

function planFolder(options: WriteOptions): FolderPlan {
  const { dir, spec, dtype, lineage, files = {} } = options;
  const config = stringifyConfig({
    ...configFromSpec(spec, { dtype: configNames[dtype] }),
    [lineageKey]: lineage ?? undefined,
  });
  const weights = layoutOf(options.format ?? "safetensors", spec, options.slotDtype ?? dtype, options.maxShardBytes);
  // config.json comes last: a folder without it is no model.
  const ownFiles = { ...weights.extras(), "config.json": config };
  for (const name of Object.keys(files)) {
    const isOurs = Object.hasOwn(ownFiles, name) || weights.files.some(({ file }) => file === name);
    if (isOurs || /[/\\]|^\.{0,2}$/.test(name))
      throw inputError(`${JSON.stringify(name)} cannot be a further file of a model folder`, { where: dir });
  }
  return { weights, files: { ...files, ...ownFiles } };
}

/** Names of carried files that no further file replaces. */
function carriedAlone(names: readonly string[], { files = {} }: WriteOptions): string[] {
  return names.filter((name) => !Object.hasOwn(files, name));
}

function beginWrite(options: WriteOptions, plan: WeightLayout, extraBytes: number): Promise<ResumableWrite> {
  const { dir, overwrite, resume } = options;
  return resume === undefined
    ? beginWriteInOneGo(options, plan, extraBytes)
    : openResumableWrite(dir, { overwrite, identity: resume.identity, files: plan.files });
}

/** A write that finishes in this process or leaves nothing. */
async function beginWriteInOneGo(
  { dir, overwrite }: WriteOptions,
  plan: WeightLayout,
  extraBytes: number,
): Promise<ResumableWrite> {
  await requireFreeSpace(dir, plan.weightBytes + extraBytes);
  const stage = await stageDirectory(dir, { overwrite });
  const { path } = stage;
  const discard = (): Promise<void> => stage.discard();
  try {
    await createWeightFiles(path, plan.files, dir);
  } catch (cause) {
    await discard();
    throw cause;
  }
  return {
    path,
    done: new Set(),
    sums: new Map(),
    replaced: null,
    finished: false,
    record: () => Promise.resolve(),
    commit: () => stage.commit(),
    leave: discard,
    discard,
  };
}

/** Bytes of disk that the files of an earlier write take already. */
async function allocatedBytes(folder: string, { files }: WeightLayout): Promise<number> {
  const sizes = await Promise.all(files.map(async ({ file }) => (await stat(join(folder, file))).blocks * 512));
  return sizes.reduce((a, b) => a + b, 0);
}

/** Throws inputError for a source that has changed since: weights that were read from it are of no use. */
async function requireSameSources(resume: ResumeOptions | undefined): Promise<void> {
  if (resume === undefined) return;
  const now = await resume.sources();
  for (const [path, before] of Object.entries(resume.identity.sources)) {
    if (now[path] === before) continue;
    throw inputError(`the source changed while it was read: the file was ${before} and is ${now[path] ?? "gone"}`, {
      where: path,
      hint: "run again when nothing changes it",
    });
  }
}

/**
 * Exact size in bytes of the weight files that `writeCheckpoint` would write, headers included. Throws inputError for a
 * shard size that makes no sense.
 */
export function plannedWeightBytes(
  spec: DecoderSpec,
  dtype: SlotDtype,
  maxShardBytes?: number,
  format: WeightFormat = "safetensors",
): number {
  return layoutOf(format, spec, dtype, maxShardBytes).weightBytes;
}

async function writeWeights(write: ResumableWrite, layout: WeightLayout, options: WriteOptions): Promise<void> {
  const { files, checksums } = layout;
  const { dir, weights, resume, onProgress, onNonFinite, signal, pace = {} } = options;
  const isWhole = typeof weights === "function";
  const chunks = layout.chunks(pace.chunkBytes, isWhole ? undefined : weights.sameAs);
  const bytesWhere = (isCounted: (index: number) => boolean): number =>
    chunks.reduce((total, { bytes, places }, i) => total + (isCounted(i) ? bytes * places.length : 0), 0);
  const totalBytes = bytesWhere(() => true);
  if (write.replaced !== null) resume?.onFound?.({ replaced: write.replaced });
  if (write.done.size > 0) resume?.onFound?.({ bytes: bytesWhere((i) => write.done.has(i)), totalBytes });
  const target: ChunkTarget = {
    folder: write.path,
    shownAs: dir,
    files: files.map(({ file }) => file),
    direct: pace.direct ?? resume !== undefined,
    checksums,
    chunkBytes: chunks.reduce((most, { bytes }) => Math.max(most, bytes), 0),
  };
  const writer = await (isWhole ? openChunkWriter(target, rectanglesOfWhole(weights, files), 1) : weights.open(target));
  const sums = new Map(write.sums);
  try {
    await fillWeightFiles({
      folder: write.path,
      shownAs: dir,
      files,
      chunks,
      done: write.done,
      writer,
      flushBytes: pace.flushBytes,
      signal,
      sums: checksums ? sums : undefined,
      onFlushed: (indices) => write.record(indices, checksums ? sums : undefined),
      onNonFinite: (chunk, values) =>
        onNonFinite?.({ names: namesOf(chunk, files), slots: chunk.parts.map(({ slot }) => slot), values }),
      onWritten: ({ name }, bytes) => onProgress?.({ name, bytes, totalBytes }),
    });
  } finally {
    await writer.close();
  }
  await writeBetween(write.path, dir, files, layout.between(chunks, sums));
}

/**
 * Cuts rectangles out of whole slots; those of one stored tensor, or the slot of several, are kept until another's
 * turn.
 */
function rectanglesOfWhole(tensor: (slot: Slot) => Promise<TensorValue>, files: readonly PlannedFile[]): MakeRectangle {
  const storedAs = new Map<string, string>();
  for (const { name, slots } of files.flatMap(({ tensors }) => tensors)) {
    for (const { slot } of slots) if (!storedAs.has(slot.key)) storedAs.set(slot.key, name);
  }
  const wholeSlots = new Map<string, Promise<Uint8Array>>();
  let current: string | undefined;
  return async (slot, { rowStart, rowCount, columnStart, columnCount }, dtype) => {
    const name = entryOf(storedAs, slot.key);
    if (name !== current) wholeSlots.clear();
    current = name;
    const whole = wholeSlots.get(slot.key) ?? tensor(slot).then((value) => encodedBytes(slot, value, dtype));
    wholeSlots.set(slot.key, whole);
    const [, columns] = matrixShape(slot.shape);
    const size = floatBytes[dtype];
    return copyRectangle(await whole, {
      rowStart,
      rowCount,
      columnStart: columnStart * size,
      columnCount: columnCount * size,
      stride: columns * size,
    });
  };
}

/** The value's bytes in `dtype`. Throws a plain Error where their number does not fit the slot's shape. */
function encodedBytes({ key, shape }: Slot, value: TensorValue, dtype: WriteDtype): Uint8Array {
  const bytes =
    value instanceof Float32Array ? fromFloat32(dtype, value) : convertBytes(value.dtype, dtype, value.bytes);
  const expected = shape.reduce((a, b) => a * b, floatBytes[dtype]);
  if (bytes.byteLength !== expected)
    throw new Error(`${key}: got ${bytes.byteLength} bytes, ${dtype} [${shape.join(", ")}] takes ${expected}`);
  return bytes;
}

function sizeOf(files: Readonly<Record<string, string | Uint8Array>>): number {
  return Object.values(files).reduce(
    (sum, data) => sum + (typeof data === "string" ? Buffer.byteLength(data) : data.byteLength),
    0,
  );
}
