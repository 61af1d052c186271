/**
 * The safetensors container: 8 bytes little-endian header length, a JSON header, then the tensors' bytes end to end.
 * Pure: bytes <-> data. Source: huggingface/safetensors README ("Format") and `safetensors/src/tensor.rs`.
 *
 * Reading is strict, because a wrong offset silently yields a wrong model: every byte after the header belongs to
 * exactly one tensor. Every failure is an inputError that names the file, the tensor, the number found and the limit.
 */
import { entryOf } from "../../base/at.js";
import { UpcycleError, inputError } from "../../base/errors.js";
import { shown } from "../../base/shown.js";
import { duplicateKey, isNestedTooDeeply, nestedTooDeeply } from "./duplicate-key.js";

/** Bytes per element of the dtypes the format knows. */
export const itemSizes = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  /** Powers of two, for scales. */
  F8_E8M0: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;
/** A dtype that a safetensors file may store. */
export type Dtype = keyof typeof itemSizes;

/** What a tensor is, without where it lies. */
export interface TensorMeta {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

interface TensorInfo {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Byte range in the file, `begin` inclusive, `end` exclusive. */
  readonly begin: number;
  readonly end: number;
}

/** What the header of a safetensors file says. */
export interface Header {
  /** In the order of their bytes in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
  /** Where the tensors' bytes begin. */
  readonly dataStart: number;
}

/** A header ready to be written, and where every tensor goes. */
export interface HeaderPlan extends Header {
  /** The first `dataStart` bytes of the file. */
  readonly bytes: Uint8Array;
  readonly fileBytes: number;
}

/** Bytes of the length field that opens a file. */
export const lengthBytes = 8;
/** The limit of the reference implementation. */
const maxHeaderBytes = 100_000_000;

/** Stored size of a tensor in bytes. The shape must have been validated; else the result may be NaN. */
export function tensorBytes(dtype: Dtype, shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, itemSizes[dtype]);
}

/**
 * Length of the JSON header, read from a file's first 8 bytes. Throws inputError for a file that is shorter than its
 * header says, and for a length above the format's limit.
 */
export function headerLength(first: Uint8Array, fileBytes: number, where: string): number {
  if (first.byteLength < lengthBytes || fileBytes < lengthBytes) {
    throw inputError(
      `file has ${Math.min(first.byteLength, fileBytes)} bytes, a safetensors file has at least ${lengthBytes}`,
      {
        where,
        hint: "the file is empty or cut short; copy or download it again",
      },
    );
  }
  const length = new DataView(first.buffer, first.byteOffset, lengthBytes).getBigUint64(0, true);
  if (length > BigInt(maxHeaderBytes)) {
    throw inputError(`header length is ${length} bytes, limit ${maxHeaderBytes}`, {
      where,
      hint: "this is not a safetensors file",
    });
  }
  if (Number(length) > fileBytes - lengthBytes) {
    throw inputError(`header length is ${length} bytes but the file ends ${fileBytes - lengthBytes} bytes after it`, {
      where,
      hint: "the file is cut short or not a safetensors file; copy or download it again",
    });
  }
  return Number(length);
}

/**
 * Reads the JSON part of a header. `fileBytes` is the size of the whole file. Throws inputError for JSON that is broken
 * or has a name twice, for an unknown dtype, and for tensors whose bytes do not fill the file exactly.
 */
export function parseHeader(json: Uint8Array, fileBytes: number, where: string): Header {
  const { names, entries } = parseEntries(json, where);
  const dataStart = lengthBytes + json.byteLength;
  let tensors = new Map<string, TensorInfo>();
  let metadata: Record<string, string> = {};
  for (const name of names) {
    const entry = entries[name];
    if (name === "__metadata__") metadata = parseMetadata(entry, where);
    else tensors.set(name, parseTensor(name, entry, dataStart, fileBytes, where));
  }
  if (!isInOrder(tensors.values())) tensors = new Map([...tensors].sort(([, a], [, b]) => comparePlaces(a, b)));
  requireTiling(tensors, dataStart, fileBytes, where);
  return { tensors, metadata, dataStart };
}

const comparePlaces = (a: TensorInfo, b: TensorInfo): number => a.begin - b.begin || a.end - b.end;

/**
 * Whether tensors lie in the header's order: nearly always, and then a large header need not be copied to be sorted.
 */
function isInOrder(tensors: Iterable<TensorInfo>): boolean {
  let previous: TensorInfo | undefined;
  for (const tensor of tensors) {
    if (previous !== undefined && comparePlaces(previous, tensor) > 0) return false;
    previous = tensor;
  }
  return true;
}

function parseEntries(
  json: Uint8Array,
  where: string,
): { readonly names: readonly string[]; readonly entries: Readonly<Record<string, unknown>> } {
  let text: string;
  let parsed: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(json);
    if (isNestedTooDeeply(text)) throw inputError(`header: ${nestedTooDeeply}`, { where });
    parsed = JSON.parse(text);
  } catch (cause) {
    if (cause instanceof UpcycleError) throw cause;
    throw inputError(`header is not valid JSON (${(cause as Error).message})`, { where, cause });
  }
  if (!isRecord(parsed)) throw inputError("header is not a JSON object", { where });
  // JSON.parse keeps the last of two equal keys without a word.
  const duplicate = duplicateKey(text, parsed);
  if (duplicate !== undefined)
    throw inputError(`header has ${JSON.stringify(duplicate)} twice, every name may occur once`, { where });
  return { names: Object.keys(parsed), entries: parsed };
}

function parseMetadata(entry: unknown, where: string): Record<string, string> {
  if (!isRecord(entry)) throw inputError(`__metadata__ is ${shown(entry)}, expected an object of strings`, { where });
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string")
      throw inputError(`__metadata__.${key} is ${shown(value)}, expected a string`, { where });
  }
  return entry as Record<string, string>;
}

function parseTensor(name: string, entry: unknown, dataStart: number, fileBytes: number, where: string): TensorInfo {
  const fail = (message: string): UpcycleError => inputError(`tensor ${name}: ${message}`, { where });
  if (!isRecord(entry)) throw fail(`entry is ${shown(entry)}, expected an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(itemSizes, dtype)) {
    throw fail(`dtype is ${shown(dtype)}, expected one of ${Object.keys(itemSizes).join(", ")}`);
  }
  if (!Array.isArray(shape)) throw fail(`shape is ${shown(shape)}, expected a list of sizes`);
  for (const size of shape) {
    if (!isCount(size)) throw fail(`shape has ${shown(size)}, expected integers from 0`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw fail(`data_offsets are ${shown(offsets)}, expected [begin, end]`);
  }
  const [begin, end] = offsets as [number, number];
  const available = fileBytes - dataStart;
  if (begin > end) throw fail(`data_offsets begin at ${begin}, after their end ${end}`);
  if (end > available)
    throw fail(`data ends at byte ${end}, but the file holds only ${available} bytes of data (is it cut short?)`);
  const size = tensorBytes(dtype as Dtype, shape as number[]);
  if (size !== end - begin) {
    throw fail(`data_offsets span ${end - begin} bytes, but ${dtype} [${shape.join(", ")}] takes ${size}`);
  }
  return { dtype: dtype as Dtype, shape: shape as number[], begin: dataStart + begin, end: dataStart + end };
}

/** Throws inputError unless tensors, which are sorted by offset, touch each other and fill the file. */
function requireTiling(
  tensors: ReadonlyMap<string, TensorInfo>,
  dataStart: number,
  fileBytes: number,
  where: string,
): void {
  let reached = dataStart;
  let last: string | undefined;
  const before = (): string => (last === undefined ? "the header" : `tensor ${last}`);
  for (const [name, { begin, end }] of tensors) {
    if (begin < reached)
      throw inputError(`tensor ${name} begins ${reached - begin} bytes before ${before()} ends`, { where });
    if (begin > reached)
      throw inputError(`${begin - reached} bytes between ${before()} and tensor ${name} belong to no tensor`, {
        where,
      });
    reached = end;
    last = name;
  }
  if (reached !== fileBytes)
    throw inputError(`${fileBytes - reached} bytes after ${before()} belong to no tensor`, { where });
}

/**
 * Lays tensors out in the order given, wider dtypes first so that each stays aligned to its item size (as the
 * reference writer does), and writes the header padded with spaces to a multiple of 8 bytes. Throws inputError for a
 * name that occurs twice or is reserved, and for a header above the format's limit.
 */
export function planHeader(
  tensors: readonly TensorMeta[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): HeaderPlan {
  const ordered = [...tensors].sort((a, b) => itemSizes[b.dtype] - itemSizes[a.dtype]);
  const places = new Map<string, { dtype: Dtype; shape: readonly number[]; begin: number; end: number }>();
  // The text is put together by hand: an object of all entries, made only to be printed, takes several times as long
  // for the many tensors of an MoE.
  const entries = [`"__metadata__":${JSON.stringify(metadata)}`];
  let end = 0;
  for (const { name, dtype, shape } of ordered) {
    if (name === "__metadata__" || places.has(name))
      throw inputError(`tensor name ${JSON.stringify(name)} is reserved or used twice`);
    const begin = end;
    end += tensorBytes(dtype, shape);
    places.set(name, { dtype, shape, begin, end });
    entries.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join()}],"data_offsets":[${begin},${end}]}`,
    );
  }
  const json = new TextEncoder().encode(`{${entries.join()}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  if (padded > maxHeaderBytes)
    throw inputError(`header would take ${padded} bytes, limit ${maxHeaderBytes}; use smaller shards`);
  const bytes = new Uint8Array(lengthBytes + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, lengthBytes);
  const dataStart = bytes.byteLength;
  for (const place of places.values()) {
    place.begin += dataStart;
    place.end += dataStart;
  }
  return { tensors: places, metadata, dataStart, bytes, fileBytes: dataStart + end };
}

/**
 * The mark that stands where the weights would begin in a file of which the header alone is here
 * (`files/hub/headers.ts`), so that the file is recognised wherever it is moved or copied to. Read as numbers of any
 * precision, it is nothing that a model's weights begin with.
 */
const headerAloneMark = new TextEncoder().encode("no weights here\n");

/** The mark of a header without weights, as far as a file has room for it behind its header. */
export function headerAlone(dataBytes: number): Uint8Array {
  return headerAloneMark.subarray(0, dataBytes);
}

/**
 * Whether a file's data are no weights but the mark of a header alone, by its first `headerAlone(...).length` bytes.
 */
export function isHeaderAlone(first: Uint8Array): boolean {
  return first.length > 0 && headerAlone(first.length).every((byte, i) => byte === first[i]);
}

/**
 * A whole file in memory, for small tensors. Throws inputError like `planHeader`, and where bytes do not fit their
 * shape.
 */
export function encodeSafetensors(
  tensors: readonly (TensorMeta & { readonly bytes: Uint8Array })[],
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const plan = planHeader(tensors, metadata);
  const file = new Uint8Array(plan.fileBytes);
  file.set(plan.bytes);
  for (const { name, bytes } of tensors) {
    const { begin, end } = entryOf(plan.tensors, name);
    if (bytes.byteLength !== end - begin)
      throw inputError(`tensor ${name} has ${bytes.byteLength} bytes, its shape takes ${end - begin}`);
    file.set(bytes, begin);
  }
  return file;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
