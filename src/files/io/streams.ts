/**
 * Inputs that need not be files: "-" is standard input, and a pipe under a name (of mkfifo, or the shell's <(COMMAND))
 * is read to its end. All other inputs are regular files, which `open.ts` opens.
 */
import { fstatSync, open } from "node:fs";
import { stat } from "node:fs/promises";
import { Socket } from "node:net";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { inputError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import { withFsErrors } from "./fs-errors.js";
import { kindOf, sizeLimits, readWhole, utf8Text } from "./open.js";

interface InputOptions {
  /** Default: the limit of a text. */
  readonly maxBytes?: number;
  /** Looks at each chunk of a stream as it comes; what it throws ends the reading, long before the limit. */
  readonly look?: (chunk: Uint8Array) => void;
}

/** Whether a name means standard input. /dev/stdin counts too, because it cannot be opened where it is a socket. */
export const isStandardInput = (path: string): boolean => path === "-" || path === "/dev/stdin";

/** What an input is called in words. */
export const inputName = (path: string): string => (isStandardInput(path) ? "standard input" : path);

/**
 * Reads a regular file, a pipe or standard input to its end. Throws inputError for anything else, and like `readWhole`.
 */
export async function readInput(
  path: string,
  { maxBytes = sizeLimits.text, look }: InputOptions = {},
): Promise<Uint8Array> {
  if (isStandardInput(path)) {
    // Node's stream of a folder is an empty one.
    if (fstatSync(0).isDirectory()) {
      throw inputError("this is a folder, expected a file or a pipe", { where: inputName(path) });
    }
    return readStream(process.stdin, path, maxBytes, look);
  }
  const info = await withFsErrors(path, "open file", () => stat(path));
  if (!info.isFIFO()) {
    if (!info.isFile()) throw inputError(`this is ${kindOf(info)}, expected a file or a pipe`, { where: path });
    return readWhole(path, maxBytes, "open file");
  }
  // This waits for a writer. A socket, unlike a file's stream, can be left while it waits for more.
  const fd = await withFsErrors(path, "open pipe", () => promisify(open)(path, "r"));
  return readStream(new Socket({ fd, readable: true, writable: false }), path, maxBytes, look);
}

/** Reads like `readInput`, as text. Throws inputError also if it is not UTF-8. */
export async function readInputText(path: string, maxBytes: number = sizeLimits.text): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const where = inputName(path);
  const look = (chunk: Uint8Array): void => {
    try {
      decoder.decode(chunk, { stream: true });
    } catch {
      utf8Text(chunk, where);
    }
  };
  return utf8Text(await readInput(path, { maxBytes, look }), where);
}

async function readStream(
  stream: Readable,
  path: string,
  maxBytes: number,
  look: InputOptions["look"],
): Promise<Uint8Array> {
  const where = inputName(path);
  const chunks: Uint8Array[] = [];
  let size = 0;
  await withFsErrors(where, "read", async () => {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      look?.(chunk);
      size += chunk.byteLength;
      if (size > maxBytes) {
        const message = `the stream goes on after ${bytes(maxBytes)}, the limit for this`;
        throw inputError(message, { where, hint: "is this the right one?" });
      }
      chunks.push(chunk);
    }
  });
  return Buffer.concat(chunks, size);
}
