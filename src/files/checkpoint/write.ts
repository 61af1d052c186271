/**
 * Writes a model folder. The whole layout is known before the first weight: sizes, shards and headers come from the
 * spec. Then the weights are made chunk by chunk and written to their places, so memory holds a chunk, and the
 * finished folder gets its name last.
 *
 *   spec -> slots with names -> shards and headers -> free space? -> staged folder -> chunks -> rename
 */
import { copyRectangle, matrixShape } from "../numeric/rectangles.js";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UpcycleError, inputError } from "../../base/errors.js";
import { stageDirectory, writeFileSynced } from "../io/atomic.js";
import type { Overwrite } from "../io/model-folder.js";
import { requireFreeSpace } from "../io/space.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { convertBytes, floatBytes, fromFloat32 } from "../numeric/dtype.js";
import type { ConfigDtype } from "../../model/decoder/config.js";
import { configFromSpec, stringifyConfig } from "../../model/decoder/config.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import type { Slot } from "../../model/tensors/slots.js";
import { openResumableWrite, type ResumableWrite, type Identity } from "./resumable-write.js";
import { openChunkWriter, type ChunkTarget, type ChunkWriter } from "./chunk-writer.js";
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

/** Values as float32, or stored bytes of any precision; both are converted to the precision of the folder. */
export type TensorValue = Float32Array | { readonly dtype: FloatDtype; readonly bytes: Uint8Array };

/** Where the weights of a new folder come from. */
export type Weights =
  /**
   * Whole tensors: asked for once per slot, in the order of the stored tensors; the slots of one stored tensor are kept
   * together.
   */
  | ((slot: Slot) => Promise<TensorValue>)
  /** Rectangles of slots, for tensors that are too large to hold. */
  | RectangleWeights;

/** Weights that are made rectangle by rectangle. */
export interface RectangleWeights {
  /** Equal for slots with equal values, which are then made once. */
  readonly sameAs?: (slot: Slot) => string;
  /** Makes and writes chunks, on this thread or others. */
  readonly open: (target: ChunkTarget) => Promise<ChunkWriter> | ChunkWriter;
}

/** Weights whose rectangles are made on this thread. */
export function rectangleWeights(make: MakeRectangle, sameAs?: (slot: Slot) => string): RectangleWeights {
  return { open: (target) => openChunkWriter(target, make), ...(sameAs === undefined ? {} : { sameAs }) };
}

/** How far the writing of weights has come. */
export interface WriteProgress {
  /** Hugging Face name of the tensor just worked on. */
  readonly name: string;
  readonly bytes: number;
  readonly totalBytes: number;
}

/** What `writeCheckpoint` makes, and of what. */
export interface WriteOptions {
  /** The folder to make; parents are made as needed. */
  readonly dir: string;
  /** `safetensors` if left out. */
  readonly format?: WeightFormat | undefined;
  readonly spec: DecoderSpec;
  /**
   * The precision of config.json, and of every slot that the family does not keep in float32, unless `slotDtype` says
   * otherwise.
   */
  readonly dtype: WriteDtype;
  readonly slotDtype?: ((slot: Slot) => WriteDtype) | undefined;
  /** Where the weights come from. */
  readonly weights: Weights;
  /** A model folder whose tokenizer and generation files are copied. */
  readonly carry?: string | undefined;
  /** What config.json says under `lineageKey`. */
  readonly lineage?: unknown;
  /** Further files by name; they win over carried ones. */
  readonly files?: Readonly<Record<string, string | Uint8Array>> | undefined;
  /** Adds larger further files to the unfinished folder; they take `extraBytes`. */
  readonly finish?: ((folder: string) => Promise<void>) | undefined;
  readonly extraBytes?: number | undefined;
  /** Most bytes of tensors per file (default 5 GB). */
  readonly maxShardBytes?: number | undefined;
  readonly onProgress?: ((progress: WriteProgress) => void) | undefined;
  /**
   * Resumes an interrupted write of the same folder, and leaves what is done on disk after a failure
   * (`resumable-write.ts`).
   */
  readonly resume?: ResumeOptions | undefined;
  /** Stops between two chunks. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes made in one go, and bytes after which they are flushed to disk and recorded: for tests and measurements. */
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

interface ResumeOptions {
  readonly identity: Identity;
  /** The identity's sources as they are now, looked at once more before the folder gets its name. */
  readonly sources: () => Promise<Identity["sources"]>;
  /** What was found: bytes that are there already, or the name of other unfinished work that was removed. */
  readonly onFound?:
    | ((found: { readonly bytes: number; readonly totalBytes: number } | { readonly replaced: string }) => void)
    | undefined;
}

/** A folder that was written. */
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
 * stopError if the disk is (or would be) full; `interrupted` for the signal. After a failure `dir` is as it was before.
 */
export async function writeCheckpoint(options: WriteOptions): Promise<WrittenCheckpoint> {
  const { dir, spec, dtype, carry, lineage, files = {} } = options;
  const config = stringifyConfig({
    ...configFromSpec(spec, { dtype: configNames[dtype] }),
    [lineageKey]: lineage ?? undefined,
  });
  const plan = layoutOf(options.format ?? "safetensors", spec, options.slotDtype ?? dtype, options.maxShardBytes);
  const extras: Record<string, string | Uint8Array> = { ...plan.extras, "config.json": config };
  for (const name of Object.keys(files)) {
    const taken = Object.hasOwn(extras, name) || plan.files.some(({ file }) => file === name);
    if (taken || /[/\\]|^\.{0,2}$/.test(name))
      throw inputError(`${JSON.stringify(name)} cannot be a further file of a model folder`, { where: dir });
  }
  const carried = carry === undefined ? { names: [], bytes: 0 } : await findCarried(carry);
  const extraBytes = carried.bytes + sizeOf(extras) + sizeOf(files) + (options.extraBytes ?? 0);

  const write =
    options.resume === undefined
      ? await writeInOneGo(options, plan, extraBytes)
      : await openResumableWrite(dir, {
          overwrite: options.overwrite,
          identity: options.resume.identity,
          files: plan.files,
        });
  const written = { dir, weightFiles: plan.files.map(({ file }) => file), weightBytes: plan.weightBytes };
  if (write.finished) return written;
  try {
    if (options.resume !== undefined)
      await requireFreeSpace(dir, plan.weightBytes + extraBytes - (await allocated(write.path, plan)));
    await writeWeights(write, plan, options);
    if (carry !== undefined)
      await copyFiles(
        carry,
        write.path,
        carried.names.filter((name) => !Object.hasOwn(files, name)),
      );
    await options.finish?.(write.path);
    await requireSameSources(options.resume);
    // config.json comes last: a folder without it is no model.
    for (const [name, data] of Object.entries({ ...files, ...extras }))
      await writeFileSynced(join(write.path, name), data);
    await write.commit();
  } catch (cause) {
    // A full disk, Ctrl-C, a forbidden file: what is done stays. A value that cannot be written would be met again.
    if (cause instanceof UpcycleError && cause.kind === "input" && cause.cause === undefined) await write.discard();
    else await write.leave();
    throw cause;
  }
  return written;
}

/** A write that finishes in this process or leaves nothing. */
async function writeInOneGo(
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
async function allocated(folder: string, { files }: WeightLayout): Promise<number> {
  const sizes = await Promise.all(files.map(async ({ file }) => (await stat(join(folder, file))).blocks * 512));
  return sizes.reduce((a, b) => a + b, 0);
}

/** Weights read from a source that changed meanwhile are of no use. */
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

/** Exact size in bytes of the weight files that `writeCheckpoint` would write. */
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
  const { dir, weights, resume, onProgress, signal, pace = {} } = options;
  const inTurn = typeof weights === "function";
  const chunks = layout.chunks(pace.chunkBytes, inTurn ? undefined : weights.sameAs);
  const sum = (some: (index: number) => boolean): number =>
    chunks.reduce((total, { bytes, places }, i) => total + (some(i) ? bytes * places.length : 0), 0);
  const totalBytes = sum(() => true);
  if (write.replaced !== null) resume?.onFound?.({ replaced: write.replaced });
  if (write.done.size > 0) resume?.onFound?.({ bytes: sum((i) => write.done.has(i)), totalBytes });
  const target: ChunkTarget = {
    folder: write.path,
    shownAs: dir,
    files: files.map(({ file }) => file),
    direct: pace.direct ?? resume !== undefined,
    checksums,
    chunkBytes: chunks.reduce((most, { bytes }) => Math.max(most, bytes), 0),
  };
  const writer = await (inTurn ? openChunkWriter(target, rectanglesOfWhole(weights, files), 1) : weights.open(target));
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
      onFlushed: (flushed) => write.record(flushed, checksums ? sums : undefined),
      onWritten: ({ name }, bytes) => onProgress?.({ name, bytes, totalBytes }),
    });
  } finally {
    await writer.close();
  }
  await writeBetween(write.path, dir, files, layout.tails(chunks, sums));
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
    return copyRectangle(await whole, {
      rowStart,
      rowCount,
      columnStart: columnStart * size,
      columnCount: columnCount * size,
      stride: columns * size,
    });
  };
}

function encoded({ key, shape }: Slot, value: TensorValue, dtype: WriteDtype): Uint8Array {
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
