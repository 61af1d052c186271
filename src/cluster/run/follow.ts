/** Lines of log files as they are written: files that grow, are replaced, cut off, or appear later. */
import { open, readdir, stat, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists } from "../../files/io/atomic.js";
import { withFsErrors } from "../../files/io/fs-errors.js";

/** A line and the file that it stands in. */
export interface FollowedLine {
  readonly file: string;
  readonly line: string;
}

/** How files are followed. */
export interface FollowOptions {
  /** Ends at what is there now. */
  readonly once: boolean;
  /** Milliseconds between two looks. */
  readonly every?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Bytes read at once, and the longest line that is kept. */
const pieceBytes = 1 << 20;
const markBytes = 512;

interface Followed {
  readonly path: string;
  handle: FileHandle | null;
  inode: number;
  at: number;
  /** The last bytes before `at`: whoever cuts the file off and writes as much again changes them. */
  mark: Buffer;
  rest: Buffer;
}

/**
 * Lines of the files, and of the `.log`, `.out` and `.err` files of folders; null after each look, so that the caller
 * can judge silence. Throws inputError for a name that is not there at the beginning.
 */
export async function* followLines(
  names: readonly string[],
  { once, every = 1000, signal }: FollowOptions,
): AsyncGenerator<FollowedLine | null> {
  for (const name of names) if (!(await exists(name))) throw inputError("no such file or folder", { where: name });
  const files = new Map<string, Followed>();
  // One for all files: a run of a thousand nodes has as many logs.
  const piece = Buffer.alloc(pieceBytes);
  try {
    while (signal?.aborted !== true) {
      for (const path of await filesOf(names)) {
        const file = files.get(path) ?? {
          path,
          handle: null,
          inode: 0,
          at: 0,
          mark: Buffer.alloc(0),
          rest: Buffer.alloc(0),
        };
        files.set(path, file);
        yield* newLines(file, piece, once);
      }
      yield null;
      if (once) return;
      await pause(every, signal);
    }
  } finally {
    for (const { handle } of files.values()) await handle?.close();
  }
}

async function filesOf(names: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const name of names) {
    const info = await stat(name).catch(() => null);
    if (info?.isDirectory() !== true) {
      if (info !== null) found.push(name);
      continue;
    }
    const inside = await withFsErrors(name, "list folder", () => readdir(name, { recursive: true }));
    found.push(
      ...inside
        .filter((file) => /\.(log|out|err)$/.test(file))
        .sort()
        .map((file) => join(name, file)),
    );
  }
  return found;
}

async function* newLines(file: Followed, piece: Buffer, toEnd: boolean): AsyncGenerator<FollowedLine> {
  const info = await stat(file.path).catch(() => null);
  if (info === null || !info.isFile()) return;
  if (file.handle === null || info.ino !== file.inode) yield* reopened(file, piece, info.ino);
  // Somebody has cut it off to begin anew.
  if (info.size < file.at || !(await isSame(file))) begin(file);
  yield* readOn(file, piece);
  if (toEnd && file.rest.length > 0) {
    yield { file: file.path, line: file.rest.toString("utf8") };
    file.rest = Buffer.alloc(0);
  }
}

/** What the old file still got before it was renamed comes first. */
async function* reopened(file: Followed, piece: Buffer, inode: number): AsyncGenerator<FollowedLine> {
  if (file.handle !== null) {
    yield* readOn(file, piece);
    await file.handle.close();
    file.handle = null;
  }
  file.handle = await withFsErrors(file.path, "open log", () => open(file.path, "r"));
  file.inode = inode;
  begin(file);
}

function begin(file: Followed): void {
  [file.at, file.mark, file.rest] = [0, Buffer.alloc(0), Buffer.alloc(0)];
}

async function isSame({ handle, at, mark }: Followed): Promise<boolean> {
  const found = Buffer.alloc(mark.length);
  await handle!.read(found, 0, mark.length, at - mark.length);
  return found.equals(mark);
}

async function* readOn(file: Followed, piece: Buffer): AsyncGenerator<FollowedLine> {
  for (;;) {
    const { bytesRead } = await file.handle!.read(piece, 0, pieceBytes, file.at);
    if (bytesRead === 0) return;
    file.at += bytesRead;
    const read = piece.subarray(0, bytesRead);
    const whole = Buffer.concat([file.rest, read]);
    // A copy: a part of a buffer would keep all of it.
    file.mark = Buffer.from(Buffer.concat([file.mark, read.subarray(-markBytes)]).subarray(-markBytes));
    let from = 0;
    for (let end = whole.indexOf(10); end >= 0; end = whole.indexOf(10, from)) {
      yield { file: file.path, line: whole.toString("utf8", from, end) };
      from = end + 1;
    }
    // A line without end is no line of a log.
    file.rest = whole.length - from > pieceBytes ? Buffer.alloc(0) : Buffer.from(whole.subarray(from));
  }
}

function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    }
    signal?.addEventListener("abort", done);
  });
}
