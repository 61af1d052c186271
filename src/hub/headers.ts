/**
 * A model of the Hub as a folder that can be inspected and planned with, its weights not downloaded: config.json, the index, and of every safetensors
 * file the header, in a sparse file of the full length. Never a folder to read weights from: they would be zeros. A mark in each file says so, by which
 * `checkpoint/locate.ts` refuses to read them, wherever the folder has been moved or copied to.
 *
 * Such folders lie beside the snapshots (`models--ORG--NAME/headers/COMMIT`), where huggingface_hub does not look.
 */
import { rename } from "node:fs/promises";
import { dirname } from "node:path";
import { downloadFile } from "@huggingface/hub";
import { stopError } from "../base/errors.js";
import { headerAlone, headerLength, lengthBytes, parseHeader } from "../format/safetensors.js";
import { writeAll } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openForWriting } from "../io/open.js";
import { maxAttempts, type BlobOptions } from "./blob.js";

type HeaderOptions = Pick<BlobOptions, "file" | "from" | "connection" | "retryMs">;

/**
 * Puts the header of a remote safetensors file into `path`, asking again after a broken line. Throws what `Connection.failure` says, and inputError
 * for what is no such file.
 */
export async function fetchHeader(options: HeaderOptions, path: string): Promise<void> {
  const { file } = options;
  const header = await retried(options);
  await withFsErrors(path, "write file", async () => {
    await makeFolders(dirname(path));
    const handle = await openForWriting(`${path}.incomplete`);
    try {
      await writeAll(handle, header, 0);
      await writeAll(handle, headerAlone(file.size - header.length), header.length);
      await handle.truncate(file.size);
    } finally {
      await handle.close();
    }
    await rename(`${path}.incomplete`, path);
  });
}

async function retried(options: HeaderOptions): Promise<Uint8Array> {
  const { connection, retryMs } = options;
  for (let attempt = 1; ; attempt++) {
    try {
      return await remoteHeader(options);
    } catch (cause) {
      if (!connection.mayPass(cause) || attempt >= maxAttempts) throw connection.failure(cause);
      await connection.pause(retryMs * 2 ** (attempt - 1));
    }
  }
}

async function remoteHeader({ file, from, connection }: HeaderOptions): Promise<Uint8Array> {
  const blob = await downloadFile({ ...from, path: file.path, fetch: connection.fetch });
  if (blob?.size !== file.size) throw stopError(`${file.path} has ${blob?.size ?? "no"} bytes, the Hub announced ${file.size}`, { where: `hf://${from.repo}`, hint: "run the same command later" });
  const first = await beginning(blob.slice(0, lengthBytes), Math.min(lengthBytes, file.size));
  const where = `hf://${from.repo}/${file.path}`;
  const rest = headerLength(first, file.size, where);
  const header = new Uint8Array(lengthBytes + rest);
  header.set(first);
  header.set(await beginning(blob.slice(lengthBytes, lengthBytes + rest), rest), lengthBytes);
  parseHeader(header.subarray(lengthBytes), file.size, where);
  return header;
}

/** The first `length` bytes, and no more of what a server sends that answers with the whole file. */
async function beginning(blob: Blob, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const reader = blob.stream().getReader();
  try {
    for (let done = 0; done < length;) {
      const { done: ended, value } = (await reader.read()) as { done: boolean; value?: Uint8Array };
      if (ended) throw new Error(`the server sent ${done} of ${length} bytes`);
      bytes.set(value!.subarray(0, length - done), done);
      done += value!.byteLength;
    }
    return bytes;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
