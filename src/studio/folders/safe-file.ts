/**
 * Files below the folder that the studio shows. Links are not followed, so that nothing outside of it is read whatever
 * a run's folder holds; pipes and devices are not opened.
 */
import { constants } from "node:fs";
import { lstat, open, type FileHandle } from "node:fs/promises";

const { O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as { readonly O_NOFOLLOW?: number; readonly O_NONBLOCK?: number };

/** What tells a regular file from what it was before. */
export interface PlainState {
  readonly size: number;
  readonly inode: number;
  /** When it was last written, in milliseconds since 1970. */
  readonly changed: number;
}

/** A regular file that is open for reading. */
export interface OpenFile extends PlainState {
  readonly handle: FileHandle;
}

/** The state of a regular file, without opening it; null for what is missing, a link, or no file. */
export async function plainState(path: string): Promise<PlainState | null> {
  const info = await lstat(path).catch(() => null);
  return info?.isFile() === true ? { size: info.size, inode: info.ino, changed: info.mtimeMs } : null;
}

/** Opens a regular file; null for what is missing, forbidden, a link, or no file. */
export async function openPlain(path: string): Promise<OpenFile | null> {
  const handle = await open(path, constants.O_RDONLY | O_NOFOLLOW | O_NONBLOCK).catch(() => null);
  if (handle === null) return null;
  const info = await handle.stat().catch(() => null);
  if (info === null || !info.isFile()) {
    await handle.close();
    return null;
  }
  return { handle, size: info.size, inode: info.ino, changed: info.mtimeMs };
}

/** A whole file of at most `most` bytes; null for what `openPlain` does not open, and for a larger one. */
export async function readPlain(path: string, most: number): Promise<Buffer | null> {
  const file = await openPlain(path);
  if (file === null) return null;
  try {
    return file.size > most ? null : await bytesOf(file, 0, file.size);
  } finally {
    await file.handle.close();
  }
}

/** The last bytes of a file; null for what `openPlain` does not open. */
export async function endOf(
  path: string,
  most: number,
): Promise<{ readonly bytes: Buffer; readonly changed: number } | null> {
  const file = await openPlain(path);
  if (file === null) return null;
  try {
    const from = Math.max(0, file.size - most);
    return { bytes: await bytesOf(file, from, file.size - from), changed: file.changed };
  } finally {
    await file.handle.close();
  }
}

/** The first bytes of a file; null for what `openPlain` does not open. */
export async function beginningOf(
  path: string,
  most: number,
): Promise<{ readonly bytes: Buffer; readonly size: number; readonly changed: number } | null> {
  const file = await openPlain(path);
  if (file === null) return null;
  try {
    return { bytes: await bytesOf(file, 0, Math.min(most, file.size)), size: file.size, changed: file.changed };
  } finally {
    await file.handle.close();
  }
}

async function bytesOf({ handle }: OpenFile, from: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, from + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}

/** JSON of a file; null where it cannot be read, or is no JSON (it may be about to be replaced). */
export async function readPlainJson(path: string, most = 64e6): Promise<unknown> {
  const bytes = await readPlain(path, most);
  if (bytes === null) return null;
  try {
    return JSON.parse(bytes.toString("utf8")) as unknown;
  } catch {
    return null;
  }
}
