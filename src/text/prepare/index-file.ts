/**
 * Writes `.idx` files as Megatron-LM does: magic, version, dtype code, counts, lengths of sequences, where they begin,
 * and which sequence each document begins with. Memory does not grow with the number of documents. Source:
 * NVIDIA/Megatron-LM@d98e8a64, `core/datasets/indexed_dataset.py`, class _IndexWriter.
 */
import { headerBytes, magic } from "../documents/indexed.js";
import type { StagedFile } from "../../files/io/atomic.js";
import type { RangeFile } from "../../files/io/ranges.js";

/** How ids are stored. */
export type IdWidth = "uint16" | "int32";

/** Code and bytes of each. */
export const idWidths: Readonly<Record<IdWidth, { readonly code: number; readonly bytes: number }>> = {
  uint16: { code: 8, bytes: 2 },
  int32: { code: 4, bytes: 4 },
};

/** Megatron's choice for a vocabulary (`DType.optimal_dtype`). */
export const widthFor = (vocab: number): IdWidth => (vocab < 65500 ? "uint16" : "int32");

/** Lengths handled in one go. */
const piece = 1 << 20;

/**
 * Appends the whole index. `lengths` holds an int32 for each document: its tokens, and 0 for one without, which is a
 * document of no sequence.
 */
export async function writeIndexFile(file: StagedFile, lengths: RangeFile, width: IdWidth): Promise<void> {
  const documents = lengths.size / 4;
  let sequences = 0;
  for await (const part of partsOf(lengths)) sequences += part.filter((length) => length > 0).length;
  await file.append(headerOf(width, sequences, documents));
  for await (const part of partsOf(lengths))
    await append(
      file,
      part.filter((length) => length > 0),
    );
  let at = 0n;
  for await (const part of partsOf(lengths)) {
    const full = part.filter((length) => length > 0);
    const pointers = new BigInt64Array(full.length);
    full.forEach((length, i) => {
      pointers[i] = at;
      at += BigInt(length * idWidths[width].bytes);
    });
    await append(file, pointers);
  }
  await append(file, BigInt64Array.of(0n));
  let sequence = 0n;
  for await (const part of partsOf(lengths)) {
    const bounds = new BigInt64Array(part.length);
    part.forEach((length, i) => (bounds[i] = length > 0 ? ++sequence : sequence));
    await append(file, bounds);
  }
}

function headerOf(width: IdWidth, sequences: number, documents: number): Uint8Array {
  const header = new Uint8Array(headerBytes);
  const view = new DataView(header.buffer);
  header.set(new TextEncoder().encode(magic));
  view.setBigUint64(9, 1n, true);
  view.setUint8(17, idWidths[width].code);
  view.setBigUint64(18, BigInt(sequences), true);
  view.setBigUint64(26, BigInt(documents + 1), true);
  return header;
}

async function* partsOf(lengths: RangeFile): AsyncGenerator<Int32Array> {
  for (let at = 0; at < lengths.size; at += 4 * piece) {
    const bytes = await lengths.read(at, Math.min(4 * piece, lengths.size - at));
    yield new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }
}

const append = (file: StagedFile, { buffer, byteOffset, byteLength }: Int32Array | BigInt64Array): Promise<void> =>
  file.append(new Uint8Array(buffer, byteOffset, byteLength));
