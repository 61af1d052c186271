/** One file of the Hub into the cache: resumed where an earlier download broke off, checked, and named only when it is complete. */
import { createHash, type Hash } from "node:crypto";
import { copyFile, open, rename, rm, stat, symlink } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { downloadFile } from "@huggingface/hub";
import { stopError } from "../base/errors.js";
import { exists, writeAll } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { openRegular } from "../io/open.js";
import type { Connection } from "./connection.js";

export interface RemoteFile {
  readonly path: string;
  readonly size: number;
  /** SHA-256 of the content for large files, the id of a git blob for the others; also the name of the cached file. */
  readonly checksum: string;
  readonly large: boolean;
}

export interface BlobOptions {
  readonly file: RemoteFile;
  /** Where the library finds it. */
  readonly from: { readonly repo: string; readonly revision: string; readonly hubUrl: string; readonly accessToken?: string };
  /** The cached file, named by its checksum. */
  readonly blob: string;
  readonly connection: Connection;
  readonly onBytes: (done: number) => void;
  /** Pause before the first new attempt after a broken line; it doubles each time. */
  readonly retryMs: number;
}

/** Attempts in a row that bring nothing new. */
export const maxAttempts = 5;

/** Throws what `Connection.failure` says, or stopError if what came is not what the Hub announced. */
export async function fetchBlob(options: BlobOptions): Promise<void> {
  const { file, blob, connection, onBytes, retryMs } = options;
  // Python's huggingface_hub uses the same name, and can go on with our part as we with its.
  const partial = `${blob}.incomplete`;
  await withFsErrors(partial, "write file", () => makeFolders(dirname(blob)));
  let hash = hashOf(file);
  let done = await hashPart(partial, file.size, hash);
  if (done === null) {
    await rm(partial, { force: true });
    [hash, done] = [hashOf(file), 0];
  }
  onBytes(done);
  const handle = await withFsErrors(partial, "write file", () => open(partial, done === 0 ? "w" : "r+"));
  try {
    for (let attempt = 1; done < file.size; attempt++) {
      const before: number = done;
      try {
        for await (const chunk of remoteBytes(options, done)) {
          if (done + chunk.byteLength > file.size) break;
          const at = done;
          await withFsErrors(partial, "write file", () => writeAll(handle, chunk, at));
          hash.update(chunk);
          done += chunk.byteLength;
          onBytes(done);
        }
        if (done === before) throw new Error("the server sent nothing");
      } catch (cause) {
        if (done > before) attempt = 1;
        if (!connection.mayPass(cause) || attempt >= maxAttempts) throw connection.failure(cause);
        await connection.pause(retryMs * 2 ** (attempt - 1));
      }
    }
    await withFsErrors(partial, "write file", () => handle.sync());
  } finally {
    await handle.close();
  }
  const found = hash.digest("hex");
  if (found !== file.checksum) {
    await rm(partial, { force: true });
    throw stopError(`${file.path} arrived damaged (checksum ${found.slice(0, 12)}..., the Hub says ${file.checksum.slice(0, 12)}...), it was removed`, {
      where: blob, hint: "run the same command to download it again",
    });
  }
  await withFsErrors(blob, "name file", () => rename(partial, blob));
}

async function* remoteBytes({ file, from, connection }: BlobOptions, start: number): AsyncGenerator<Uint8Array> {
  const blob = await downloadFile({ ...from, path: file.path, fetch: connection.fetch });
  if (blob === null) throw stopError(`${file.path} is listed but not there`, { where: `hf://${from.repo}`, hint: "run the same command later" });
  if (blob.size !== file.size) throw stopError(`${file.path} has ${blob.size} bytes, the Hub announced ${file.size}`, { where: `hf://${from.repo}`, hint: "run the same command later" });
  const reader = (start === 0 ? blob : blob.slice(start)).stream().getReader();
  try {
    for (;;) {
      const { done, value } = (await reader.read()) as { done: boolean; value?: Uint8Array };
      if (done) return;
      yield value!;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function hashOf({ large, size }: RemoteFile): Hash {
  return large ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Bytes that are there already, put into the hash; null if they are too many to be a part. */
async function hashPart(partial: string, size: number, hash: Hash): Promise<number | null> {
  if (!(await exists(partial))) return 0;
  const { size: found } = await withFsErrors(partial, "read file", () => stat(partial));
  if (found > size) return null;
  const { handle } = await openRegular(partial, "read file");
  await withFsErrors(partial, "read file", async () => {
    for await (const chunk of handle.createReadStream()) hash.update(chunk as Buffer);
  });
  return found;
}

/** Gives a cached file its name in a snapshot; a copy where links are not allowed. */
export async function linkBlob(blob: string, pointer: string): Promise<void> {
  await withFsErrors(pointer, "link file", async () => {
    await makeFolders(dirname(pointer));
    await rm(pointer, { force: true });
    try {
      await symlink(relative(dirname(pointer), blob), pointer);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EPERM") throw cause;
      await copyFile(blob, pointer);
    }
  });
}
