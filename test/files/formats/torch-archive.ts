import { at } from "../../../src/base/at.js";
/** Archives as torch.save writes them, and ones it would never write. */

const utf8 = new TextEncoder();

export interface Member {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** 0: stored. */
  readonly method?: number;
}

/** A zip archive of stored members; with `zip64`, every size and position is in the long form. */
export function zipArchive(members: readonly Member[], { zip64 = false, comment = "" } = {}): Uint8Array {
  const out: number[] = [];
  const directory: number[] = [];
  const number = (to: number[], size: number, value: number): void => {
    for (let i = 0; i < size; i++) to.push(Math.floor(value / 2 ** (8 * i)) % 256);
  };
  for (const { name, bytes, method = 0 } of members) {
    const label = utf8.encode(name);
    const header = out.length;
    const short = (value: number): number => (zip64 ? 0xffffffff : value);
    // The local header has padding of its own, which the directory does not know.
    const padding = (64 - ((header + 30 + label.length) % 64)) % 64;
    number(out, 4, 0x04034b50);
    for (const [size, value] of [
      [2, 45],
      [2, 0],
      [2, method],
      [4, 0],
      [4, 0],
      [4, short(bytes.length)],
      [4, short(bytes.length)],
      [2, label.length],
      [2, padding],
    ] as const)
      number(out, size, value);
    for (const part of [label, new Uint8Array(padding), bytes]) for (const byte of part) out.push(byte);
    number(directory, 4, 0x02014b50);
    const sizes = [
      [2, 45],
      [2, 45],
      [2, 0],
      [2, method],
      [4, 0],
      [4, 0],
      [4, short(bytes.length)],
      [4, short(bytes.length)],
    ] as const;
    for (const [size, value] of [
      ...sizes,
      [2, label.length],
      [2, zip64 ? 32 : 0],
      [2, 0],
      [2, 0],
      [2, 0],
      [4, 0],
      [4, short(header)],
    ] as const)
      number(directory, size, value);
    directory.push(...label);
    // A foreign field comes first, as real archives have them.
    if (zip64)
      for (const [size, value] of [
        [2, 0x5455],
        [2, 0],
        [2, 1],
        [2, 24],
        [8, bytes.length],
        [8, bytes.length],
        [8, header],
      ] as const)
        number(directory, size, value);
  }
  const begin = out.length;
  out.push(...directory);
  if (zip64) {
    const record = out.length;
    number(out, 4, 0x06064b50);
    for (const [size, value] of [
      [8, 44],
      [2, 45],
      [2, 45],
      [4, 0],
      [4, 0],
      [8, members.length],
      [8, members.length],
      [8, directory.length],
      [8, begin],
    ] as const)
      number(out, size, value);
    number(out, 4, 0x07064b50);
    for (const [size, value] of [
      [4, 0],
      [8, record],
      [4, 1],
    ] as const)
      number(out, size, value);
  }
  number(out, 4, 0x06054b50);
  const counts = zip64
    ? [0xffff, 0xffff, 0xffffffff, 0xffffffff]
    : [members.length, members.length, directory.length, begin];
  number(out, 4, 0);
  number(out, 2, at(counts, 0));
  number(out, 2, at(counts, 1));
  number(out, 4, at(counts, 2));
  number(out, 4, at(counts, 3));
  number(out, 2, comment.length);
  return Uint8Array.from([...out, ...utf8.encode(comment)]);
}

export type PicklePart = Uint8Array | string | number;

/** Pickles from opcodes: bytes as they are, words as `BINUNICODE`, numbers as `BININT`. */
export function pickle(...parts: PicklePart[]): Uint8Array {
  const bytes = [0x80, 2];
  const int = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 255);
  for (const part of parts) {
    if (typeof part === "number") bytes.push(0x4a, ...int(part));
    else if (typeof part === "string") bytes.push(0x58, ...int(utf8.encode(part).length), ...utf8.encode(part));
    else bytes.push(...part);
  }
  return Uint8Array.from([...bytes, 0x2e]);
}

/** Opcodes by their letters, such as `"(t"`. */
export const op = (letters: string): Uint8Array => Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
export const global = (module: string, name: string): Uint8Array => utf8.encode(`c${module}\n${name}\n`);

export interface FakeTensor {
  readonly name: string;
  readonly key?: string;
  readonly elements: number;
  readonly offset?: number;
  readonly size: readonly number[];
  readonly stride: readonly number[];
  readonly storage?: string;
}

/** The `data.pkl` of a state dict. */
export function statePickle(tensors: readonly FakeTensor[]): Uint8Array {
  const list = (items: readonly number[]): (Uint8Array | number)[] => [op("("), ...items, op("t")];
  return pickle(
    op("}("),
    ...tensors.flatMap(({ name, key = "0", elements, offset = 0, size, stride, storage = "FloatStorage" }) => [
      name,
      global("torch._utils", "_rebuild_tensor_v2"),
      op("(("),
      "storage",
      global("torch", storage),
      key,
      "cpu",
      elements,
      op("tQ"),
      offset,
      ...list(size),
      ...list(stride),
      Uint8Array.of(0x89),
      global("collections", "OrderedDict"),
      op(")RtR"),
    ]),
    op("u"),
  );
}

export const f32 = (...values: readonly number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
