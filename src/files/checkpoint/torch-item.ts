/**
 * One archive of torch.save inside a larger file, as distributed checkpoints have them: the value of its pickle as
 * inert records, and tensors by ranges of bytes. Nothing is executed.
 */
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
import { liesInside, readInert, type Inert } from "../formats/inert-pickle.js";
import { itemSizes } from "../formats/safetensors.js";
import { runsOf, type TorchTensor } from "../formats/torch-state.js";
import {
  localHeaderBytes,
  memberBegin,
  zip64End,
  zip64EndBytes,
  zipDirectory,
  zipEnd,
  zipTailBytes,
  type ZipMember,
} from "../formats/zip.js";
import type { RangeFile } from "../io/ranges.js";

/** A pickle of some 100,000 items has about 30 MB. Each byte of a hostile one can cost about a hundred of memory. */
export const largestPickle = 64e6;
/** The directory of an archive with one tensor. */
const shortTail = 2048;
/** The pickle of a tensor, with the headers of what stands before its values. */
const shortHead = 4096;

/** An open archive. */
export interface TorchItem {
  readonly value: Inert;
  /** `count` elements of a tensor from `start` on, in row-major order. Throws inputError where it has no storage. */
  read(tensor: TorchTensor, start: number, count: number, into?: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
}

/** The bytes `offset` to `offset + length` of a file as a file of its own. Throws inputError beyond its end. */
export function windowOf(file: RangeFile, offset: number, length: number): RangeFile {
  if (!(offset + length <= file.size))
    throw inputError(`an item ends at byte ${offset + length}, the file has ${file.size}`, {
      where: file.path,
      hint: "it is cut short; copy it again",
    });
  return {
    path: file.path,
    size: length,
    read: (at, count, into) => file.read(offset + at, count, into),
    close: () => Promise.resolve(),
  };
}

/** Opens an archive. Throws inputError if it is none, is damaged, or its pickle is too large. */
export async function openTorchItem(source: RangeFile): Promise<TorchItem> {
  const { path, size } = source;
  const members = await membersOf(source);
  const pickle = [...members.values()].find(({ name }) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw inputError("archive without data.pkl, expected what torch.save writes", { where: path });
  if (pickle.bytes > largestPickle)
    throw inputError(`the pickle has ${pickle.bytes} bytes, limit ${largestPickle}`, { where: path });
  const prefix = pickle.name.slice(0, -"data.pkl".length);
  const head = await source.read(0, Math.min(size, shortHead));
  const begins = new Map<string, Promise<number>>();
  const inHead = (at: number, count: number): Promise<Uint8Array> =>
    at + count <= head.length ? Promise.resolve(head.subarray(at, at + count)) : source.read(at, count);
  const beginOf = async (member: ZipMember): Promise<number> => {
    if (!member.stored) throw inputError(`member ${member.name} is packed, torch.save stores`, { where: path });
    return memberBegin(await inHead(member.header, localHeaderBytes), member, size, path);
  };
  const value = readInert(await inHead(await beginOf(pickle), pickle.bytes), path);
  const order = members.get(`${prefix}byteorder`);
  if (order !== undefined && new TextDecoder().decode(await inHead(await beginOf(order), order.bytes)) !== "little")
    throw inputError("byte order is not little", { where: path });
  return {
    value,
    async read(tensor, start, count, into) {
      const member = members.get(`${prefix}data/${tensor.key}`);
      if (member === undefined || !liesInside(tensor, member.bytes))
        throw inputError(`a tensor [${tensor.shape.join(", ")}] does not lie in data/${tensor.key}`, { where: path });
      const begin = begins.get(tensor.key) ?? beginOf(member);
      begins.set(tensor.key, begin);
      return gather(source, await begin, tensor, start, count, into);
    },
  };
}

async function membersOf(source: RangeFile): Promise<Map<string, ZipMember>> {
  const { path, size } = source;
  const short = Math.min(size, shortTail);
  const tail = await source.read(size - short, short);
  const found = await endOf(source, tail).catch(async () => endOf(source, await source.read(...lastOf(size))));
  const end = found.kind === "zip64" ? zip64End(await source.read(found.begin, zip64EndBytes), size, path) : found;
  if (end.bytes > largestPickle)
    throw inputError(`zip directory has ${end.bytes} bytes, limit ${largestPickle}`, { where: path });
  const from = end.begin - (size - short);
  const directory = from >= 0 ? tail.subarray(from, from + end.bytes) : await source.read(end.begin, end.bytes);
  return zipDirectory(directory, end.members, size, path);
}

const lastOf = (size: number): [number, number] => [size - Math.min(size, zipTailBytes), Math.min(size, zipTailBytes)];

// eslint-disable-next-line @typescript-eslint/require-await -- so that what it throws is a rejection
async function endOf({ path, size }: RangeFile, tail: Uint8Array): Promise<ReturnType<typeof zipEnd>> {
  return zipEnd(tail, size, path);
}

/** Bytes: runs at least this long are read one by one, shorter ones out of one read. */
const longRun = 1 << 16;

async function gather(
  source: RangeFile,
  begin: number,
  tensor: TorchTensor,
  start: number,
  count: number,
  into?: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  const size = itemSizes[tensor.dtype];
  if (start + count > elements(tensor.shape))
    throw new Error(`elements ${start}+${count} of ${tensor.shape.join("x")}`);
  const runs = [...runsOf(tensor, start, count)];
  const [only] = runs;
  if (only === undefined) return new Uint8Array(0);
  if (runs.length === 1) return source.read(begin + only.at * size, count * size, into);
  const low = runs.reduce((least, { at }) => Math.min(least, at), Infinity);
  const high = runs.reduce((most, { at, count: length }) => Math.max(most, at + length), 0);
  const oneByOne = runs.some(({ count: length }) => length * size >= longRun);
  const span = oneByOne ? null : await source.read(begin + low * size, (high - low) * size);
  const out = new Uint8Array(count * size);
  let done = 0;
  for (const { at, count: length } of runs) {
    const bytes =
      span?.subarray((at - low) * size, (at - low + length) * size) ??
      (await source.read(begin + at * size, length * size));
    out.set(bytes, done * size);
    done += length;
  }
  return out;
}
