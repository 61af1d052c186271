/**
 * What a `torch_dist` folder will hold, byte for byte, before the first weight is known: each box of each tensor is an
 * archive of its own, whose head and tail are written around its values when the sums of these are known. One grid
 * serves every layout of ranks: a box for each layer, expert and gate or up half, large ones cut along the axis that
 * tensor parallelism divides.
 */
import { crc32 } from "node:zlib";
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import { writeDcpMetadata, type DcpChunk, type DcpItem, type DcpTensor } from "../formats/dcp-metadata.js";
import { pickledGlobal, type Picklable } from "../formats/pickle-writer.js";
import { archiveOf, planTensorArchive, type ArchivePlan } from "../formats/torch-archive.js";
import { joinedChecksum } from "../numeric/checksum.js";
import { floatBytes } from "../numeric/dtype.js";
import { megatronSettings } from "../../model/decoder/megatron.js";
import type { MegatronValue } from "../../model/decoder/megatron-settings.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import {
  extraStates,
  megatronTensors,
  otherNames,
  writtenKeys,
  type MegatronTensor,
} from "../../model/tensors/megatron.js";
import { rowSpans, type Placement } from "../../model/tensors/placement.js";
import type { Slot } from "../../model/tensors/slots.js";
import type { Chunk, ChunkPart } from "./chunks.js";
import { dcpFiles } from "./open-megatron.js";
import type { PlannedFile, WriteDtype } from "./plan-files.js";
import type { WeightLayout } from "./weight-format.js";

/** Boxes above this are cut further, into eight at most. */
const largestBox = 64e6;
const mostCuts = 8;
/** So much in one file, as in our other folders. */
const defaultFileBytes = 5e9;
/** Large boxes begin at a page, where they can be written past the page cache. */
const pageBytes = 4096;
const largeBox = 1e6;
/** Made in one go. */
const defaultChunkBytes = 8 << 20;
/** Shorter runs of one box are put together in memory before they are written. */
const shortestRun = 64 << 10;

/** A box of a tensor with its archive. */
interface Box {
  readonly tensor: MegatronTensor;
  readonly dtype: WriteDtype;
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
  /** Index of the file. */
  readonly file: number;
  /** Where the archive begins in it. */
  readonly at: number;
  readonly plan: ArchivePlan;
}

interface MegatronLayoutOptions {
  readonly spec: DecoderSpec;
  readonly dtypeOf: (slot: Slot) => WriteDtype;
  readonly maxFileBytes?: number | undefined;
}

/** Plans the folder. Throws inputError for a decoder that Megatron-Core cannot hold and a size that makes no sense. */
export function megatronLayout({
  spec,
  dtypeOf,
  maxFileBytes = defaultFileBytes,
}: MegatronLayoutOptions): WeightLayout {
  if (!(maxFileBytes > 0)) throw inputError(`a file of ${maxFileBytes} bytes holds nothing`, { where: "shard size" });
  const common = commonValues(spec);
  const first = firstBytes(common);
  const { boxes, files } = placeBoxes(spec, dtypeOf, first.bytes.length, maxFileBytes);
  const planned = files.map((fileBytes, file): PlannedFile => {
    const bytes = file === 0 ? first.bytes : new Uint8Array(0);
    return {
      file: fileName(file),
      header: { bytes, fileBytes, dataStart: bytes.length, tensors: new Map(), metadata: {} },
      tensors: [],
    };
  });
  return {
    files: planned,
    weightBytes: files.reduce((a, b) => a + b, 0),
    checksums: true,
    extras: () => ({
      [dcpFiles.metadata]: metadataOf(spec, boxes, first),
      [dcpFiles.format]: '{"sharded_backend": "torch_dist", "sharded_backend_version": 1}',
      [dcpFiles.common]: archiveOf(common, crc32),
    }),
    chunks: (chunkBytes = defaultChunkBytes, sameAs) => planBoxChunks(boxes, chunkBytes, sameAs),
    between: (chunks, sums) => betweenValues(boxes, chunks, sums),
  };
}

const fileName = (index: number): string => `__0_${index}.distcp`;

/** The blob that all `_extra_state` entries share, and the common values. */
function firstBytes(common: Picklable): {
  readonly bytes: Uint8Array;
  readonly none: DcpItem;
  readonly state: DcpItem;
} {
  const none = archiveOf([null], crc32);
  const state = archiveOf([common], crc32);
  const bytes = new Uint8Array(none.length + state.length);
  bytes.set(none);
  bytes.set(state, none.length);
  const file = fileName(0);
  return {
    bytes,
    none: { file, offset: 0, length: none.length },
    state: { file, offset: none.length, length: state.length },
  };
}

/** Settings that Python shall see as floats. */
const floats: ReadonlySet<string> = new Set([
  "norm_epsilon",
  "layernorm_epsilon",
  "rotary_percent",
  "init_method_std",
  "attention_dropout",
  "hidden_dropout",
  "moe_aux_loss_coeff",
  "rope_scaling_factor",
  "rotary_seq_len_interpolation_factor",
  "moe_router_topk_scaling_factor",
  "rotary_scaling_factor",
  "mscale",
  "mscale_all_dim",
  "yarn_beta_fast",
  "yarn_beta_slow",
  "activation_func_clamp_value",
  "glu_linear_offset",
]);

/** What does not follow from the model: one rank of each kind, and no optimizer. */
const ranks: Readonly<Record<string, MegatronValue>> = {
  tensor_model_parallel_size: 1,
  pipeline_model_parallel_size: 1,
  expert_model_parallel_size: 1,
  no_save_optim: true,
  no_save_rng: true,
  ckpt_format: "torch_dist",
};

function commonValues(spec: DecoderSpec): Picklable {
  const settings = Object.entries({ ...megatronSettings(spec), ...ranks }).map(([name, value]): [string, Picklable] => {
    if (Array.isArray(value)) return [name, name === "window_size" ? { tuple: value } : (value as Picklable)];
    return [name, floats.has(name) && typeof value === "number" ? { float: value } : value];
  });
  return new Map<Picklable, Picklable>([
    ["checkpoint_version", { float: 3 }],
    ["iteration", 0],
    ["num_floating_point_operations_so_far", 0],
    ["args", { object: pickledGlobal("argparse", "Namespace"), state: new Map<Picklable, Picklable>(settings) }],
  ]);
}

/** One precision for each tensor: float32 where its slots differ. */
function dtypeOfAll({ slots }: MegatronTensor, dtypeOf: (slot: Slot) => WriteDtype): WriteDtype {
  const found = new Set(slots.map(({ slot }) => dtypeOf(slot)));
  return found.size === 1 ? [...found][0]! : "F32";
}

function placeBoxes(
  spec: DecoderSpec,
  dtypeOf: (slot: Slot) => WriteDtype,
  firstAt: number,
  maxFileBytes: number,
): { readonly boxes: Box[]; readonly files: number[] } {
  const boxes: Box[] = [];
  const files = [firstAt];
  const plannedArchive = archivePlanner();
  for (const tensor of megatronTensors(spec, writtenKeys(spec)).values()) {
    const dtype = dtypeOfAll(tensor, dtypeOf);
    for (const { offsets, sizes } of gridOf(tensor, dtype)) {
      const bytes = elements(sizes) * floatBytes[dtype];
      const align = bytes >= largeBox ? pageBytes : 64;
      const planned = (at: number): ArchivePlan => plannedArchive(dtype, sizes, at, align);
      let at = Math.ceil(files.at(-1)! / 64) * 64;
      let plan = planned(at);
      if (files.at(-1)! > 0 && at + sizeOf(plan) > maxFileBytes) {
        files.push(0);
        at = 0;
        plan = planned(at);
      }
      boxes.push({ tensor, dtype, offsets, sizes, file: files.length - 1, at, plan });
      files[files.length - 1] = at + sizeOf(plan);
    }
  }
  return { boxes, files };
}

/**
 * Plans archives, each kind once: that of a box follows from its precision and sizes, and from where it begins between
 * two places that its values may begin at. Models have thousands of boxes of a few sizes.
 */
function archivePlanner(): (dtype: WriteDtype, sizes: readonly number[], at: number, align: number) => ArchivePlan {
  const known = new Map<string, ArchivePlan>();
  return (dtype, sizes, at, align) => {
    const phase = at % align;
    const key = `${dtype} ${sizes.join()} ${phase} ${align}`;
    const found = known.get(key) ?? planTensorArchive(dtype, sizes, { at: phase, align, checksum: crc32 });
    known.set(key, found);
    return found;
  };
}

const sizeOf = ({ head, dataBytes, tailBytes }: ArchivePlan): number => head.length + dataBytes + tailBytes;

interface Grid {
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
}

function* gridOf(tensor: MegatronTensor, dtype: WriteDtype): Generator<Grid> {
  const { shape, leading, halves, parallel } = tensor;
  const inner = shape.slice(leading);
  const [rows = 1, ...rest] = inner;
  const half = rows / halves;
  const cuts = parallel === null ? 1 : cutsOf(half * elements(rest) * floatBytes[dtype]);
  for (const index of indices(shape.slice(0, leading))) {
    for (let part = 0; part < halves; part++) {
      const axis = parallel === "columns" ? 1 : 0;
      const whole = axis === 0 ? half : rest[0]!;
      for (const [from, count] of pieces(whole, cuts, axis === 0 ? unitOf(tensor) : 1)) {
        const at = axis === 0 ? [part * half + from, ...rest.map(() => 0)] : [part * half, from];
        const sizes = axis === 0 ? [count, ...rest] : [half, count];
        yield { offsets: [...index, ...at.slice(0, inner.length)], sizes: [...index.map(() => 1), ...sizes] };
      }
    }
  }
}

function cutsOf(bytes: number): number {
  let cuts = 1;
  while (cuts < mostCuts && bytes / cuts > largestBox) cuts *= 2;
  return cuts;
}

/** Rows that no cut parts: a group's queries, key and value. */
function unitOf({ slots }: MegatronTensor): number {
  const layout = slots[0]!.layout;
  return layout === null || !/^[qkv]/.test(slots[0]!.slot.at.part) ? 1 : layout.rows.period;
}

function* pieces(whole: number, cuts: number, unit: number): Generator<[number, number]> {
  const step = Math.ceil(whole / unit / cuts) * unit;
  for (let from = 0; from < whole; from += step) yield [from, Math.min(step, whole - from)];
}

function* indices(sizes: readonly number[]): Generator<number[]> {
  const [size, ...rest] = sizes;
  if (size === undefined) {
    yield [];
    return;
  }
  for (let i = 0; i < size; i++) for (const inner of indices(rest)) yield [i, ...inner];
}

function metadataOf(
  spec: DecoderSpec,
  boxes: readonly Box[],
  { none, state }: { readonly none: DcpItem; readonly state: DcpItem },
): Uint8Array {
  const tensors = new Map<string, DcpTensor & { readonly chunks: DcpChunk[] }>();
  for (const { tensor, dtype, offsets, sizes, file, at, plan } of boxes) {
    const entry = tensors.get(tensor.key) ?? { dtype, shape: tensor.shape, chunks: [] };
    tensors.set(tensor.key, entry);
    entry.chunks.push({ offsets, sizes, file: fileName(file), offset: at, length: sizeOf(plan) });
  }
  for (const [key, tensor] of [...tensors]) {
    for (const other of otherNames(spec, key)) tensors.set(other, tensor);
  }
  const objects = new Map(extraStates(spec, writtenKeys(spec)).map((key) => [key, none]));
  return writeDcpMetadata({ tensors, objects: objects.set("common_state/shard_0_1", state) });
}

/** Rows of a slot that lie in a box, and where. */
interface BoxRun {
  readonly part: ChunkPart;
  /** Byte in the box's values. */
  readonly at: number;
  readonly bytes: number;
}

/** The slots of a tensor by the matrix that they lie in, counted over the axes in front. */
function slotsByMatrix({ slots, shape, leading }: MegatronTensor): Map<number, Placement[]> {
  const size = elements(shape.slice(leading));
  const groups = new Map<number, Placement[]>();
  for (const place of slots) {
    const matrix = leading === 0 ? 0 : Math.floor((place.layout?.base ?? 0) / size);
    const group = groups.get(matrix);
    if (group === undefined) groups.set(matrix, [place]);
    else group.push(place);
  }
  return groups;
}

function runsOf({ tensor, dtype, offsets, sizes }: Box, groups: ReadonlyMap<number, readonly Placement[]>): BoxRun[] {
  const { shape, leading } = tensor;
  const matrix = offsets.slice(0, leading).reduce((index, at, axis) => index * shape[axis]! + at, 0);
  const [rowFrom = 0, columnStart = 0] = offsets.slice(leading);
  const [rowCount = 1, columnCount = 1] = sizes.slice(leading);
  const rowBytes = columnCount * floatBytes[dtype];
  const runs = groups.get(matrix)!.flatMap(({ slot, layout, count }): BoxRun[] => {
    const spans = layout === null ? [{ row: 0, at: 0, count }] : [...rowSpans(layout.rows, 0, count)];
    return spans.flatMap(({ row, at, count: length }): BoxRun[] => {
      const from = Math.max(at, rowFrom);
      const to = Math.min(at + length, rowFrom + rowCount);
      if (to <= from) return [];
      const rectangle = { rowStart: row + from - at, rowCount: to - from, columnStart, columnCount };
      const part = { slot, rectangle, layout: null, first: 0, origin: 0 };
      return [{ part, at: (from - rowFrom) * rowBytes, bytes: (to - from) * rowBytes }];
    });
  });
  return runs.sort((a, b) => a.at - b.at);
}

/** Long runs are cut into chunks; short ones that follow each other make one together. */
function* chunkRuns(runs: readonly BoxRun[], chunkBytes: number): Generator<BoxRun[]> {
  let together: BoxRun[] = [];
  let bytes = 0;
  for (const run of runs) {
    const isShort = run.bytes < shortestRun;
    if (together.length > 0 && (!isShort || bytes + run.bytes > chunkBytes)) {
      yield together;
      [together, bytes] = [[], 0];
    }
    if (isShort) {
      together.push(run);
      bytes += run.bytes;
    } else for (const part of cutRun(run, chunkBytes)) yield [part];
  }
  if (together.length > 0) yield together;
}

function* cutRun({ part, at, bytes }: BoxRun, chunkBytes: number): Generator<BoxRun> {
  const { rectangle } = part;
  const rowBytes = bytes / rectangle.rowCount;
  const step = Math.max(1, Math.floor(chunkBytes / rowBytes));
  for (let row = 0; row < rectangle.rowCount; row += step) {
    const rowCount = Math.min(step, rectangle.rowCount - row);
    const own = { ...rectangle, rowStart: rectangle.rowStart + row, rowCount };
    yield { part: { ...part, rectangle: own }, at: at + row * rowBytes, bytes: rowCount * rowBytes };
  }
}

/** Rectangles that lie one after the other in a chunk. */
function joinedParts(runs: readonly BoxRun[], size: number): ChunkPart[] {
  if (runs.length === 1) return [runs[0]!.part];
  return runs.map(({ part, at }) => {
    const { rowStart, rowCount, columnStart, columnCount } = part.rectangle;
    const layout = {
      base: (at - runs[0]!.at) / size - columnStart,
      rows: { start: 0, run: rowCount, period: rowCount },
      rowStride: columnCount,
      columnStride: 1,
    };
    return { ...part, layout, first: rowStart };
  });
}

function planBoxChunks(boxes: readonly Box[], chunkBytes: number, sameAs?: (slot: Slot) => string): Chunk[] {
  const known = new Map<string, Chunk & { places: Chunk["places"][number][] }>();
  const chunks: Chunk[] = [];
  let groups = new Map<number, Placement[]>();
  let current: MegatronTensor | undefined;
  for (const box of boxes) {
    if (box.tensor !== current) [current, groups] = [box.tensor, slotsByMatrix(box.tensor)];
    for (const runs of chunkRuns(runsOf(box, groups), chunkBytes)) {
      const parts = joinedParts(runs, floatBytes[box.dtype]);
      const place = { file: box.file, offset: box.at + box.plan.head.length + runs[0]!.at };
      const key = parts.length === 1 && sameAs !== undefined ? keyOf(parts[0]!, box.dtype, sameAs) : undefined;
      const same = key === undefined ? undefined : known.get(key);
      if (same !== undefined) {
        same.places.push(place);
        continue;
      }
      const bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
      const chunk = { name: box.tensor.key, dtype: box.dtype, bytes, parts, places: [place] };
      if (key !== undefined) known.set(key, chunk);
      chunks.push(chunk);
    }
  }
  return chunks;
}

function keyOf({ slot, rectangle }: ChunkPart, dtype: WriteDtype, sameAs: (slot: Slot) => string): string {
  const { rowStart, rowCount, columnStart, columnCount } = rectangle;
  return `${dtype} [${slot.shape.join()}] ${rowStart}+${rowCount} ${columnStart}+${columnCount} ${sameAs(slot)}`;
}

/** Bytes at a place of a file. */
interface FileRun {
  readonly file: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Two runs of one file as one, with zeros between. */
function joined(first: FileRun, second: FileRun): FileRun {
  const bytes = new Uint8Array(second.offset + second.bytes.length - first.offset);
  bytes.set(first.bytes);
  bytes.set(second.bytes, second.offset - first.offset);
  return { ...first, bytes };
}

/** The bytes between values: the end of an archive with the head of the next, which begins less than 64 bytes later. */
function* betweenValues(
  boxes: readonly Box[],
  chunks: readonly Chunk[],
  sums: ReadonlyMap<number, number>,
): Generator<FileRun> {
  let end: FileRun | null = null;
  for (const { head, tail } of archiveEnds(boxes, chunks, sums)) {
    if (end?.file === head.file) yield joined(end, head);
    else {
      if (end !== null) yield end;
      yield head;
    }
    end = tail;
  }
  if (end !== null) yield end;
}

/** The bytes before and behind each box's values, from the sums of the chunks. */
function* archiveEnds(
  boxes: readonly Box[],
  chunks: readonly Chunk[],
  sums: ReadonlyMap<number, number>,
): Generator<{ readonly head: FileRun; readonly tail: FileRun }> {
  const placed = chunks
    .flatMap(({ places, bytes }, index) => places.map(({ file, offset }) => ({ file, offset, bytes, index })))
    .sort((a, b) => a.file - b.file || a.offset - b.offset);
  let next = 0;
  for (const { file, at, plan } of boxes) {
    const end = at + plan.head.length + plan.dataBytes;
    let sum = 0;
    for (; next < placed.length && placed[next]!.file === file && placed[next]!.offset < end; next++) {
      const { index, bytes } = placed[next]!;
      const own = sums.get(index);
      if (own === undefined) throw new Error(`chunk ${index} has no checksum`);
      sum = joinedChecksum(sum, own, bytes);
    }
    yield { head: { file, offset: at, bytes: plan.head }, tail: { file, offset: end, bytes: plan.tail(sum) } };
  }
}
