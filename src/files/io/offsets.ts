/**
 * Writing files at known offsets, past the page cache where the system can (O_DIRECT): weights are written once and
 * read much later, if at all, and should not push out what other programs have cached. Direct writes take whole pages
 * from aligned memory; what does not fill a page at the ends of a run goes through the cache.
 */
import { constants, open, type FileHandle } from "node:fs/promises";
import { pageMemory } from "../numeric/kernels.js";
import { writeAll } from "./atomic.js";

/** Alignment of direct writes, in the file and in memory: the largest block size in use. */
const page = 4096;
/** Bytes; shorter runs are not worth a trip to the disk of their own. */
const shortestDirect = 64 << 10;

/** Memory for a run of at most `bytes` bytes that can be written directly to any offset. */
export interface RunMemory {
  /** Memory for `bytes` bytes, aligned as a direct write at `offset` in the file needs it. */
  at(offset: number, bytes: number): Uint8Array;
  /** The same bytes, moved within the memory if another offset needs another alignment. */
  moved(run: Uint8Array, offset: number): Uint8Array;
}

/** Memory for one run of bytes, aligned so that it can be written past the page cache. */
export function runMemory(bytes: number): RunMemory {
  const memory = new Uint8Array(pageMemory(bytes + page));
  const at = (offset: number, count: number): Uint8Array => memory.subarray(offset % page, (offset % page) + count);
  return {
    at,
    moved(run, offset) {
      const to = at(offset, run.byteLength);
      if (to.byteOffset !== run.byteOffset)
        memory.copyWithin(to.byteOffset, run.byteOffset, run.byteOffset + run.byteLength);
      return to;
    },
  };
}

/** A file that is written at any offset, in any order. */
export interface OffsetFile {
  /** Writes bytes that `runMemory` placed for this offset, or any others, which then go through the page cache. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens an existing file for writing. With `direct` false, everything goes through the page cache. Throws what the
 * system says, as it is.
 */
export async function openForOffsets(path: string, direct = true): Promise<OffsetFile> {
  const cachedHandle = await open(path, "r+");
  let directHandle: FileHandle | null = null;
  try {
    if (direct) directHandle = await openDirect(path);
  } catch (cause) {
    await cachedHandle.close();
    throw cause;
  }
  const writeDirect = async (bytes: Uint8Array, offset: number): Promise<void> => {
    try {
      if (directHandle !== null) return await writeAll(directHandle, bytes, offset);
    } catch (cause) {
      // Some file systems take the flag and refuse the write.
      if ((cause as NodeJS.ErrnoException).code !== "EINVAL") throw cause;
      const uselessHandle = directHandle;
      directHandle = null;
      await uselessHandle?.close();
    }
    await writeAll(cachedHandle, bytes, offset);
  };
  return {
    async write(bytes, offset) {
      const head = Math.min(bytes.byteLength, (page - (offset % page)) % page);
      const whole = bytes.byteLength - head - ((bytes.byteLength - head) % page);
      if (directHandle === null || whole < shortestDirect || (bytes.byteOffset + head) % page !== 0)
        return writeAll(cachedHandle, bytes, offset);
      await Promise.all([
        writeDirect(bytes.subarray(head, head + whole), offset + head),
        head === 0 ? undefined : writeAll(cachedHandle, bytes.subarray(0, head), offset),
        head + whole === bytes.byteLength
          ? undefined
          : writeAll(cachedHandle, bytes.subarray(head + whole), offset + head + whole),
      ]);
    },
    async close() {
      await Promise.all([cachedHandle.close(), directHandle?.close()]);
    },
  };
}

/** Opens a file for writing past the page cache; null where the system or the file system cannot do that. */
async function openDirect(path: string): Promise<FileHandle | null> {
  // macOS and Windows do not have the flag.
  const flag = (constants as { readonly O_DIRECT?: number }).O_DIRECT;
  if (flag === undefined) return null;
  return open(path, constants.O_WRONLY | flag).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "EINVAL" || cause.code === "ENOTSUP") return null;
    throw cause;
  });
}
