/** Reading parts of files, without ever loading a whole one. */
import { inputError } from "../../base/errors.js";
import { isNestedTooDeeply, nestedTooDeeply } from "../formats/duplicate-key.js";
import { foreignText } from "../formats/foreign-file.js";
import { parsePythonJson } from "../formats/python-json.js";
import { withFsErrors } from "./fs-errors.js";
import { sizeLimits, openRegular, readWhole, utf8Text } from "./open.js";

/** An open file, of which any range of bytes can be read. */
export interface RangeFile {
  readonly path: string;
  /** Bytes in the file when it was opened. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes from `offset` on: to the beginning of `into` if they fit there, else into a fresh
   * buffer. Throws inputError if the file ends before.
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Bytes of one system call, which may be 2 GiB at most; with fewer, reading from a slow disk can be interrupted. */
const largestRead = 1 << 28;

/** Opens a file for reading. Throws inputError if it is missing, forbidden or no regular file. */
export async function openRanges(path: string): Promise<RangeFile> {
  const { handle, size } = await openRegular(path);
  return {
    path,
    size,
    read: (offset, length, into) =>
      withFsErrors(path, "read file", async () => {
        if (offset < 0 || length < 0 || offset + length > size) {
          throw inputError(`asked for bytes ${offset} to ${offset + length}, the file has ${size}`, { where: path });
        }
        const bytes = (
          into !== undefined && into.byteLength >= length ? into.subarray(0, length) : new Uint8Array(length)
        ) as Uint8Array<ArrayBuffer>;
        for (let done = 0; done < length;) {
          const { bytesRead } = await handle.read(bytes, done, Math.min(largestRead, length - done), offset + done);
          if (bytesRead === 0)
            throw inputError(`file ends at byte ${offset + done}, it had ${size} when opened`, {
              where: path,
              hint: "something else is changing it",
            });
          done += bytesRead;
        }
        return bytes;
      }),
    close: () => handle.close(),
  };
}

/**
 * A whole small text file as UTF-8. Throws inputError if it is missing, no regular file, larger than `maxBytes`, or not
 * UTF-8.
 */
export async function readText(path: string, maxBytes: number = sizeLimits.record): Promise<string> {
  return utf8Text(await readWhole(path, maxBytes, "open file"), path);
}

/** A JSON file, as Python writes JSON. Throws inputError like `readText`, and if it is empty or not JSON. */
export async function readJson(path: string, maxBytes: number = sizeLimits.record): Promise<unknown> {
  const text = await readText(path, maxBytes);
  if (text.trim() === "") throw inputError("the file is empty, expected JSON", { where: path });
  if (isNestedTooDeeply(text)) throw inputError(nestedTooDeeply, { where: path });
  try {
    return parsePythonJson(text);
  } catch (cause) {
    const foreign = foreignText(text);
    if (foreign !== null) throw inputError(`this is ${foreign.what}`, { where: path, hint: foreign.hint });
    throw inputError(`not valid JSON (${(cause as Error).message})`, { where: path, cause });
  }
}
