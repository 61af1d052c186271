/**
 * Files below the folder that the studio shows. Links are not followed, so that nothing outside of it is read whatever
 * a run's folder holds; pipes and devices are not opened.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, readdirSync, readSync } from "node:fs";
import type { Dirent, Stats } from "node:fs";
import { lstat, open, readdir, statfs } from "node:fs/promises";

const { O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants as { readonly O_NOFOLLOW?: number; readonly O_NONBLOCK?: number };
const readFlags = constants.O_RDONLY | O_NOFOLLOW | O_NONBLOCK;

/** What is there, or will be. */
type Soon<T> = T | Promise<T>;

/** What tells a regular file from what it was before. */
export interface PlainState {
  readonly size: number;
  readonly inode: number;
  /** When it was last written, in milliseconds since 1970. */
  readonly changed: number;
}

/** A regular file that is open for reading. */
export interface PlainFile extends PlainState {
  /** Reads bytes of the file from `position` on into `buffer` from `offset` on. Returns how many; 0 at the end. */
  read(buffer: Buffer, offset: number, length: number, position: number): Soon<number>;
  close(): Soon<void>;
}

/** How the files of a folder are read. */
export interface FolderFiles {
  /** Runs that are best read at once: on a network file system each is waited for. */
  readonly atOnce: number;
  /** What a folder holds; nothing for one that cannot be read. */
  entries(path: string): Soon<Dirent[]>;
  /** The state of a regular file, without opening it; null for what is missing, a link, or no file. */
  state(path: string): Soon<PlainState | null>;
  /** Opens a regular file; null for what is missing, forbidden, a link, or no file. */
  open(path: string): Soon<PlainFile | null>;
}

const stateOf = (info: Stats): PlainState | null =>
  info.isFile() ? { size: info.size, inode: info.ino, changed: info.mtimeMs } : null;

/** Files that may be far away: whoever waits for them holds nothing else up. */
export const distantFiles: FolderFiles = {
  atOnce: 8,
  entries: (path) => readdir(path, { withFileTypes: true }).catch(() => []),
  state: async (path) => {
    const info = await lstat(path).catch(() => null);
    return info === null ? null : stateOf(info);
  },
  open: async (path) => {
    const handle = await open(path, readFlags).catch(() => null);
    if (handle === null) return null;
    const info = await handle.stat().catch(() => null);
    const state = info === null ? null : stateOf(info);
    if (state === null) {
      await handle.close();
      return null;
    }
    const read: PlainFile["read"] = async (...where) => (await handle.read(...where)).bytesRead;
    return { ...state, read, close: () => handle.close() };
  },
};

/** What a call returns; null where it fails. */
function orNull<T>(call: () => T): T | null {
  try {
    return call();
  } catch {
    return null;
  }
}

/**
 * Files on a disk of this machine: a call of a few microseconds costs ten times as much where another thread is waited
 * for, and a training on all cores pays for it.
 */
export const localFiles: FolderFiles = {
  // Nothing is waited for, and what is read of many logs at once outlives two collections: memory grows by it.
  atOnce: 1,
  entries: (path) => orNull(() => readdirSync(path, { withFileTypes: true })) ?? [],
  state: (path) => {
    const info = orNull(() => lstatSync(path, { throwIfNoEntry: false }));
    return info === null || info === undefined ? null : stateOf(info);
  },
  open: (path) => {
    const file = orNull(() => openSync(path, readFlags));
    if (file === null) return null;
    const info = orNull(() => fstatSync(file));
    const state = info === null ? null : stateOf(info);
    if (state === null) {
      closeSync(file);
      return null;
    }
    return { ...state, read: (...where) => readSync(file, ...where), close: () => closeSync(file) };
  },
};

/** File systems of disks and of memory, as Linux numbers them: ext, XFS, Btrfs, F2FS, ZFS, tmpfs, overlay. */
const localTypes = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x2fc12fc1, 0x01021994, 0x794c7630]);

/** How the files of a folder are best read. A file system that is not known may be a network's. */
export async function filesOf(root: string): Promise<FolderFiles> {
  if (process.platform !== "linux") return distantFiles;
  const info = await statfs(root).catch(() => null);
  return info !== null && localTypes.has(info.type) ? localFiles : distantFiles;
}

/** A regular file that is open; null for what is missing, forbidden, a link, or no file. */
export const openPlain = async (path: string): Promise<PlainFile | null> => distantFiles.open(path);

/** A whole file of at most `most` bytes; null for what cannot be opened, and for a larger one. */
export async function readPlain(path: string, most: number, files = distantFiles): Promise<Buffer | null> {
  const file = await files.open(path);
  if (file === null) return null;
  try {
    return file.size > most ? null : await bytesOf(file, 0, file.size);
  } finally {
    await file.close();
  }
}

/** The last bytes of a file; null for what cannot be opened. */
export async function endOf(
  path: string,
  most: number,
  files = distantFiles,
): Promise<{ readonly bytes: Buffer; readonly changed: number } | null> {
  const file = await files.open(path);
  if (file === null) return null;
  try {
    const from = Math.max(0, file.size - most);
    return { bytes: await bytesOf(file, from, file.size - from), changed: file.changed };
  } finally {
    await file.close();
  }
}

/** The first bytes of a file; null for what cannot be opened. */
export const beginningOf = (path: string, most: number): ReturnType<typeof bytesAt> => bytesAt(path, 0, most);

/** At most so many bytes of a file from a place on; null for what cannot be opened. */
export async function bytesAt(
  path: string,
  from: number,
  most: number,
): Promise<{ readonly bytes: Buffer; readonly size: number; readonly changed: number } | null> {
  const file = await openPlain(path);
  if (file === null) return null;
  try {
    const length = Math.max(0, Math.min(most, file.size - from));
    return { bytes: await bytesOf(file, from, length), size: file.size, changed: file.changed };
  } finally {
    await file.close();
  }
}

async function bytesOf(file: PlainFile, from: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const bytesRead = await file.read(buffer, done, length - done, from + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}

/** JSON of a file; null where it cannot be read, or is no JSON (it may be about to be replaced). */
export async function readPlainJson(path: string, most = 64e6, files = distantFiles): Promise<unknown> {
  const bytes = await readPlain(path, most, files);
  if (bytes === null) return null;
  try {
    return JSON.parse(bytes.toString("utf8")) as unknown;
  } catch {
    return null;
  }
}
