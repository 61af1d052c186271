/**
 * Writes archives as torch.save does: a zip whose members are stored, not packed, the storage at a multiple of 64
 * bytes. A tensor's archive is planned before its values are known: what stands before them, and what behind. Pure but
 * for the checksum, which is zlib's. Sources: torch `serialization.py`; PKWARE APPNOTE 6.3.10.
 */
import { pickledGlobal, writePickle, type Picklable } from "./pickle-writer.js";
import { itemSizes, type Dtype } from "./safetensors.js";

const storageNames: Readonly<Partial<Record<Dtype, string>>> = {
  F32: "FloatStorage",
  BF16: "BFloat16Storage",
  F16: "HalfStorage",
  F64: "DoubleStorage",
};

/** CRC-32 of some bytes, as zip archives have it. */
export type Checksum = (bytes: Uint8Array) => number;

interface Member {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Members behind the storage: torch asks for the version. */
const lastMembers: readonly Member[] = [
  { name: "version", bytes: encode("3\n") },
  { name: ".data/serialization_id", bytes: encode("0".repeat(40)) },
];

/** An archive around a storage. */
export interface ArchivePlan {
  /** What comes before the values. */
  readonly head: Uint8Array;
  /** Bytes of the values. */
  readonly dataBytes: number;
  /** Bytes of what comes behind them. */
  readonly tailBytes: number;
  /** What comes behind them, once their checksum is known. */
  tail(checksum: number): Uint8Array;
}

/** Archive of a contiguous tensor whose file begins at byte `at`: its values begin at a multiple of `align` bytes. */
export function planTensorArchive(
  dtype: Dtype,
  shape: readonly number[],
  { at, align, checksum }: { readonly at: number; readonly align: number; readonly checksum: Checksum },
): ArchivePlan {
  const writer = new ZipWriter(at, checksum);
  writer.member({ name: "data.pkl", bytes: tensorPickle(dtype, shape) });
  writer.member({ name: "byteorder", bytes: encode("little") });
  const dataBytes = shape.reduce((a, b) => a * b, itemSizes[dtype]);
  const entry = writer.later("data/0", dataBytes, align);
  const head = writer.taken();
  const tail = (sum: number): Uint8Array => {
    const after = writer.behind(dataBytes);
    after.described(entry, sum);
    for (const member of lastMembers) after.member(member);
    return after.end();
  };
  return { head, dataBytes, tailBytes: tail(0).length, tail };
}

/** Archive of a value without tensors. */
export function archiveOf(value: Picklable, checksum: Checksum): Uint8Array {
  const writer = new ZipWriter(0, checksum);
  writer.member({ name: "data.pkl", bytes: writePickle(value) });
  writer.member({ name: "byteorder", bytes: encode("little") });
  for (const member of lastMembers) writer.member(member);
  return writer.end();
}

function tensorPickle(dtype: Dtype, shape: readonly number[]): Uint8Array {
  const count = shape.reduce((a, b) => a * b, 1);
  const stride = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  const storage = ["storage", pickledGlobal("torch", storageNames[dtype]!), "0", "cpu", count] as const;
  return writePickle({
    call: pickledGlobal("torch._utils", "_rebuild_tensor_v2"),
    args: [
      { persistent: storage },
      0,
      { tuple: shape },
      { tuple: stride },
      false,
      { call: pickledGlobal("collections", "OrderedDict"), args: [] },
    ],
  });
}

interface Entry {
  readonly name: Uint8Array;
  readonly header: number;
  readonly flags: number;
  readonly size: number;
  sum: number;
}

/** The first day that zip archives know. */
const firstDay = 0x21;
/** The sizes stand behind the bytes, in a record of their own; names are UTF-8. */
const described = 0x0808;

class ZipWriter {
  readonly #start: number;
  readonly #checksum: Checksum;
  readonly #entries: Entry[];
  #parts: Uint8Array[] = [];
  /** In the file. */
  #at: number;

  constructor(start: number, checksum: Checksum, at = start, entries: readonly Entry[] = []) {
    [this.#start, this.#checksum, this.#at, this.#entries] = [start, checksum, at, [...entries]];
  }

  #put(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#at += bytes.length;
  }

  member({ name, bytes }: Member, align = 64): void {
    this.#header({ name, size: bytes.length, sum: this.#checksum(bytes), flags: 0 }, align);
    this.#put(bytes);
  }

  /** The header of a member whose bytes come later. */
  later(name: string, size: number, align: number): Entry {
    return this.#header({ name, size, sum: 0, flags: described }, align);
  }

  #header(
    { name, size, sum, flags }: { name: string; size: number; sum: number; flags: number },
    align: number,
  ): Entry {
    const entry = { name: encode(`archive/${name}`), header: this.#at - this.#start, flags, size, sum };
    // Aligned in the file, which a zip of its own must begin at a multiple of 64 for; so the padding counts from there.
    const filled = this.#at + 30 + entry.name.length + 4;
    const padding = (align - (filled % align)) % align;
    const header = new Uint8Array(30 + entry.name.length + 4 + padding);
    const view = new DataView(header.buffer);
    const known = flags === 0;
    view.setUint32(0, 0x04034b50, true);
    view.setUint16(4, 20, true);
    view.setUint16(6, flags, true);
    view.setUint16(12, firstDay, true);
    view.setUint32(14, known ? sum : 0, true);
    view.setUint32(18, known ? size : 0, true);
    view.setUint32(22, known ? size : 0, true);
    view.setUint16(26, entry.name.length, true);
    view.setUint16(28, 4 + padding, true);
    header.set(entry.name, 30);
    header.set(encode("FB"), 30 + entry.name.length);
    view.setUint16(32 + entry.name.length, padding, true);
    header.fill(0x5a, 34 + entry.name.length);
    this.#put(header);
    this.#entries.push(entry);
    return entry;
  }

  taken(): Uint8Array {
    const parts = this.#parts;
    this.#parts = [];
    return joined(parts);
  }

  /** A writer that goes on behind so many bytes of values. */
  behind(bytes: number): ZipWriter {
    return new ZipWriter(this.#start, this.#checksum, this.#at + bytes, this.#entries);
  }

  /** The record behind a member that says what its header did not. */
  described(entry: Entry, sum: number): void {
    const record = new Uint8Array(16);
    const view = new DataView(record.buffer);
    view.setUint32(0, 0x08074b50, true);
    view.setUint32(4, sum, true);
    view.setUint32(8, entry.size, true);
    view.setUint32(12, entry.size, true);
    this.#entries[this.#entries.indexOf(entry)] = { ...entry, sum };
    this.#put(record);
  }

  end(): Uint8Array {
    const begin = this.#at - this.#start;
    for (const entry of this.#entries) this.#put(directoryEntry(entry));
    const record = new Uint8Array(22);
    const view = new DataView(record.buffer);
    view.setUint32(0, 0x06054b50, true);
    view.setUint16(8, this.#entries.length, true);
    view.setUint16(10, this.#entries.length, true);
    view.setUint32(12, this.#at - this.#start - begin, true);
    view.setUint32(16, begin, true);
    this.#put(record);
    return this.taken();
  }
}

function directoryEntry({ name, header, flags, size, sum }: Entry): Uint8Array {
  const bytes = new Uint8Array(46 + name.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x02014b50, true);
  view.setUint16(4, 20, true);
  view.setUint16(6, 20, true);
  view.setUint16(8, flags, true);
  view.setUint16(14, firstDay, true);
  view.setUint32(16, sum, true);
  view.setUint32(20, size, true);
  view.setUint32(24, size, true);
  view.setUint16(28, name.length, true);
  view.setUint32(42, header, true);
  bytes.set(name, 46);
  return bytes;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
