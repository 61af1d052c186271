/**
 * The state dict in a `torch.save` archive (torch 1.6 and later): tensor names with storages, offsets and strides.
 * Pure. Source: torch `serialization.py` (`_save`, `persistent_load`) and `_utils.py` (`_rebuild_tensor_v2`,
 * `_rebuild_tensor_v3`).
 */
import { at, valueAt } from "../../base/at.js";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import { is, readPickle, type PickleHost, type PickleValue } from "./pickle.js";
import { itemSizes, type Dtype } from "./safetensors.js";

/** A tensor of a torch archive: its dtype and how it lies in a storage. */
export interface TorchTensor {
  readonly dtype: Dtype;
  readonly shape: readonly number[];
  /** Distance in the storage between neighbours along each dimension, in elements. */
  readonly stride: readonly number[];
  /** Where the tensor begins in its storage, in elements. */
  readonly offset: number;
  /** The storage is the archive's member `data/KEY`. */
  readonly key: string;
  /** Elements of the whole storage. */
  readonly storageElements: number;
}

interface Storage {
  readonly kind: "storage";
  /** Null: the storage holds bytes, and the tensor says what they mean. */
  readonly dtype: Dtype | null;
  readonly key: string;
  readonly elements: number;
}
type HostValue = Storage | ({ readonly kind: "tensor" } & TorchTensor);
type Value = PickleValue<HostValue>;

const storages: ReadonlyMap<string, Dtype | null> = new Map<string, Dtype | null>([
  ["torch.DoubleStorage", "F64"],
  ["torch.FloatStorage", "F32"],
  ["torch.HalfStorage", "F16"],
  ["torch.BFloat16Storage", "BF16"],
  ["torch.LongStorage", "I64"],
  ["torch.IntStorage", "I32"],
  ["torch.ShortStorage", "I16"],
  ["torch.CharStorage", "I8"],
  ["torch.ByteStorage", "U8"],
  ["torch.BoolStorage", "BOOL"],
  ["torch.storage.UntypedStorage", null],
]);

const dtypes: ReadonlyMap<string, Dtype> = new Map<string, Dtype>([
  ["torch.float64", "F64"],
  ["torch.float32", "F32"],
  ["torch.float16", "F16"],
  ["torch.bfloat16", "BF16"],
  ["torch.float8_e4m3fn", "F8_E4M3"],
  ["torch.float8_e5m2", "F8_E5M2"],
  ["torch.float8_e8m0fnu", "F8_E8M0"],
  ["torch.int64", "I64"],
  ["torch.int32", "I32"],
  ["torch.int16", "I16"],
  ["torch.int8", "I8"],
  ["torch.uint64", "U64"],
  ["torch.uint32", "U32"],
  ["torch.uint16", "U16"],
  ["torch.uint8", "U8"],
  ["torch.bool", "BOOL"],
]);

type Args = readonly Value[];

/** Everything that may be called, and what it gives; null: it may not be called with these arguments. */
const calls: Readonly<Record<string, (args: Args) => Value | null>> = {
  "collections.OrderedDict": ([pairs, ...others]) => {
    if (pairs === undefined) return { kind: "dict", entries: [] };
    return others.length === 0 ? fromPairs(pairs) : null;
  },
  "torch._utils._rebuild_tensor": ([storage, offset, size, stride]) => tensor(storage, offset, size, stride, null),
  "torch._utils._rebuild_tensor_v2": ([storage, offset, size, stride, , , metadata]) =>
    isEmpty(metadata) ? tensor(storage, offset, size, stride, null) : null,
  "torch._utils._rebuild_tensor_v3": ([storage, offset, size, stride, , , dtype, metadata]) =>
    isEmpty(metadata) && is(dtype, "global")
      ? tensor(storage, offset, size, stride, dtypes.get(dtype.name) ?? null)
      : null,
  "torch._utils._rebuild_parameter": ([data]) => (is(data, "host") ? data : null),
  "torch._utils._rebuild_parameter_with_state": ([data]) => (is(data, "host") ? data : null),
  "torch.nn.parameter.Parameter": ([data]) => (is(data, "host") ? data : null),
  "torch.Size": ([sizes]) => (is(sizes, "tuple") || is(sizes, "list") ? { kind: "tuple", items: sizes.items } : null),
};

const host: PickleHost<HostValue> = {
  knows: (name) => storages.has(name) || dtypes.has(name) || Object.hasOwn(calls, name),
  call: (name, args) => (Object.hasOwn(calls, name) ? valueAt(calls, name)(args) : null),
  persistent(id) {
    if (!is(id, "tuple")) return null;
    const [word, type, key, , count] = id.items;
    const dtype = is(type, "global") ? storages.get(type.name) : undefined;
    if (word !== "storage" || dtype === undefined || typeof key !== "string" || !isCount(count)) return null;
    return { kind: "host", value: { kind: "storage", dtype, key, elements: count } };
  },
};

/** Flags such as "negated" change what the bytes mean; no checkpoint has them. */
function isEmpty(metadata: Value | undefined): boolean {
  return metadata === undefined || metadata === null || (is(metadata, "dict") && metadata.entries.length === 0);
}

function fromPairs(list: Value): Value | null {
  if (!is(list, "list")) return null;
  const entries: [Value, Value][] = [];
  for (const pair of list.items) {
    if (!(is(pair, "list") || is(pair, "tuple"))) return null;
    const [key, value, ...others] = pair.items;
    if (key === undefined || value === undefined || others.length > 0) return null;
    entries.push([key, value]);
  }
  return { kind: "dict", entries };
}

/** The tensor that a call rebuilds; `ownDtype` is what the call itself says. Null for arguments that are none. */
function tensor(
  storage: Value | undefined,
  offset: Value | undefined,
  size: Value | undefined,
  stride: Value | undefined,
  ownDtype: Dtype | null,
): Value | null {
  const [shape, strides] = [counts(size), counts(stride)];
  if (!is(storage, "host") || storage.value.kind !== "storage" || !isCount(offset)) return null;
  const { key, elements: length, dtype: storageDtype } = storage.value;
  const dtype = storageDtype ?? ownDtype;
  if (dtype === null || shape === null || strides === null || shape.length !== strides.length) return null;
  // A storage without a type counts bytes.
  const storageElements = storageDtype === null ? Math.floor(length / itemSizes[dtype]) : length;
  return {
    kind: "host",
    value: { kind: "tensor", dtype, shape, stride: strides, offset, key, storageElements },
  };
}

/** The numbers of a tuple; null for anything but a tuple of whole numbers from 0. */
function counts(value: Value | undefined): number[] | null {
  return is(value, "tuple") && value.items.every(isCount) ? value.items : null;
}

/**
 * Reads the archive's `data.pkl`. Throws inputError if it asks for anything but tensors (naming it), has a name twice,
 * or a tensor reaches beyond its storage or repeats elements of it.
 */
export function parseStateDict(pickle: Uint8Array, where: string): Map<string, TorchTensor> {
  const top = readPickle(pickle, host, where);
  if (!is(top, "dict"))
    throw inputError("file holds no dictionary of tensors", {
      where,
      hint: "expected what torch.save(model.state_dict(), FILE) writes",
    });
  const tensors = new Map<string, TorchTensor>();
  const others: string[] = [];
  for (const [name, value] of top.entries) {
    if (typeof name !== "string") continue;
    if (!is(value, "host") || value.value.kind !== "tensor") {
      others.push(name);
      continue;
    }
    if (tensors.has(name)) throw inputError(`tensor ${name} occurs twice`, { where });
    requireInside(name, value.value, where);
    const { dtype, shape, stride, offset, key, storageElements } = value.value;
    tensors.set(name, { dtype, shape, stride, offset, key, storageElements });
  }
  if (tensors.size === 0) {
    const instead = others.length === 0 ? "it is empty" : `found ${others.slice(0, 3).join(", ")}`;
    throw inputError(`file holds no tensors by name (${instead})`, {
      where,
      hint: "expected what torch.save(model.state_dict(), FILE) writes",
    });
  }
  return tensors;
}

/** Throws inputError for a tensor that reaches beyond its storage or repeats elements of it. */
function requireInside(name: string, { shape, stride, offset, storageElements }: TorchTensor, where: string): void {
  const fail = (message: string): UpcycleError =>
    inputError(`tensor ${name} [${shape.join(", ")}] ${message}`, { where });
  const count = elements(shape);
  if (count === 0) return;
  if (count > storageElements) throw fail(`has more elements than its storage (${storageElements})`);
  const last = shape.reduce((sum, size, i) => sum + (size - 1) * at(stride, i), offset);
  if (last >= storageElements) throw fail(`reaches element ${last} of a storage of ${storageElements}`);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Elements of a tensor that lie one after the other in its storage. */
interface StorageRun {
  /** First element, counted in the storage. */
  readonly at: number;
  readonly count: number;
}

/**
 * Elements `start` to `start + count` in row-major order, as runs that are contiguous in the storage; the longest such
 * runs there are.
 */
export function* runsOf(
  { shape, stride, offset }: Pick<TorchTensor, "shape" | "stride" | "offset">,
  start: number,
  count: number,
): Generator<StorageRun> {
  // `inner` counts the elements of the trailing dimensions, which lie in the storage as in the tensor.
  let inner = 1;
  let outer = shape.length;
  while (outer > 0 && (shape[outer - 1] === 1 || stride[outer - 1] === inner)) inner *= shape[--outer]!;
  for (let done = 0; done < count;) {
    const within = (start + done) % inner;
    let rest = (start + done - within) / inner;
    let position = offset + within;
    for (let axis = outer - 1; axis >= 0; axis--) {
      const size = shape[axis]!;
      position += (rest % size) * stride[axis]!;
      rest = Math.floor(rest / size);
    }
    const length = Math.min(inner - within, count - done);
    yield { at: position, count: length };
    done += length;
  }
}
