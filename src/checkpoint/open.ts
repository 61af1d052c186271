/**
 * Opens a model folder (config.json and safetensors files) as a spec and its tensors. Everything that can be known
 * without reading weights is checked here, once, so that a run does not find out after an hour.
 */
import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { UpcycleError, inputError } from "../base/errors.js";
import type { Header } from "../format/safetensors.js";
import { headerLength, lengthBytes, parseHeader, tensorBytes } from "../format/safetensors.js";
import type { Dtype } from "../format/safetensors.js";
import { indexFileName, parseIndex, singleFileName } from "../format/shards.js";
import { exists, previousName } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import type { RangeFile } from "../io/ranges.js";
import { openRanges, readJson, readText } from "../io/ranges.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { floatBytes, isFloatDtype, toFloat32 } from "../numeric/dtype.js";
import { specFromConfig } from "../spec/config.js";
import type { DecoderSpec } from "../spec/types.js";
import { isComputedBuffer } from "../tensors/names.js";
import { isWhole, placements, takeSlot, type Placement } from "../tensors/placement.js";

export interface StoredTensor {
  /** File name inside the folder. */
  readonly file: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Stored size. */
  readonly bytes: number;
}

export interface Checkpoint {
  readonly dir: string;
  readonly spec: DecoderSpec;
  /** The parsed config.json. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Every tensor of the files by its Hugging Face name, used or not. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** Names of stored tensors that no slot reads, computed buffers left out. */
  readonly unused: readonly string[];
  /** The dtype that holds most of the weights' bytes. */
  readonly dtype: FloatDtype;
  /** A whole tensor, row-major. Slot keys are those of `slotsOf(spec)`; an unknown key is a defect of the caller. */
  readFloat32(slotKey: string): Promise<Float32Array>;
  /** The stored bytes, little-endian. */
  readBytes(slotKey: string): Promise<{ dtype: FloatDtype; bytes: Uint8Array }>;
  /** Rows `start` to `start + count` along the first axis. */
  readRows(slotKey: string, start: number, count: number): Promise<Float32Array>;
  /** Releases the open files. */
  close(): Promise<void>;
}

/** A stored tensor and where its bytes are. */
interface Located extends StoredTensor {
  readonly source: RangeFile;
  readonly begin: number;
}

/**
 * Opens a folder. Throws inputError, naming what was found and what was expected, if the folder is not a supported
 * model, a file is missing or cut short, or a tensor is missing, misshapen or not floating point.
 */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  await requireFolder(dir);
  const configPath = join(dir, "config.json");
  if (!(await exists(configPath)))
    throw inputError("folder has no config.json", { where: dir, hint: "expected a Hugging Face model folder" });
  const config = await readJson(configPath);
  const spec = specFromConfig(config, configPath);
  const files: RangeFile[] = [];
  try {
    const located = await locateTensors(dir, files);
    const slots = placements(spec);
    requireSlots(slots, located, dir, spec);
    return assemble(dir, spec, config as Record<string, unknown>, located, slots, files);
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

function assemble(
  dir: string,
  spec: DecoderSpec,
  config: Record<string, unknown>,
  located: ReadonlyMap<string, Located>,
  slots: readonly Placement[],
  files: readonly RangeFile[],
): Checkpoint {
  const bySlot = new Map(slots.map((place) => [place.slot.key, { ...located.get(place.name)!, place }]));
  const find = (slotKey: string): Located & { readonly place: Placement } => {
    const tensor = bySlot.get(slotKey);
    if (tensor === undefined) throw new Error(`no slot ${slotKey} in ${dir}`);
    return tensor;
  };
  const readBytes = async (slotKey: string): Promise<{ dtype: FloatDtype; bytes: Uint8Array }> => {
    const { source, begin, bytes, dtype, place } = find(slotKey);
    const stored = await source.read(begin, bytes);
    return { dtype: dtype as FloatDtype, bytes: isWhole(place) ? stored : takeSlot(place, stored, floatBytes[dtype as FloatDtype]) };
  };
  const used = new Set(slots.map(({ name }) => name));
  const tensors = [...located].map(([name, { file, dtype, shape, bytes }]): [string, StoredTensor] => [
    name,
    { file, dtype, shape, bytes },
  ]);
  return {
    dir,
    spec,
    config,
    tensors: new Map(tensors),
    unused: [...located.keys()].filter((name) => !used.has(name) && !isComputedBuffer(name)).sort(),
    dtype: dominantDtype([...bySlot.values()]),
    readBytes,
    async readFloat32(slotKey) {
      const { dtype, bytes } = await readBytes(slotKey);
      return toFloat32(dtype, bytes);
    },
    async readRows(slotKey, start, count) {
      const { source, begin, dtype, place } = find(slotKey);
      const { shape } = place.slot;
      const rows = shape[0] ?? 1;
      const bytes = shape.reduce((a, b) => a * b, floatBytes[dtype as FloatDtype]);
      if (!(start >= 0 && count >= 0 && start + count <= rows))
        throw new Error(`rows ${start} to ${start + count} of ${slotKey}, which has ${rows}`);
      const rowBytes = rows === 0 ? 0 : bytes / rows;
      if (!isWhole(place)) {
        const own = await readBytes(slotKey);
        return toFloat32(own.dtype, own.bytes.slice(start * rowBytes, (start + count) * rowBytes));
      }
      return toFloat32(dtype as FloatDtype, await source.read(begin + start * rowBytes, count * rowBytes));
    },
    async close() {
      await Promise.all(files.map((file) => file.close()));
    },
  };
}

function dominantDtype(tensors: readonly StoredTensor[]): FloatDtype {
  const bytes = new Map<FloatDtype, number>();
  for (const { dtype, bytes: size } of tensors)
    bytes.set(dtype as FloatDtype, (bytes.get(dtype as FloatDtype) ?? 0) + size);
  return [...bytes].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

async function requireFolder(dir: string): Promise<void> {
  if (!(await withFsErrors(dir, "open model folder", () => exists(dir)))) {
    const previous = previousName(resolve(dir));
    const hint = (await exists(previous))
      ? `an interrupted replacement left the old version in ${basename(previous)} beside it; rename that back`
      : undefined;
    throw inputError("no such folder", { where: dir, hint });
  }
  const info = await withFsErrors(dir, "open model folder", () => stat(dir));
  if (!info.isDirectory()) throw inputError("this is a file, expected a model folder", { where: dir });
}

/** Reads the headers of all files; opened files are added to `files` at once, for the caller to close. */
async function locateTensors(dir: string, files: RangeFile[]): Promise<Map<string, Located>> {
  const indexPath = join(dir, indexFileName);
  // A single file wins over an index, as in transformers.
  const index =
    !(await exists(join(dir, singleFileName))) && (await exists(indexPath))
      ? parseIndex(await readText(indexPath), indexPath)
      : null;
  if (index === null && !(await exists(join(dir, singleFileName)))) throw await noWeights(dir);
  const names = index === null ? [singleFileName] : [...new Set(index.values())].sort();
  const located = new Map<string, Located>();
  for (const name of names) {
    const path = join(dir, name);
    if (!(await exists(path)))
      throw inputError(`${name} is missing, ${indexFileName} lists it`, { where: dir, hint: "copy or download it again" });
    const source = await openRanges(path);
    files.push(source);
    for (const [tensor, { dtype, shape, begin }] of (await readHeader(source)).tensors) {
      if (index !== null && index.get(tensor) !== name) {
        const listed = index.get(tensor);
        throw inputError(
          `tensor ${tensor} is in this file, ${indexFileName} ${listed === undefined ? "does not list it" : `says ${listed}`}`,
          { where: path },
        );
      }
      located.set(tensor, { file: name, dtype, shape, bytes: tensorBytes(dtype, shape), source, begin });
    }
  }
  for (const [tensor, file] of index ?? []) {
    if (!located.has(tensor))
      throw inputError(`tensor ${tensor} is not in this file, ${indexFileName} says it is`, { where: join(dir, file) });
  }
  return located;
}

/** The header of one open safetensors file. */
export async function readHeader(file: RangeFile): Promise<Header> {
  const first = await file.read(0, Math.min(lengthBytes, file.size));
  const length = headerLength(first, file.size, file.path);
  return parseHeader(await file.read(lengthBytes, length), file.size, file.path);
}

async function noWeights(dir: string): Promise<UpcycleError> {
  const found = await withFsErrors(dir, "list folder", () => readdir(dir));
  const pickled = found.find((name) => /^pytorch_model.*\.(bin|index\.json)$/.test(name));
  if (pickled !== undefined) {
    return inputError(`weights are only in ${pickled}, expected safetensors`, {
      where: dir,
      hint: "convert them first, for instance by loading and saving the model with transformers",
    });
  }
  const shard = found.find((name) => /^model-\d+-of-\d+\.safetensors$/.test(name));
  if (shard !== undefined)
    return inputError(`folder has ${shard} but no ${indexFileName}`, { where: dir, hint: "copy or download it again" });
  return inputError(`folder has no ${singleFileName} and no ${indexFileName}`, { where: dir });
}

function requireSlots(
  slots: readonly Placement[],
  located: ReadonlyMap<string, Located>,
  dir: string,
  spec: DecoderSpec,
): void {
  const names = [...new Set(slots.map(({ name }) => name))];
  const missing = names.filter((name) => !located.has(name));
  if (missing.length > 0) {
    const more = missing.length === 1 ? "" : ` and ${missing.length - 1} more`;
    throw inputError(
      `tensor ${missing[0]}${more} missing, config.json (${spec.family}, ${spec.layers.length} layers) asks for ${names.length}`,
      {
        where: dir,
        hint: "the weights do not belong to this config.json, or the download is incomplete",
      },
    );
  }
  for (const { shape: wanted, name } of slots) {
    const { shape, dtype, file } = located.get(name)!;
    const where = join(dir, file);
    if (shape.join() !== wanted.join()) {
      throw inputError(`tensor ${name} has shape [${shape.join(", ")}], config.json asks for [${wanted.join(", ")}]`, {
        where,
      });
    }
    if (!isFloatDtype(dtype)) {
      throw inputError(`tensor ${name} is stored as ${dtype}, expected F32, F16, BF16 or F64`, {
        where,
        hint: "quantized weights are not supported",
      });
    }
  }
}
