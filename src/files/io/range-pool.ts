/**
 * Files that are read in parts over a long time, more of them than may be open at once: the ones in use stay open, the
 * others are closed and opened again when their turn comes.
 */
import { stat } from "node:fs/promises";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "./fs-errors.js";
import { filesToKeep, mostPooled } from "./limits.js";
import { openRanges, type RangeFile } from "./ranges.js";

interface Entry {
  readonly path: string;
  /** What the file looked like when it was opened first. */
  readonly stamp: string;
  /** The open file, or one that is being opened; null while it is closed. */
  file: Promise<RangeFile> | null;
  /** Readers that are under way. */
  users: number;
  /** Whether its owner has closed it for good. */
  closed: boolean;
}

interface RangePool {
  /** Like `openRanges`. Throws inputError as well, on reading, if the file was replaced while it was closed. */
  open(path: string): Promise<RangeFile>;
  /** Files that are open now. */
  readonly openFiles: number;
}

/** A pool in which at most `most` files are open at once; whoever needs one more waits. */
export function rangePool(most: number): RangePool {
  // The least recently used first.
  const open = new Set<Entry>();
  const waiting: (() => void)[] = [];
  let openFiles = 0;

  /** Gets the right to open one file: closes one that nobody reads, or waits until there is one. */
  const takePlace = async (): Promise<void> => {
    while (openFiles >= most) {
      const idle = [...open].find(({ users }) => users === 0);
      if (idle === undefined) await new Promise<void>((resolve) => waiting.push(resolve));
      else await shut(idle);
    }
    openFiles++;
  };
  const freePlace = (): void => {
    openFiles--;
    waiting.shift()?.();
  };
  /** Closes a file and frees its place. The entry is out of reach at once, so that no reader takes a closing file. */
  const shut = async (entry: Entry): Promise<void> => {
    if (!open.delete(entry)) return;
    const { file } = entry;
    entry.file = null;
    await (await file)?.close();
    freePlace();
  };
  /** Opens in a place of its own; `judge` may still refuse it. */
  const openOnce = async (
    path: string,
    judge: (stamp: string) => void,
  ): Promise<readonly [RangeFile, stamp: string]> => {
    await takePlace();
    let file: RangeFile | undefined;
    try {
      file = await openRanges(path);
      const stamp = await stampOf(path);
      judge(stamp);
      return [file, stamp];
    } catch (cause) {
      await file?.close();
      freePlace();
      throw cause;
    }
  };
  const reopen = async (entry: Entry): Promise<RangeFile> => {
    try {
      const [file] = await openOnce(entry.path, (stamp) => {
        if (stamp !== entry.stamp)
          throw inputError("the file was replaced while it was read", {
            where: entry.path,
            hint: "run again when nothing changes it",
          });
      });
      open.add(entry);
      return file;
    } catch (cause) {
      entry.file = null;
      throw cause;
    }
  };
  const acquire = async (entry: Entry): Promise<RangeFile> => {
    if (entry.closed) throw new Error(`${entry.path} is read after it was closed`);
    entry.users++;
    try {
      // All who read the file at once share one opening: were each to wait for a place of its own, the file's place
      // could not be given up by the one who reads.
      const file = await (entry.file ??= reopen(entry));
      if (open.delete(entry)) open.add(entry);
      return file;
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
      return openFiles;
    },
    async open(path) {
      const [file, stamp] = await openOnce(path, () => undefined);
      const entry: Entry = { path, stamp, file: Promise.resolve(file), users: 0, closed: false };
      open.add(entry);
      return {
        path,
        size: file.size,
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
          await entry.file?.catch(() => undefined);
          await shut(entry);
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
  return (shared ??= rangePool(filesToKeep(mostPooled))).open(path);
}
