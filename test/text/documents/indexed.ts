/**
 * Files as Megatron-LM's preprocess_data.py writes them: indexed_dataset.py, _IndexWriter and IndexedDatasetBuilder.
 */
import { writeFileSync } from "node:fs";

export type Width = "uint8" | "int32" | "int64" | "uint16";
const codes: Readonly<Record<Width, number>> = { uint8: 1, int32: 4, int64: 5, uint16: 8 };
const arrays = { uint8: Uint8Array, int32: Int32Array, uint16: Uint16Array } as const;

const bytesOf = (view: ArrayBufferView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength);

/** Documents of sequences of ids. */
export function writeIndexed(
  prefix: string,
  documents: readonly (readonly (readonly number[])[])[],
  width: Width = "uint16",
): void {
  const sequences = documents.flat();
  const ids = sequences.flat();
  const data = width === "int64" ? BigInt64Array.from(ids, BigInt) : arrays[width].from(ids);
  const head = Buffer.alloc(34);
  head.write("MMIDIDX\0\0", "latin1");
  head.writeBigUInt64LE(1n, 9);
  head.writeUInt8(codes[width], 17);
  head.writeBigUInt64LE(BigInt(sequences.length), 18);
  head.writeBigUInt64LE(BigInt(documents.length + 1), 26);
  let at = 0;
  const pointers = sequences.map(({ length }) => BigInt((at += length) - length) * BigInt(data.BYTES_PER_ELEMENT));
  let sequence = 0;
  const bounds = [0n, ...documents.map(({ length }) => BigInt((sequence += length)))];
  const parts = [
    Int32Array.from(sequences, ({ length }) => length),
    BigInt64Array.from(pointers),
    BigInt64Array.from(bounds),
  ];
  writeFileSync(`${prefix}.idx`, Buffer.concat([head, ...parts.map(bytesOf)]));
  writeFileSync(`${prefix}.bin`, bytesOf(data));
}
