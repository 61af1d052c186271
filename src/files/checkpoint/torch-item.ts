/**
 * One archive of torch.save inside a larger file, as distributed checkpoints have them: the value of its pickle as
 * inert records, and tensors by ranges of bytes. Nothing is executed.
 */
import { inputError } from "../../base/errors.js";
import { liesInside, readInert, type Inert } from "../formats/inert-pickle.js";
import type { TorchTensor } from "../formats/torch-state.js";
import type { RangeFile } from "../io/ranges.js";
import {
  gatherElements,
  pickleMember,
  readTorchMember,
  requireLittleEndian,
  torchMemberBegin,
  torchMembers,
  type ReadBytes,
} from "./torch-zip.js";

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
  const members = await torchMembers(source, largestPickle, shortTail);
  const { pickle, prefix } = pickleMember(members, path);
  const head = await source.read(0, Math.min(size, shortHead));
  const begins = new Map<string, Promise<number>>();
  const read: ReadBytes = (at, count) =>
    at + count <= head.length ? Promise.resolve(head.subarray(at, at + count)) : source.read(at, count);
  const value = readInert(await readTorchMember(source, pickle, largestPickle, read), path);
  await requireLittleEndian(source, members.get(`${prefix}byteorder`), read);
  return {
    value,
    async read(tensor, start, count, into) {
      const member = members.get(`${prefix}data/${tensor.key}`);
      if (member === undefined || !liesInside(tensor, member.bytes))
        throw inputError(`a tensor [${tensor.shape.join(", ")}] does not lie in data/${tensor.key}`, { where: path });
      const begin = begins.get(tensor.key) ?? torchMemberBegin(source, member, read);
      begins.set(tensor.key, begin);
      return gatherElements(source, await begin, tensor, start, count, into);
    },
  };
}
