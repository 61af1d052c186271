/**
 * Tokens that Megatron-LM prepared: PATH.bin holds the ids, PATH.idx says how they are cut. Layout of the index
 * (Megatron-LM, megatron/core/datasets/indexed_dataset.py, class _IndexWriter), little endian: magic, version, dtype
 * code, sequence count, document count, lengths int32 [sequences], pointers int64 [sequences], document starts int64
 * [documents].
 */
import { at } from "../../base/at.js";
import { inputError, type UpcycleError } from "../../base/errors.js";
import { openRanges, type RangeFile } from "../../files/io/ranges.js";

/** What an index begins with. */
export const magic = "MMIDIDX\0\0";
/** Bytes of an index before its lengths. */
export const headerBytes = 9 + 8 + 1 + 8 + 8;

type Ids = Uint8Array | Int16Array | Int32Array | BigInt64Array | Uint16Array;

/** An integer dtype that ids are stored in. */
interface IdDtype {
  readonly name: string;
  readonly bytes: number;
  readonly view: (buffer: ArrayBuffer) => Ids;
}

/** The dtypes by their codes in an index; those that hold no ids have a name alone. */
const dtypes: Readonly<Record<number, IdDtype | string>> = {
  1: { name: "uint8", bytes: 1, view: (buffer) => new Uint8Array(buffer) },
  2: "int8",
  3: { name: "int16", bytes: 2, view: (buffer) => new Int16Array(buffer) },
  4: { name: "int32", bytes: 4, view: (buffer) => new Int32Array(buffer) },
  5: { name: "int64", bytes: 8, view: (buffer) => new BigInt64Array(buffer) },
  6: "float64",
  7: "float32",
  8: { name: "uint16", bytes: 2, view: (buffer) => new Uint16Array(buffer) },
};

/** A whole data set that Megatron-LM prepared. */
export interface IndexedTokens {
  /** All ids in file order; 16-bit files stay 16-bit in memory. */
  readonly tokens: Int32Array | Uint16Array;
  /** [documents + 1]: document i is `tokens[documents[i] .. documents[i + 1])`. */
  readonly documents: Float64Array;
  /** -1 where there are no tokens. */
  readonly largestId: number;
}

/** How many tokens are read and converted at once. */
const TOKENS_AT_ONCE = 1 << 24;

/** The name that both files share: `PATH` for `PATH`, `PATH.bin` or `PATH.idx`. */
export const indexedPrefix = (path: string): string => path.replace(/\.(bin|idx)$/, "");

/**
 * Reads a whole data set into memory. Throws inputError for a file that is missing, no such index, of another version,
 * of no integer dtype, cut short, or whose parts contradict each other.
 */
export async function readIndexed(path: string): Promise<IndexedTokens> {
  const prefix = indexedPrefix(path);
  const { dtype, documents } = await readIndex(`${prefix}.idx`, `${prefix}.bin`);
  const file = await openRanges(`${prefix}.bin`);
  try {
    return { documents, ...(await readTokens(file, at(documents, documents.length - 1), dtype)) };
  } finally {
    await file.close();
  }
}

/**
 * The first ids of a data set, however large it is. Throws inputError for a file that is missing, no such index, or
 * holds fewer.
 */
export async function readFirstTokens(path: string, count: number): Promise<Int32Array> {
  const prefix = indexedPrefix(path);
  const dtype = await readDtype(`${prefix}.idx`);
  const file = await openRanges(`${prefix}.bin`);
  try {
    if (file.size < count * dtype.bytes)
      throw inputError(`holds ${Math.floor(file.size / dtype.bytes)} tokens, expected ${count} at least`, {
        where: file.path,
      });
    const ids = dtype.view((await file.read(0, count * dtype.bytes)).buffer);
    return Int32Array.from({ length: count }, (_, i) => idAt(ids, i, i, file.path));
  } finally {
    await file.close();
  }
}

async function readDtype(path: string): Promise<IdDtype> {
  const index = await openRanges(path);
  try {
    return (await readHeader(index)).dtype;
  } finally {
    await index.close();
  }
}

/** Id number `i` of those that were read, which is token number `token` of the file. Throws inputError for no id. */
function idAt(ids: Ids, i: number, token: number, where: string): number {
  const id = Number(ids[i]);
  if (id < 0 || id > 0x7fffffff) throw inputError(`token ${token} is ${id}, which is no token id`, { where });
  return id;
}

async function readTokens(
  file: RangeFile,
  count: number,
  dtype: IdDtype,
): Promise<Pick<IndexedTokens, "tokens" | "largestId">> {
  const expectedBytes = count * dtype.bytes;
  if (file.size !== expectedBytes) {
    const hint = file.size < expectedBytes ? "it is cut short" : "it belongs to another index";
    throw inputError(
      `holds ${file.size} bytes, its index speaks of ${count} tokens of ${dtype.name}, ${expectedBytes} bytes`,
      { where: file.path, hint },
    );
  }
  const tokens = dtype.name === "uint16" ? new Uint16Array(count) : new Int32Array(count);
  let largestId = -1;
  for (let start = 0; start < count; start += TOKENS_AT_ONCE) {
    const size = Math.min(TOKENS_AT_ONCE, count - start);
    const ids = dtype.view((await file.read(start * dtype.bytes, size * dtype.bytes)).buffer);
    for (let i = 0; i < size; i++) {
      const id = idAt(ids, i, start + i, file.path);
      if (id > largestId) largestId = id;
      tokens[start + i] = id;
    }
  }
  return { tokens, largestId };
}

/** What the index says: the dtype of the ids, and where documents begin and end (`IndexedTokens.documents`). */
interface Index {
  readonly dtype: IdDtype;
  readonly documents: Float64Array;
}

async function readIndex(path: string, bin: string): Promise<Index> {
  const file = await openRanges(path);
  try {
    const { dtype, sequences, documentBounds } = await readHeader(file);
    const lengths = new Int32Array((await file.read(headerBytes, 4 * sequences)).buffer);
    const pointers = new BigInt64Array((await file.read(headerBytes + 4 * sequences, 8 * sequences)).buffer);
    const bounds = new BigInt64Array((await file.read(headerBytes + 12 * sequences, 8 * documentBounds)).buffer);
    const ends = sequenceEnds(lengths, pointers, dtype, path, bin);
    return { dtype, documents: documentStarts(bounds, ends, path) };
  } finally {
    await file.close();
  }
}

interface IndexHeader {
  readonly dtype: IdDtype;
  readonly sequences: number;
  /** One more than documents. */
  readonly documentBounds: number;
}

/** Throws inputError for a file that is no index of version 1, of no integer dtype, cut short or empty. */
async function readHeader(file: RangeFile): Promise<IndexHeader> {
  const refuse = (message: string, hint?: string): UpcycleError => inputError(message, { where: file.path, hint });
  if (file.size < headerBytes) throw refuse(`holds ${file.size} bytes, an index has at least ${headerBytes}`);
  const header = await file.read(0, headerBytes);
  const view = new DataView(header.buffer);
  if (new TextDecoder("latin1").decode(header.subarray(0, 9)) !== magic)
    throw refuse("this is no index of a Megatron data set (its first bytes are not MMIDIDX)");
  const version = view.getBigUint64(9, true);
  if (version !== 1n) throw refuse(`its version is ${version}, only version 1 is known`);
  const code = view.getUint8(17);
  const dtype = dtypes[code];
  if (dtype === undefined) throw refuse(`dtype code ${code} is none of 1 to 8`);
  if (typeof dtype === "string")
    throw refuse(`its dtype is ${dtype} (code ${code}), token ids are whole numbers of at least 0`);
  const [sequences, documentBounds] = [Number(view.getBigUint64(18, true)), Number(view.getBigUint64(26, true))];
  // A file with modes (multimodal data) is longer by one byte per sequence.
  const smallestSize = headerBytes + 12 * sequences + 8 * documentBounds;
  if (file.size < smallestSize)
    throw refuse(
      `holds ${file.size} bytes, ${sequences} sequences and ${documentBounds} document bounds take ${smallestSize}`,
      "it is cut short",
    );
  if (sequences === 0 || documentBounds < 2) throw refuse("the data set is empty");
  return { dtype, sequences, documentBounds };
}

/**
 * [sequences + 1]: where each sequence begins and the last one ends, in tokens. Throws inputError unless sequences
 * follow one another in the file of ids.
 */
function sequenceEnds(
  lengths: Int32Array,
  pointers: BigInt64Array,
  { bytes }: IdDtype,
  path: string,
  bin: string,
): Float64Array {
  const ends = new Float64Array(lengths.length + 1);
  let end = 0;
  for (const [i, length] of lengths.entries()) {
    if (length < 0) throw inputError(`sequence ${i} has length ${length}`, { where: path });
    if (Number(pointers[i]) !== end * bytes)
      throw inputError(
        `sequence ${i} starts at byte ${pointers[i]} of ${bin}, expected ${end * bytes}: ` +
          "sequences must follow one another",
        { where: path },
      );
    end += length;
    ends[i + 1] = end;
  }
  return ends;
}

/** [documents + 1]: where each document begins and the last one ends, in tokens. Throws inputError for other bounds. */
function documentStarts(bounds: BigInt64Array, ends: Float64Array, path: string): Float64Array {
  const sequences = ends.length - 1;
  const documents = new Float64Array(bounds.length);
  let least = 0;
  for (const [i, bound] of bounds.entries()) {
    const sequence = Number(bound);
    const most = i === 0 ? 0 : sequences;
    if (sequence < least || sequence > most)
      throw inputError(
        `document bound ${i} is sequence ${bound}, expected ${i === 0 ? "0" : `${least} to ${sequences}`}`,
        { where: path },
      );
    documents[i] = at(ends, sequence);
    least = sequence;
  }
  if (least !== sequences)
    throw inputError(`the last document ends at sequence ${least}, there are ${sequences}`, { where: path });
  return documents;
}
