/** A data set of Megatron-LM that is one document. */
import { stageFile } from "../../files/io/atomic.js";
import { idWidths, widthFor, writeIndexFile } from "./index-file.js";

/** Writes `PREFIX.bin` and `PREFIX.idx`. */
export async function writeOneDocument(prefix: string, tokens: Int32Array, vocab: number): Promise<void> {
  const width = widthFor(vocab);
  const ids = idWidths[width].bytes === 2 ? Uint16Array.from(tokens) : tokens;
  const bin = await stageFile(`${prefix}.bin`);
  await bin.append(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  await bin.commit();
  const lengths = new Uint8Array(Int32Array.of(tokens.length).buffer);
  const index = await stageFile(`${prefix}.idx`);
  await writeIndexFile(
    index,
    {
      path: prefix,
      size: lengths.length,
      read: (offset, count) => Promise.resolve(lengths.slice(offset, offset + count)),
      close: () => Promise.resolve(),
    },
    width,
  );
  await index.commit();
}
