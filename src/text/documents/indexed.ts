/**
 * Tokens that Megatron-LM prepared: PATH.bin holds the ids, PATH.idx says how they are cut. Layout of the index
 * (Megatron-LM, megatron/core/datasets/indexed_dataset.py, class _IndexWriter), little endian: magic, version, dtype
 * code, sequence count, document count, lengths int32 [sequences], pointers int64 [sequences], document starts int64
 * [documents].
 */
import { inputError } from "../../base/errors.js";
import { openRanges, type RangeFile } from "../../files/io/ranges.js";

/** What an index begins with. */
export const magic = "MMIDIDX\0\0";
/** Bytes of an index before its lengths. */
export const headerBytes = 9 + 8 + 1 + 8 + 8;

type Ids = Uint8Array | Int16Array | Int32Array | BigInt64Array | Uint16Array;
interface Stored {
  readonly name: string;
  readonly bytes: number;
  readonly view: (buffer: ArrayBuffer) => Ids;
}

const dtypes: Readonly<Record<number, Stored | string>> = {
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
  readonly largestId: number;
}

/** Tokens read at once while converting. */
const PIECE = 1 << 24;

/** `PATH`, `PATH.bin` or `PATH.idx` -> `PATH`. */
export const indexedPrefix = (path: string): string => path.replace(/\.(bin|idx)$/, "");

/**
 * Reads a whole data set into memory. Throws inputError for a file that is missing, no such index, of another version,
 * of no integer dtype, cut short, or whose parts contradict each other.
 */
export async function readIndexed(path: string): Promise<IndexedTokens> {
  const prefix = indexedPrefix(path);
  const { stored, documents } = await readIndex(`${prefix}.idx`, `${prefix}.bin`);
  const file = await openRanges(`${prefix}.bin`);
  try {
    return { documents, ...(await readTokens(file, documents.at(-1)!, stored)) };
  } finally {
    await file.close();
  }
}

async function readTokens(
  file: RangeFile,
  count: number,
  stored: Stored,
): Promise<Pick<IndexedTokens, "tokens" | "largestId">> {
  if (file.size !== count * stored.bytes) {
    const hint = file.size < count * stored.bytes ? "it is cut short" : "it belongs to another index";
    throw inputError(
      `holds ${file.size} bytes, its index speaks of ${count} tokens of ${stored.name}, ${count * stored.bytes} bytes`,
      { where: file.path, hint },
    );
  }
  const tokens = stored.name === "uint16" ? new Uint16Array(count) : new Int32Array(count);
  let largestId = -1;
  for (let at = 0; at < count; at += PIECE) {
    const size = Math.min(PIECE, count - at);
    const ids = stored.view((await file.read(at * stored.bytes, size * stored.bytes)).buffer);
    for (let i = 0; i < size; i++) {
      const id = Number(ids[i]);
      if (id < 0 || id > 0x7fffffff)
        throw inputError(`token ${at + i} is ${id}, which is no token id`, { where: file.path });
      if (id > largestId) largestId = id;
      tokens[at + i] = id;
    }
  }
  return { tokens, largestId };
}

async function readIndex(
  path: string,
  bin: string,
): Promise<{ readonly stored: Stored; readonly documents: Float64Array }> {
  const file = await openRanges(path);
  try {
    const refuse = (message: string, hint?: string): never => {
      throw inputError(message, { where: path, ...(hint === undefined ? {} : { hint }) });
    };
    if (file.size < headerBytes) return refuse(`holds ${file.size} bytes, an index has at least ${headerBytes}`);
    const header = await file.read(0, headerBytes);
    const view = new DataView(header.buffer);
    if (new TextDecoder("latin1").decode(header.subarray(0, 9)) !== magic)
      return refuse("this is no index of a Megatron data set (its first bytes are not MMIDIDX)");
    const version = view.getBigUint64(9, true);
    if (version !== 1n) return refuse(`its version is ${version}, only version 1 is known`);
    const code = view.getUint8(17);
    const stored = dtypes[code];
    if (stored === undefined) return refuse(`dtype code ${code} is none of 1 to 8`);
    if (typeof stored === "string")
      return refuse(`its dtype is ${stored} (code ${code}), token ids are whole numbers of at least 0`);
    const [sequences, starts] = [Number(view.getBigUint64(18, true)), Number(view.getBigUint64(26, true))];
    // A file with modes (multimodal data) is longer by one byte per sequence.
    const needed = headerBytes + 12 * sequences + 8 * starts;
    if (file.size < needed)
      return refuse(
        `holds ${file.size} bytes, ${sequences} sequences and ${starts} document bounds take ${needed}`,
        "it is cut short",
      );
    if (sequences === 0 || starts < 2) return refuse("the data set is empty");
    const lengths = new Int32Array((await file.read(headerBytes, 4 * sequences)).buffer);
    const pointers = new BigInt64Array((await file.read(headerBytes + 4 * sequences, 8 * sequences)).buffer);
    const bounds = new BigInt64Array((await file.read(headerBytes + 12 * sequences, 8 * starts)).buffer);

    const ends = new Float64Array(sequences + 1);
    for (let i = 0; i < sequences; i++) {
      if (lengths[i]! < 0) return refuse(`sequence ${i} has length ${lengths[i]}`);
      if (Number(pointers[i]) !== ends[i]! * stored.bytes)
        return refuse(
          `sequence ${i} starts at byte ${pointers[i]} of ${bin}, expected ${ends[i]! * stored.bytes}: ` +
            "sequences must follow one another",
        );
      ends[i + 1] = ends[i]! + lengths[i]!;
    }
    const documents = new Float64Array(starts);
    bounds.forEach((bound, i) => {
      const sequence = Number(bound);
      const least = i === 0 ? 0 : Number(bounds[i - 1]);
      if (sequence < least || sequence > sequences || (i === 0 && sequence !== 0)) {
        return refuse(
          `document bound ${i} is sequence ${bound}, expected ${i === 0 ? "0" : `${least} to ${sequences}`}`,
        );
      }
      documents[i] = ends[sequence]!;
    });
    if (Number(bounds.at(-1)) !== sequences)
      return refuse(`the last document ends at sequence ${bounds.at(-1)}, there are ${sequences}`);
    return { stored, documents };
  } finally {
    await file.close();
  }
}
