/**
 * Files that are read in parts over a long time, more of them than may be open at once: the ones in use stay open, the others are closed and opened
 * again when their turn comes.
 */
import { stat } from "node:fs/promises";
import { inputError } from "../base/errors.js";
import { withFsErrors } from "./fs-errors.js";
import { filesToKeep } from "./limits.js";
import { openRanges, type RangeFile } from "./ranges.js";

/** Enough for the shards of nearly every model. */
const mostOpen = 256;

interface Entry {
  readonly path: string;
  /** What the file looked like when it was opened first. */
  readonly stamp: string;
  open: RangeFile | null;
  users: number;
  closed: boolean;
}

export interface RangePool {
  /** Like `openRanges`. Throws inputError as well, on reading, if the file was replaced while it was closed. */
  open(path: string): Promise<RangeFile>;
  /** Files that are open now. */
  readonly openFiles: number;
}

/** At most `most` files are open at once; whoever needs one more waits. */
export function rangePool(most: number): RangePool {
  // The least recently used first.
  const open = new Set<Entry>();
  const waiting: (() => void)[] = [];
  let taken = 0;

  /** Gets the right to open one file: closes one that nobody reads, or waits until there is one. */
  const takePlace = async (): Promise<void> => {
    while (taken >= most) {
      const idle = [...open].find(({ users }) => users === 0);
      if (idle === undefined) await new Promise<void>((resolve) => waiting.push(resolve));
      else await shut(idle);
    }
    taken++;
  };
  const freePlace = (): void => {
    taken--;
    waiting.shift()?.();
  };
  const shut = async (entry: Entry): Promise<void> => {
    const file = entry.open;
    open.delete(entry);
    entry.open = null;
    await file?.close();
    freePlace();
  };
  const openOnce = async (path: string): Promise<RangeFile> => {
    await takePlace();
    try {
      return await openRanges(path);
    } catch (cause) {
      freePlace();
      throw cause;
    }
  };
  const acquire = async (entry: Entry): Promise<RangeFile> => {
    if (entry.closed) throw new Error(`${entry.path} is read after it was closed`);
    entry.users++;
    try {
      if (entry.open === null) {
        const file = await openOnce(entry.path);
        if ((await stampOf(entry.path)) !== entry.stamp) {
          await file.close();
          freePlace();
          throw inputError("the file was replaced while it was read", { where: entry.path, hint: "run again when nothing changes it" });
        }
        // Another reader may have been as fast.
        if (entry.open === null) entry.open = file;
        else {
          await file.close();
          freePlace();
        }
      }
      open.delete(entry);
      open.add(entry);
      return entry.open;
    } catch (cause) {
      release(entry);
      throw cause;
    }
  };
  const release = (entry: Entry): void => {
    entry.users--;
    if (entry.users === 0) waiting.shift()?.();
  };
  return {
    get openFiles() {
      return taken;
    },
    async open(path) {
      const file = await openOnce(path);
      const entry: Entry = { path, stamp: await stampOf(path), open: file, users: 0, closed: false };
      open.add(entry);
      return {
        path, size: file.size,
        async read(offset, length, into) {
          const source = await acquire(entry);
          try {
            return await source.read(offset, length, into);
          } finally {
            release(entry);
          }
        },
        async close() {
          entry.closed = true;
          if (entry.open !== null) await shut(entry);
        },
      };
    },
  };
}

async function stampOf(path: string): Promise<string> {
  const { size, mtimeMs } = await withFsErrors(path, "look up file", () => stat(path));
  return `${size} ${mtimeMs}`;
}

let shared: RangePool | undefined;

/** Opens a file in the pool of this thread. */
export function openPooled(path: string): Promise<RangeFile> {
  return (shared ??= rangePool(filesToKeep(mostOpen))).open(path);
}
