/** A data set of Megatron-LM that is one document. */
import { stageFile, type StagedFile } from "../../files/io/atomic.js";
import { idWidths, widthFor, writeIndexFile } from "./index-file.js";

/** Writes `PREFIX.bin` and `PREFIX.idx`, each whole or not at all. */
export async function writeOneDocument(prefix: string, tokens: Int32Array, vocab: number): Promise<void> {
  const width = widthFor(vocab);
  const ids = idWidths[width].bytes === 2 ? Uint16Array.from(tokens) : tokens;
  await writeStaged(`${prefix}.bin`, (bin) => bin.append(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength)));
  const lengths = new Uint8Array(Int32Array.of(tokens.length).buffer);
  const read = {
    path: prefix,
    size: lengths.length,
    read: (offset: number, count: number) => Promise.resolve(lengths.slice(offset, offset + count)),
    close: () => Promise.resolve(),
  };
  await writeStaged(`${prefix}.idx`, (index) => writeIndexFile(index, read, width));
}

async function writeStaged(path: string, write: (file: StagedFile) => Promise<void>): Promise<void> {
  const file = await stageFile(path);
  try {
    await write(file);
    await file.commit();
  } finally {
    await file.discard();
  }
}
