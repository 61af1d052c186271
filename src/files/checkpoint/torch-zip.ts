/**
 * What every reader of torch.save archives needs of the zip file: its members by name, where their bytes begin, and
 * elements of a tensor out of its storage. Files are read by ranges of bytes; nothing is executed.
 */
import { inputError } from "../../base/errors.js";
import { elements } from "../../base/shapes.js";
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

/** Runs of at least this many bytes are read one by one; shorter ones are picked out of one large read. */
const longRunBytes = 1 << 16;

/** Reads bytes of an archive, from the file or from what was read of it before. */
export type ReadBytes = (at: number, count: number) => Promise<Uint8Array>;

/**
 * The members of an archive, by name. The directory is looked for in the last `tailBytes` of the file, then in as many
 * as a zip file may have behind it. Throws inputError for a damaged archive, and for a directory of more than `limit`
 * bytes.
 */
export async function torchMembers(
  source: RangeFile,
  limit: number,
  tailBytes = zipTailBytes,
): Promise<Map<string, ZipMember>> {
  const { path, size } = source;
  const tailSize = Math.min(size, tailBytes);
  const tail = await source.read(size - tailSize, tailSize);
  const record = await endRecord(source, tail);
  const end = record.kind === "zip64" ? zip64End(await source.read(record.begin, zip64EndBytes), size, path) : record;
  if (end.bytes > limit) throw inputError(`zip directory has ${end.bytes} bytes, limit ${limit}`, { where: path });
  const from = end.begin - (size - tailSize);
  const directory = from >= 0 ? tail.subarray(from, from + end.bytes) : await source.read(end.begin, end.bytes);
  return zipDirectory(directory, end.members, size, path);
}

async function endRecord(source: RangeFile, tail: Uint8Array): Promise<ReturnType<typeof zipEnd>> {
  const { path, size } = source;
  const longest = Math.min(size, zipTailBytes);
  try {
    return zipEnd(tail, size, path);
  } catch (error) {
    if (tail.length >= longest) throw error;
    return zipEnd(await source.read(size - longest, longest), size, path);
  }
}

/** The pickle of an archive, with the folder that its members lie in. Throws inputError where there is none. */
export function pickleMember(
  members: ReadonlyMap<string, ZipMember>,
  where: string,
): { readonly pickle: ZipMember; readonly prefix: string } {
  const pickle = [...members.values()].find(({ name }) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw inputError("zip archive without data.pkl, expected what torch.save writes", { where });
  return { pickle, prefix: pickle.name.slice(0, -"data.pkl".length) };
}

/** Where a member's bytes begin. Throws inputError for one that is compressed or lies outside the file. */
export async function torchMemberBegin(
  { path, size }: Pick<RangeFile, "path" | "size">,
  member: ZipMember,
  read: ReadBytes,
): Promise<number> {
  if (!member.stored)
    throw inputError(`member ${member.name} is compressed, expected it as torch.save writes it`, { where: path });
  return memberBegin(await read(member.header, localHeaderBytes), member, size, path);
}

/** The bytes of a member. Throws inputError like `torchMemberBegin`, and for more than `limit` bytes. */
export async function readTorchMember(
  source: Pick<RangeFile, "path" | "size">,
  member: ZipMember,
  limit: number,
  read: ReadBytes,
): Promise<Uint8Array> {
  if (member.bytes > limit)
    throw inputError(`member ${member.name} has ${member.bytes} bytes, limit ${limit}`, { where: source.path });
  return read(await torchMemberBegin(source, member, read), member.bytes);
}

/** Throws inputError for an archive whose values are not in little-endian order. */
export async function requireLittleEndian(
  source: Pick<RangeFile, "path" | "size">,
  member: ZipMember | undefined,
  read: ReadBytes,
): Promise<void> {
  if (member === undefined) return;
  const order = new TextDecoder().decode(await readTorchMember(source, member, 16, read));
  if (order !== "little")
    throw inputError(`byte order is ${JSON.stringify(order)}, expected little`, { where: source.path });
}

/**
 * `count` elements of a tensor from `start` on, in row-major order, out of a storage that begins at byte `begin` and
 * may have them in another. `into` is memory that may hold the result.
 */
export async function gatherElements(
  source: RangeFile,
  begin: number,
  tensor: TorchTensor,
  start: number,
  count: number,
  into?: Uint8Array,
): Promise<Uint8Array<ArrayBuffer>> {
  if (start + count > elements(tensor.shape))
    throw new Error(`elements ${start}+${count} of ${tensor.shape.join("x")}`);
  const size = itemSizes[tensor.dtype];
  let [low, high, longest] = [Infinity, 0, 0];
  for (const run of runsOf(tensor, start, count)) {
    low = Math.min(low, run.at);
    high = Math.max(high, run.at + run.count);
    longest = Math.max(longest, run.count);
  }
  if (count === 0) return new Uint8Array(0);
  if (longest === count) return source.read(begin + low * size, count * size, into);
  const readsOneByOne = longest * size >= longRunBytes;
  const span = readsOneByOne ? null : await source.read(begin + low * size, (high - low) * size);
  const out = new Uint8Array(count * size);
  let done = 0;
  for (const { at, count: length } of runsOf(tensor, start, count)) {
    const bytes =
      span === null
        ? await source.read(begin + at * size, length * size)
        : span.subarray((at - low) * size, (at - low + length) * size);
    out.set(bytes, done * size);
    done += length;
  }
  return out;
}
