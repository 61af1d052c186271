/**
 * A model of the Hub as a folder that can be inspected and planned with, its weights not downloaded: config.json, the
 * index, and the header of every safetensors file, in a sparse file of the full length. No weights can be read from
 * such a folder: they would be zeros. A mark in each file says so, by which `files/checkpoint/locate.ts` refuses to
 * read them, wherever the folder has been moved or copied to.
 *
 * Such folders lie beside the snapshots (`models--ORG--NAME/headers/COMMIT`), where huggingface_hub does not look.
 */
import { rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { headerAlone, headerLength, lengthBytes, parseHeader } from "../formats/safetensors.js";
import { writeAll } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openForWriting } from "../io/open.js";
import type { BlobOptions } from "./blob.js";
import { requireOwnFile } from "./cache.js";

type HeaderOptions = Pick<BlobOptions, "file" | "commit" | "connection"> & { readonly repo: string };

/**
 * Puts the header of a remote safetensors file into `path`. Throws like `Connection.retried`, and inputError for what
 * is no such file.
 */
export async function fetchHeader(options: HeaderOptions, path: string): Promise<void> {
  const { file, connection } = options;
  const header = await connection.retried(() => remoteHeader(options));
  const partial = `${path}.incomplete`;
  await requireOwnFile(partial);
  await withFsErrors(path, "write file", async () => {
    await makeFolders(dirname(path));
    const handle = await openForWriting(partial);
    try {
      await writeAll(handle, header, 0);
      await writeAll(handle, headerAlone(file.size - header.length), header.length);
      await handle.truncate(file.size);
    } catch (cause) {
      await rm(partial, { force: true });
      throw cause;
    } finally {
      await handle.close();
    }
    await rename(partial, path);
  });
}

async function remoteHeader(options: HeaderOptions): Promise<Uint8Array> {
  const { file } = options;
  const first = await readPart(options, 0, Math.min(lengthBytes, file.size));
  const where = `hf://${options.repo}/${file.path}`;
  const end = lengthBytes + headerLength(first, file.size, where);
  const header = new Uint8Array(end);
  header.set(first);
  header.set(await readPart(options, lengthBytes, end), lengthBytes);
  parseHeader(header.subarray(lengthBytes), file.size, where);
  return header;
}

async function readPart(
  { file: { path, size }, commit, connection }: HeaderOptions,
  start: number,
  end: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  if (bytes.length === 0) return bytes;
  let done = 0;
  for await (const chunk of connection.bytes({ path, commit, size, start, end })) {
    bytes.set(chunk, done);
    done += chunk.byteLength;
  }
  return bytes;
}
