/**
 * `pytorch_model*.bin`: tensors of `torch.save` archives, read by byte ranges, without executing what the files ask
 * for.
 */
import { UpcycleError, inputError } from "../../base/errors.js";
import { foreignFile } from "../formats/foreign-file.js";
import { itemSizes, tensorBytes } from "../formats/safetensors.js";
import { parseStateDict, runsOf, type TorchTensor } from "../formats/torch-state.js";
import type { ZipMember } from "../formats/zip.js";
import type { RangeFile } from "../io/ranges.js";
import { elements } from "../../base/shapes.js";
import { contiguous, type ReadableTensor } from "./stored.js";
import {
  gatherElements,
  pickleMember,
  readTorchMember,
  requireLittleEndian,
  torchMemberBegin,
  torchMembers,
  type ReadBytes,
} from "./torch-zip.js";

/** Names and shapes of some 60,000 tensors. Each byte of a hostile pickle can cost about a hundred of memory. */
const maxPickleBytes = 16_000_000;

/**
 * Every tensor of the archive's state dict. Throws inputError if the file is no such archive, is damaged, or asks for
 * more than tensors.
 */
export async function pickledTensors(source: RangeFile, file: string): Promise<[string, ReadableTensor][]> {
  await requireZip(source);
  const members = await torchMembers(source, maxPickleBytes);
  const { pickle, prefix } = pickleMember(members, source.path);
  const read: ReadBytes = (at, count) => source.read(at, count);
  await requireLittleEndian(source, members.get(`${prefix}byteorder`), read);
  const state = parseStateDict(await readTorchMember(source, pickle, maxPickleBytes, read), source.path);
  const begins = new Map<string, number>();
  const tensors: [string, ReadableTensor][] = [];
  for (const [name, tensor] of state) {
    const storage = storageOf(source, members.get(`${prefix}data/${tensor.key}`), name, tensor);
    const begin = begins.get(tensor.key) ?? (await torchMemberBegin(source, storage, read));
    begins.set(tensor.key, begin);
    requireStorageSize(source, storage, name, tensor);
    tensors.push([name, readableTensor(source, file, begin, tensor)]);
  }
  return tensors;
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
  const foreign = foreignFile(first);
  if (foreign !== null) throw inputError(`this is ${foreign.what}`, { where: source.path, hint: foreign.hint });
  throw inputError("file is no torch.save archive", {
    where: source.path,
    hint: "the file is damaged or cut short; copy or download it again",
  });
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
  return { ...whole, read: (start, length) => gatherElements(source, begin, tensor, start, length) };
}
