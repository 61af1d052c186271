/**
 * `pytorch_model*.bin`: tensors of `torch.save` archives, read by byte ranges, without executing what the files ask
 * for.
 */
import { UpcycleError, inputError } from "../../base/errors.js";
import { itemSizes, tensorBytes } from "../formats/safetensors.js";
import { parseStateDict, runsOf, type TorchTensor } from "../formats/torch-state.js";
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
import { elements } from "../../base/shapes.js";
import { contiguous, type ReadableTensor } from "./stored.js";

/** Names and shapes of some 60,000 tensors. Each byte of a hostile pickle can cost about a hundred of memory. */
const maxPickleBytes = 16_000_000;
/** Runs at least this long are read one by one; shorter ones are picked out of one large read. */
const longRunBytes = 1 << 16;

/**
 * Every tensor of the archive's state dict. Throws inputError if the file is no such archive, is damaged, or asks for
 * more than tensors.
 */
export async function pickledTensors(source: RangeFile, file: string): Promise<[string, ReadableTensor][]> {
  const members = await readMembers(source);
  const pickle = [...members.values()].find(({ name }) => /^[^/]*\/data\.pkl$/.test(name));
  if (pickle === undefined)
    throw inputError("zip archive without data.pkl, expected what torch.save writes", { where: source.path });
  const prefix = pickle.name.slice(0, -"data.pkl".length);
  await requireLittleEndian(source, members.get(`${prefix}byteorder`));
  const state = parseStateDict(await readMember(source, pickle, maxPickleBytes), source.path);
  const begins = new Map<string, number>();
  const tensors: [string, ReadableTensor][] = [];
  for (const [name, tensor] of state) {
    const storage = storageOf(source, members.get(`${prefix}data/${tensor.key}`), name, tensor);
    const begin = begins.get(tensor.key) ?? (await beginOf(source, storage));
    begins.set(tensor.key, begin);
    requireStorageSize(source, storage, name, tensor);
    tensors.push([name, readableTensor(source, file, begin, tensor)]);
  }
  return tensors;
}

async function readMembers(source: RangeFile): Promise<Map<string, ZipMember>> {
  const { path, size } = source;
  await requireZip(source);
  const tailBytes = Math.min(size, zipTailBytes);
  const record = zipEnd(await source.read(size - tailBytes, tailBytes), size, path);
  const end = record.kind === "zip64" ? zip64End(await source.read(record.begin, zip64EndBytes), size, path) : record;
  if (end.bytes > maxPickleBytes)
    throw inputError(`zip directory has ${end.bytes} bytes, limit ${maxPickleBytes}`, { where: path });
  return zipDirectory(await source.read(end.begin, end.bytes), end.members, size, path);
}

/** Tells the formats of old versions from damage: both are refused, but for other reasons. */
async function requireZip(source: RangeFile): Promise<void> {
  const first = await source.read(0, Math.min(source.size, 512));
  const startsWith = (...bytes: number[]): boolean => bytes.every((byte, i) => first[i] === byte);
  if (startsWith(0x50, 0x4b, 3, 4)) return;
  const resave =
    "load it with a recent torch (weights_only=True) and torch.save it again, or use a safetensors version";
  const old = (what: string): UpcycleError =>
    inputError(`file is in ${what}, expected the zip format of torch 1.6 and later`, {
      where: source.path,
      hint: resave,
    });
  // A pickle that begins with torch's magic number.
  if (startsWith(0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9)) throw old("the format of torch before 1.6");
  if (new TextDecoder().decode(first.subarray(257, 262)) === "ustar")
    throw old("the tar format of torch before 0.1.10");
  if (new TextDecoder().decode(first).startsWith("version https://git-lfs")) {
    throw inputError("this is a Git LFS pointer, not the file itself", {
      where: source.path,
      hint: "run git lfs pull in the model's folder",
    });
  }
  throw inputError("file is no torch.save archive", {
    where: source.path,
    hint: "the file is damaged or cut short; copy or download it again",
  });
}

async function requireLittleEndian(source: RangeFile, member: ZipMember | undefined): Promise<void> {
  if (member === undefined) return;
  const order = new TextDecoder().decode(await readMember(source, member, 16));
  if (order !== "little")
    throw inputError(`byte order is ${JSON.stringify(order)}, expected little`, { where: source.path });
}

/** Where a member's bytes begin. Throws inputError for one that is compressed or lies outside the file. */
async function beginOf(source: RangeFile, member: ZipMember): Promise<number> {
  if (!member.stored)
    throw inputError(`member ${member.name} is compressed, expected it as torch.save writes it`, {
      where: source.path,
    });
  return memberBegin(await source.read(member.header, localHeaderBytes), member, source.size, source.path);
}

async function readMember(source: RangeFile, member: ZipMember, limit: number): Promise<Uint8Array> {
  if (member.bytes > limit)
    throw inputError(`member ${member.name} has ${member.bytes} bytes, limit ${limit}`, { where: source.path });
  return source.read(await beginOf(source, member), member.bytes);
}

/** The member that a tensor's storage is. */
function storageOf({ path }: RangeFile, member: ZipMember | undefined, name: string, { key }: TorchTensor): ZipMember {
  if (member === undefined)
    throw inputError(`tensor ${name} lies in data/${key}, which the archive does not have`, { where: path });
  return member;
}

function requireStorageSize(
  { path }: RangeFile,
  member: ZipMember,
  name: string,
  { dtype, storageElements }: TorchTensor,
): void {
  const bytes = storageElements * itemSizes[dtype];
  if (!(bytes <= member.bytes))
    throw inputError(`tensor ${name}: its storage takes ${bytes} bytes, ${member.name} has ${member.bytes}`, {
      where: path,
    });
}

/** The tensor of a storage that begins at byte `begin` of the file. */
function readableTensor(source: RangeFile, file: string, begin: number, tensor: TorchTensor): ReadableTensor {
  const { dtype, shape } = tensor;
  const whole = contiguous(source, begin + tensor.offset * itemSizes[dtype], {
    file,
    dtype,
    shape,
    bytes: tensorBytes(dtype, shape),
  });
  const count = elements(shape);
  const [run] = runsOf(tensor, 0, count);
  if (run === undefined || run.count === count) return whole;
  return { ...whole, read: (start, length) => gather(source, begin, tensor, start, length) };
}

/** Reads elements in row-major order out of a storage that has them in another. */
async function gather(
  source: RangeFile,
  begin: number,
  tensor: TorchTensor,
  start: number,
  count: number,
): Promise<Uint8Array<ArrayBuffer>> {
  const size = itemSizes[tensor.dtype];
  const out = new Uint8Array(count * size);
  let [low, high, longest] = [Infinity, 0, 0];
  for (const run of runsOf(tensor, start, count)) {
    low = Math.min(low, run.at);
    high = Math.max(high, run.at + run.count);
    longest = Math.max(longest, run.count);
  }
  if (count === 0) return out;
  const readsOneByOne = longest * size >= longRunBytes;
  const span = readsOneByOne ? null : await source.read(begin + low * size, (high - low) * size);
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
