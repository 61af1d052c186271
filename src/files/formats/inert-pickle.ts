/**
 * Pickles of whole objects as inert records: a class or function is a name, an object that name with its arguments and
 * its state. Nothing is looked up, called or loaded, whatever the name. Pure.
 */
import { is, readPickle, type PickleHost, type PickleValue } from "./pickle.js";
import { storages, torchDtypes, type TorchTensor } from "./torch-state.js";
import { itemSizes } from "./safetensors.js";

/** What a pickle calls or makes, as data. */
export interface InertRecord {
  /** Module and name, such as `argparse.Namespace`; `persistent` for what a persistent id refers to. */
  readonly global: string;
  readonly args: readonly Inert[];
  /** What the object was given after it was made. */
  state: Inert | undefined;
}

/** A value of such a pickle. Values may be shared and may contain themselves. */
export type Inert = PickleValue<InertRecord>;

const recordOf = (global: string, args: readonly Inert[]): Inert => ({
  kind: "host",
  value: { global, args, state: undefined },
});

const host: PickleHost<InertRecord> = {
  knows: () => true,
  call: (global, args) =>
    global === "collections.OrderedDict" && args.length === 0 ? { kind: "dict", entries: [] } : recordOf(global, args),
  persistent: (id) => recordOf("persistent", [id]),
  create: recordOf,
  build(object, state) {
    if (!is(object, "host")) return false;
    object.value.state = state;
    return true;
  },
};

/** Reads one pickle. Throws inputError for data that breaks off or an opcode that no such file needs. */
export function readInert(bytes: Uint8Array, where: string): Inert {
  return readPickle(bytes, host, where);
}

/** The record that a value is; null if it is none. */
export function asRecord(value: Inert | undefined): InertRecord | null {
  return is(value, "host") ? value.value : null;
}

/** Entries of a dictionary, or of the attributes of an object, by their names; others are left out. */
export function fieldsOf(value: Inert | undefined): ReadonlyMap<string, Inert> {
  const dict = asRecord(value)?.state ?? value;
  if (!is(dict, "dict")) return new Map();
  return new Map(dict.entries.flatMap(([key, entry]) => (typeof key === "string" ? [[key, entry] as const] : [])));
}

/** Items of a list or tuple; null if the value is none. */
export function itemsOf(value: Inert | undefined): readonly Inert[] | null {
  return is(value, "list") || is(value, "tuple") ? value.items : null;
}

/** The tensor that a record rebuilds; null if it is none, or not a plain one. */
export function tensorOf(value: Inert | undefined): TorchTensor | null {
  const record = asRecord(value);
  if (record === null) return null;
  if (/^torch\._utils\._rebuild_parameter(_with_state)?$|^torch\.nn\.parameter\.Parameter$/.test(record.global))
    return tensorOf(record.args[0]);
  if (record.global !== "torch._utils._rebuild_tensor_v2") return null;
  const [stored, offset, size, stride] = record.args;
  const id = itemsOf(asRecord(stored)?.args[0]);
  const [shape, strides] = [countsOf(size), countsOf(stride)];
  if (id === null || shape === null || strides?.length !== shape.length || !isCount(offset)) return null;
  const [word, type, key, , count] = id;
  const dtype = is(type, "global") ? storages.get(type.name) : undefined;
  if (word !== "storage" || dtype == null || typeof key !== "string" || !isCount(count)) return null;
  return { dtype, shape, stride: strides, offset, key, storageElements: count };
}

/** Numbers of a tuple or a `torch.Size`; null if the value is neither, or holds anything but counts. */
export function countsOf(value: Inert | undefined): readonly number[] | null {
  const record = asRecord(value);
  const items = itemsOf(record?.global === "torch.Size" ? record.args[0] : value);
  return items !== null && items.every(isCount) ? items : null;
}

/** The precision that a value such as `torch.bfloat16` names; null if it names none. */
export function dtypeNamed(value: Inert | undefined): ReturnType<typeof torchDtypes.get> | null {
  return is(value, "global") ? (torchDtypes.get(value.name) ?? null) : null;
}

/** Whether a tensor lies inside its storage, without repeating elements of it. */
export function liesInside({ shape, stride, offset, storageElements, dtype }: TorchTensor, bytes: number): boolean {
  const count = shape.reduce((a, b) => a * b, 1);
  const last = shape.reduce((sum, size, i) => sum + (size - 1) * stride[i]!, offset);
  return count === 0 || (count <= storageElements && last < storageElements && (last + 1) * itemSizes[dtype] <= bytes);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
