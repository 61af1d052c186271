/**
 * The directory of a zip archive: names and byte ranges of its members, which are never unpacked here. Pure: the caller
 * reads the ranges that these functions ask for. Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12
 * (directory), 4.3.14-16 (end records), 4.5.3 (ZIP64 sizes). One-disk archives only.
 */
import { inputError, type UpcycleError } from "../../base/errors.js";

/** A member of an archive, as its directory lists it. */
export interface ZipMember {
  readonly name: string;
  /** True if its bytes lie in the archive as they are, neither compressed nor encrypted. */
  readonly stored: boolean;
  /** Size in the archive. */
  readonly bytes: number;
  /** Where its local header begins; `memberBegin` says where its bytes begin. */
  readonly header: number;
}

/**
 * Bytes that the end of an archive can take: the end record with the longest comment, and the ZIP64 locator before it.
 */
export const zipTailBytes = 22 + 0xffff + 20;
/** Bytes of the end record of a ZIP64 archive. */
export const zip64EndBytes = 56;
/** Bytes of a member's local header, its name and extra field aside. */
export const localHeaderBytes = 30;

/** Where the directory lies, or, for a ZIP64 archive, where the record lies that says so. */
type ZipEnd =
  | { readonly kind: "directory"; readonly begin: number; readonly bytes: number; readonly members: number }
  | { readonly kind: "zip64"; readonly begin: number };

const damaged = (message: string, where: string): UpcycleError =>
  inputError(message, { where, hint: "the file is cut short or damaged; copy or download it again" });

/**
 * Reads the last `zipTailBytes` of an archive (or all of it, if it is smaller). Throws inputError if no archive ends
 * there.
 */
export function zipEnd(tail: Uint8Array, fileBytes: number, where: string): ZipEnd {
  const view = viewOf(tail);
  let at = tail.byteLength - 22;
  // The comment fills the rest of the file exactly, which tells the record from bytes that look like it.
  while (
    at >= 0 &&
    !(view.getUint32(at, true) === 0x06054b50 && at + 22 + view.getUint16(at + 20, true) === tail.byteLength)
  )
    at--;
  if (at < 0) throw damaged("zip archive has no end record", where);
  const [members, bytes, begin] = [
    view.getUint16(at + 10, true),
    view.getUint32(at + 12, true),
    view.getUint32(at + 16, true),
  ];
  if (members !== 0xffff && bytes !== 0xffffffff && begin !== 0xffffffff)
    return within({ kind: "directory", begin, bytes, members }, fileBytes, where);
  if (at < 20 || view.getUint32(at - 20, true) !== 0x07064b50) throw damaged("zip archive has no ZIP64 locator", where);
  const record = readUint64(view, at - 12, where);
  if (record + zip64EndBytes > fileBytes)
    throw damaged(`ZIP64 end record is at byte ${record}, the file has ${fileBytes}`, where);
  return { kind: "zip64", begin: record };
}

/** Reads the `zip64EndBytes` of a ZIP64 end record. */
export function zip64End(record: Uint8Array, fileBytes: number, where: string): ZipEnd & { kind: "directory" } {
  const view = viewOf(record);
  if (view.getUint32(0, true) !== 0x06064b50)
    throw damaged("zip archive has no ZIP64 end record where its locator says", where);
  const [members, bytes, begin] = [
    readUint64(view, 32, where),
    readUint64(view, 40, where),
    readUint64(view, 48, where),
  ];
  return within({ kind: "directory", begin, bytes, members }, fileBytes, where);
}

function within(end: ZipEnd & { kind: "directory" }, fileBytes: number, where: string): ZipEnd & { kind: "directory" } {
  if (end.begin + end.bytes > fileBytes)
    throw damaged(`zip directory ends at byte ${end.begin + end.bytes}, the file has ${fileBytes}`, where);
  return end;
}

/**
 * Reads the directory's bytes: its members by name. Throws inputError for a broken entry and for a name that occurs
 * twice.
 */
export function zipDirectory(
  directory: Uint8Array,
  members: number,
  fileBytes: number,
  where: string,
): Map<string, ZipMember> {
  const view = viewOf(directory);
  const byName = new Map<string, ZipMember>();
  for (let at = 0, index = 0; index < members; index++) {
    if (at + 46 > directory.byteLength || view.getUint32(at, true) !== 0x02014b50)
      throw damaged(`zip directory has no entry ${index + 1} of ${members}`, where);
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true);
    const next = at + 46 + nameBytes + extraBytes + view.getUint16(at + 32, true);
    if (next > directory.byteLength)
      throw damaged(`entry ${index + 1} of the zip directory goes beyond its end`, where);
    const name = new TextDecoder().decode(directory.subarray(at + 46, at + 46 + nameBytes));
    const [isPacked, isEncrypted] = [view.getUint16(at + 10, true) !== 0, (view.getUint16(at + 8, true) & 1) !== 0];
    const sizes = longSizes(view, at, at + 46 + nameBytes, extraBytes, where);
    const member = { name, stored: !isPacked && !isEncrypted, ...sizes };
    if (member.header + localHeaderBytes + member.bytes > fileBytes) {
      throw damaged(
        `member ${name} ends after byte ${member.header + localHeaderBytes + member.bytes}, the file has ${fileBytes}`,
        where,
      );
    }
    if (byName.has(name)) throw damaged(`zip archive has ${JSON.stringify(name)} twice`, where);
    byName.set(name, member);
    at = next;
  }
  return byName;
}

/**
 * A member's size and position. A number of all ones stands for one in the ZIP64 field, which holds the unpacked size,
 * the packed size and the position in this order, of which only those that are needed.
 */
function longSizes(
  view: DataView,
  entry: number,
  extra: number,
  extraBytes: number,
  where: string,
): { bytes: number; header: number } {
  const short = {
    unpacked: view.getUint32(entry + 24, true),
    bytes: view.getUint32(entry + 20, true),
    header: view.getUint32(entry + 42, true),
  };
  let field = -1;
  let end = -1;
  for (let at = extra; at + 4 <= extra + extraBytes;) {
    const size = view.getUint16(at + 2, true);
    if (view.getUint16(at, true) === 1) [field, end] = [at + 4, Math.min(at + 4 + size, extra + extraBytes)];
    at += 4 + size;
  }
  const read = (value: number): number => {
    if (value !== 0xffffffff) return value;
    if (field < 0 || field + 8 > end) throw damaged("zip directory has an entry without its ZIP64 sizes", where);
    field += 8;
    return readUint64(view, field - 8, where);
  };
  read(short.unpacked);
  const bytes = read(short.bytes);
  return { bytes, header: read(short.header) };
}

/** Where a member's bytes begin, from the `localHeaderBytes` at its header. */
export function memberBegin(local: Uint8Array, member: ZipMember, fileBytes: number, where: string): number {
  const view = viewOf(local);
  if (view.getUint32(0, true) !== 0x04034b50)
    throw damaged(`member ${member.name} has no header at byte ${member.header}`, where);
  const begin = member.header + localHeaderBytes + view.getUint16(26, true) + view.getUint16(28, true);
  if (begin + member.bytes > fileBytes)
    throw damaged(`member ${member.name} ends at byte ${begin + member.bytes}, the file has ${fileBytes}`, where);
  return begin;
}

function readUint64(view: DataView, at: number, where: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(`zip archive has a position of ${value}`, where);
  return Number(value);
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
