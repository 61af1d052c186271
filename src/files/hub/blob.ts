/**
 * One file of the Hub into the cache: resumed where an earlier download broke off, checked, and named only when it is
 * complete.
 */
import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, open, rename, rm, symlink, type FileHandle } from "node:fs/promises";
import { dirname, relative } from "node:path";
import { stopError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import { writeAll } from "../io/atomic.js";
import { makeFolders } from "../io/folders.js";
import { withFsErrors } from "../io/fs-errors.js";
import { requireOwnFile } from "./cache.js";
import type { Connection } from "./connection.js";
import { HubTrouble } from "./limits.js";
import type { RemoteFile } from "./listing.js";

/** What downloading one file of a repository takes. */
export interface BlobOptions {
  readonly file: RemoteFile;
  readonly commit: string;
  /** The cached file, named by its checksum. */
  readonly blob: string;
  readonly connection: Connection;
  /** Called with how many bytes of the file are here. */
  readonly onBytes: (done: number) => void;
}

/** A file in the making: how much of it is there, and the hash of that much. */
interface Part {
  readonly path: string;
  readonly handle: FileHandle;
  hash: Hash;
  done: number;
}

/**
 * Downloads a file into the cache. Throws like `Connection.retried`; stopError if what came is twice not what the Hub
 * announced, and then nothing of it is kept.
 */
export async function fetchBlob(options: BlobOptions): Promise<void> {
  const { file, blob, connection, onBytes } = options;
  await withFsErrors(blob, "write file", () => makeFolders(dirname(blob)));
  // Python's huggingface_hub uses the same name, and can resume our part as we can resume its.
  const part = await openPart(`${blob}.incomplete`, file, connection);
  try {
    let mark = part.done;
    const gained = (): boolean => {
      const enough = part.done - mark >= connection.limits.gainBytes;
      mark = enough ? part.done : Math.min(mark, part.done);
      return enough;
    };
    onBytes(part.done);
    await connection.retried(() => complete(part, options), { gained });
    await withFsErrors(part.path, "write file", () => part.handle.sync());
  } catch (cause) {
    // There is nothing to resume from: the file was never begun, or came damaged.
    if (part.done === 0) await rm(part.path, { force: true }).catch(() => undefined);
    throw cause;
  } finally {
    await part.handle.close();
  }
  await withFsErrors(blob, "name file", () => rename(part.path, blob));
}

/** Brings what is missing of a part, and checks the whole. */
async function complete(part: Part, { file, commit, blob, connection, onBytes }: BlobOptions): Promise<void> {
  const onWhole = (host: string): void =>
    connection.note(`${host} sends whole files only: ${bytes(part.done)} of ${file.path} that are here come once more`);
  if (part.done < file.size) {
    const range = { path: file.path, commit, size: file.size, start: part.done, end: file.size };
    for await (const chunk of connection.bytes(range, onWhole)) {
      await withFsErrors(part.path, "write file", () => writeAll(part.handle, chunk, part.done));
      part.hash.update(chunk);
      part.done += chunk.byteLength;
      onBytes(part.done);
    }
  }
  const checksum = part.hash.copy().digest("hex");
  const { size } = await withFsErrors(part.path, "read file", () => part.handle.stat());
  if (checksum === file.checksum && size === file.size) return;
  await empty(part, file);
  const sums = `checksum ${checksum.slice(0, 12)}..., the Hub says ${file.checksum.slice(0, 12)}...`;
  const failure = stopError(`${file.path} arrived damaged (${sums}), it was removed`, {
    where: blob,
    hint: "run the same command to download it again",
  });
  throw new HubTrouble("wrong", failure);
}

async function empty(part: Part, file: RemoteFile): Promise<void> {
  await withFsErrors(part.path, "write file", () => part.handle.truncate(0));
  [part.hash, part.done] = [hashOf(file), 0];
}

/** The hash that the file's checksum is made with, of nothing yet. */
function hashOf({ large, size }: RemoteFile): Hash {
  return large ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/**
 * Opens what an earlier attempt left, or an empty file. Nothing is written through links, which may lead out of the
 * cache.
 */
async function openPart(path: string, file: RemoteFile, connection: Connection): Promise<Part> {
  await requireOwnFile(path);
  const flags = constants.O_RDWR | constants.O_CREAT | ((constants.O_NOFOLLOW as number | undefined) ?? 0);
  const handle = await withFsErrors(path, "write file", () => open(path, flags));
  const part: Part = { path, handle, hash: hashOf(file), done: 0 };
  try {
    const { size } = await withFsErrors(path, "read file", () => handle.stat());
    // With too many bytes it is no part of this file.
    if (size > file.size) await empty(part, file);
    else await hashExisting(part, size, connection);
    return part;
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

/** Hashes the `size` bytes that are there already. */
async function hashExisting(part: Part, size: number, connection: Connection): Promise<void> {
  const buffer = new Uint8Array(Math.min(size, 1 << 20));
  while (part.done < size) {
    connection.requireOpen();
    const { bytesRead } = await withFsErrors(part.path, "read file", () =>
      part.handle.read(buffer, 0, buffer.length, part.done),
    );
    if (bytesRead === 0) return;
    part.hash.update(buffer.subarray(0, bytesRead));
    part.done += bytesRead;
  }
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
