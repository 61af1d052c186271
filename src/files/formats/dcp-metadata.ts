/**
 * `.metadata` of a PyTorch distributed checkpoint: which tensors and byte objects it holds, and where the chunks of
 * each lie. Pure; read as inert records. Source: pytorch `torch/distributed/checkpoint/metadata.py`, `filesystem.py`.
 */
import { inputError } from "../../base/errors.js";
import type { UpcycleError } from "../../base/errors.js";
import { asRecord, countsOf, dtypeNamed, fieldsOf, itemsOf, readInert, type Inert } from "./inert-pickle.js";
import { is } from "./pickle.js";
import { pickledGlobal, writePickle, type Picklable } from "./pickle-writer.js";
import { torchDtypes } from "./torch-state.js";
import type { Dtype } from "./safetensors.js";

/** Bytes of a file: one archive of torch.save. */
export interface DcpItem {
  /** File name inside the folder. */
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

/** A box of a tensor and the archive that holds it. */
export interface DcpChunk extends DcpItem {
  readonly offsets: readonly number[];
  readonly sizes: readonly number[];
}

/** A tensor of the checkpoint. */
export interface DcpTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  readonly chunks: readonly DcpChunk[];
}

/** What a checkpoint holds, by key. */
export interface DcpMetadata {
  readonly tensors: ReadonlyMap<string, DcpTensor>;
  /** Byte objects, each a pickled list of one value. */
  readonly objects: ReadonlyMap<string, DcpItem>;
}

const largestRank = 8;

/** Reads the file. Throws inputError for what is no such metadata, or contradicts itself. */
export function parseDcpMetadata(bytes: Uint8Array, where: string): DcpMetadata {
  const fields = fieldsOf(readInert(bytes, where));
  const [declared, stored] = [fields.get("state_dict_metadata"), fields.get("storage_data")];
  if (!is(declared, "dict") || !is(stored, "dict"))
    throw inputError("this is no metadata of a distributed checkpoint (state_dict_metadata, storage_data)", { where });
  const places = placesOf(stored, where);
  const tensors = new Map<string, DcpTensor>();
  const objects = new Map<string, DcpItem>();
  for (const [key, value] of declared.entries) {
    if (typeof key !== "string") throw inputError("metadata has a key that is no text", { where });
    const kind = asRecord(value)?.global.split(".").at(-1);
    if (kind === "BytesStorageMetadata") objects.set(key, placeOf(places, key, null, where));
    else if (kind === "TensorStorageMetadata") tensors.set(key, tensorAt(key, value, places, where));
    else throw inputError(`${key} is stored as ${kind ?? "something unknown"}`, { where });
  }
  return { tensors, objects };
}

const placeKey = (key: string, offsets: readonly number[] | null): string => `${offsets?.join() ?? ""} ${key}`;

function placesOf(
  stored: { readonly entries: readonly (readonly [Inert, Inert])[] },
  where: string,
): ReadonlyMap<string, DcpItem> {
  const places = new Map<string, DcpItem>();
  for (const [index, info] of stored.entries) {
    const [at, item] = [fieldsOf(index), fieldsOf(info)];
    const key = at.get("fqn");
    const offsets = at.get("offset");
    const [file, offset, length] = [item.get("relative_path"), item.get("offset"), item.get("length")];
    if (typeof key !== "string" || typeof file !== "string" || !isCount(offset) || !isCount(length))
      throw inputError("metadata names no place of an item", { where });
    // A name with folders in it would lead out of the checkpoint.
    if (/[/\\\0]|^\.{0,2}$/.test(file))
      throw inputError(`${JSON.stringify(file.slice(0, 100))} is no name of a file in the checkpoint`, { where });
    places.set(placeKey(key, offsets == null ? null : countsOf(offsets)), { file, offset, length });
  }
  return places;
}

function placeOf(
  places: ReadonlyMap<string, DcpItem>,
  key: string,
  offsets: readonly number[] | null,
  where: string,
): DcpItem {
  const found = places.get(placeKey(key, offsets));
  if (found !== undefined) return found;
  const what = offsets === null ? key : `the chunk at [${offsets.join(", ")}] of ${key}`;
  throw inputError(`metadata does not say where ${what} lies`, { where, hint: "the checkpoint was not saved whole" });
}

function tensorAt(key: string, value: Inert, places: ReadonlyMap<string, DcpItem>, where: string): DcpTensor {
  const fail = (what: string): UpcycleError => inputError(`tensor ${key} ${what}`, { where });
  const fields = fieldsOf(value);
  const properties = asRecord(fields.get("properties"));
  const said = itemsOf(properties?.state)?.[0] ?? fieldsOf(properties?.state).get("dtype") ?? properties?.args[0];
  const dtype = dtypeNamed(said);
  const shape = countsOf(fields.get("size"));
  const listed = itemsOf(fields.get("chunks"));
  if (dtype == null) throw fail("has no known precision");
  if (shape === null || shape.length > largestRank || !isCount(product(shape))) throw fail("has no size");
  if (listed === null) throw fail("has no chunks");
  const chunks = listed.map((chunk): DcpChunk => {
    const [offsets, sizes] = [countsOf(fieldsOf(chunk).get("offsets")), countsOf(fieldsOf(chunk).get("sizes"))];
    const inside =
      offsets?.length === shape.length &&
      sizes?.length === shape.length &&
      shape.every((size, axis) => offsets[axis]! + sizes[axis]! <= size);
    if (!inside) throw fail(`[${shape.join(", ")}] has a chunk that does not lie in it`);
    return { offsets, sizes, ...placeOf(places, key, offsets, where) };
  });
  if (chunks.reduce((sum, { sizes }) => sum + product(sizes), 0) !== product(shape))
    throw fail(`[${shape.join(", ")}] is not filled by its ${chunks.length} chunks`);
  return { dtype, shape, chunks };
}

const product = (sizes: readonly number[]): number => sizes.reduce((a, b) => a * b, 1);
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

const dtypeGlobals: ReadonlyMap<Dtype, string> = new Map([...torchDtypes].map(([name, dtype]) => [dtype, name]));

/** The name of a precision in torch's module: `bfloat16`. */
export const torchName = (dtype: Dtype): string => dtypeGlobals.get(dtype)!.replace("torch.", "");

const module = "torch.distributed.checkpoint.metadata";
const names = {
  metadata: pickledGlobal(module, "Metadata"),
  tensor: pickledGlobal(module, "TensorStorageMetadata"),
  properties: pickledGlobal(module, "TensorProperties"),
  memoryFormat: pickledGlobal(module, "_MEM_FORMAT_ENCODING"),
  chunk: pickledGlobal(module, "ChunkStorageMetadata"),
  object: pickledGlobal(module, "BytesStorageMetadata"),
  index: pickledGlobal(module, "MetadataIndex"),
  meta: pickledGlobal(module, "StorageMeta"),
  info: pickledGlobal("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
  size: pickledGlobal("torch", "Size"),
  layout: pickledGlobal("torch.serialization", "_get_layout"),
};

const sizeOf = (sizes: readonly number[]): Picklable => ({ call: names.size, args: [{ tuple: sizes }] });
const fieldsFrom = (fields: Readonly<Record<string, Picklable>>): Picklable => new Map(Object.entries(fields));

/** The file's bytes; equal contents give equal bytes. */
export function writeDcpMetadata({ tensors, objects }: DcpMetadata): Uint8Array {
  const declared = new Map<Picklable, Picklable>();
  const stored = new Map<Picklable, Picklable>();
  const place = (key: string, offsets: readonly number[] | null, { file, offset, length }: DcpItem): void => {
    const index = { fqn: key, index: null };
    stored.set(
      { object: names.index, state: fieldsFrom(offsets === null ? index : { ...index, offset: sizeOf(offsets) }) },
      { object: names.info, state: fieldsFrom({ relative_path: file, offset, length }) },
    );
  };
  for (const [key, item] of objects) {
    declared.set(key, { object: names.object });
    place(key, null, item);
  }
  for (const [key, tensor] of tensors) {
    declared.set(key, declaredTensor(tensor));
    for (const chunk of tensor.chunks) place(key, chunk.offsets, chunk);
  }
  return writePickle({
    object: names.metadata,
    state: fieldsFrom({
      state_dict_metadata: declared,
      planner_data: null,
      storage_data: stored,
      storage_meta: {
        object: names.meta,
        state: fieldsFrom({
          checkpoint_id: "release",
          save_id: "00000000-0000-4000-8000-000000000000",
          load_id: null,
          modules: [],
        }),
      },
      version: null,
    }),
  });
}

function declaredTensor({ dtype, shape, chunks }: DcpTensor): Picklable {
  const properties: Picklable = {
    tuple: [
      pickledGlobal("torch", torchName(dtype)),
      { call: names.layout, args: ["torch.strided"] },
      false,
      { call: names.memoryFormat, args: [0] },
      false,
    ],
  };
  return {
    object: names.tensor,
    state: fieldsFrom({
      properties: { object: names.properties, state: properties },
      size: sizeOf(shape),
      chunks: chunks.map(({ offsets, sizes }) => ({
        object: names.chunk,
        state: fieldsFrom({ offsets: sizeOf(offsets), sizes: sizeOf(sizes) }),
      })),
    }),
  };
}
