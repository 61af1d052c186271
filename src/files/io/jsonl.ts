/**
 * Append-only logs, one JSON value per line. A line counts once its newline is on disk; a last line without one, or one
 * that is not JSON (a crash or power cut in mid-write), is as if it had never been written.
 */
import type { FileHandle } from "node:fs/promises";
import { inputError } from "../../base/errors.js";
import { bytes } from "../../base/format.js";
import { withFsErrors } from "./fs-errors.js";
import { sizeLimits, openForAppending, tooLarge } from "./open.js";
import { openRanges } from "./ranges.js";

/** Appends records to a log, one JSON object a line. */
export interface JsonlWriter {
  /** Adds one line. Calls are written in the order they are made. */
  append(value: unknown): Promise<void>;
  /** Flushes to disk: after this the lines survive a power cut. */
  sync(): Promise<void>;
  /** Closes the log once all lines are written. */
  close(): Promise<void>;
}

/**
 * Opens a log for appending, creating it if absent, after cutting off a torn last line. Throws inputError for what is
 * no regular file or cannot be written to.
 */
export async function openJsonl(path: string): Promise<JsonlWriter> {
  const { handle } = await openForAppending(path, "open log");
  let size: number;
  try {
    await withFsErrors(path, "repair log", () => cutTornLine(handle));
    size = (await handle.stat()).size;
  } catch (cause) {
    await handle.close();
    throw cause;
  }
  let last: Promise<void> = Promise.resolve();
  const write = async (line: string): Promise<void> => {
    try {
      await withFsErrors(path, "write log", () => handle.appendFile(line));
      size += Buffer.byteLength(line);
    } catch (cause) {
      // Half a line would swallow the next one.
      await handle.truncate(size).catch(() => undefined);
      throw cause;
    }
  };
  return {
    append(value) {
      const line = `${JSON.stringify(value)}\n`;
      const written = last.then(() => write(line));
      // A failed line must not stop the next from being tried; its own caller hears of it.
      last = written.catch(() => undefined);
      return written;
    },
    sync: () => last.then(() => withFsErrors(path, "flush log", () => handle.sync())),
    close: () => last.then(() => withFsErrors(path, "close log", () => handle.close())),
  };
}

/**
 * All complete lines of a log. Throws inputError if it is missing, no regular file or too large, or if a line other
 * than the last is not JSON.
 */
export async function readJsonl(path: string): Promise<unknown[]> {
  const file = await openRanges(path);
  let text: string;
  try {
    if (file.size > sizeLimits.log) throw tooLarge(path, `log has ${bytes(file.size)}`, sizeLimits.log);
    // What is appended meanwhile belongs to a later reading.
    text = new TextDecoder().decode(await file.read(0, file.size));
  } finally {
    await file.close();
  }
  // Whatever follows the last newline is torn, or empty.
  const lines = text.split("\n").slice(0, -1);
  return lines.flatMap((line, i) => {
    try {
      return [JSON.parse(line) as unknown];
    } catch (cause) {
      if (i === lines.length - 1) return [];
      throw inputError(`line ${i + 1} is not JSON`, { where: path, cause });
    }
  });
}

/** Cuts off what stands behind the last complete line, and that line too if it is not JSON. */
async function cutTornLine(handle: FileHandle): Promise<void> {
  const info = await handle.stat();
  if (!info.isFile() || info.size === 0) return;
  const end = await lastNewline(handle, info.size);
  const start = end === 0 ? 0 : await lastNewline(handle, end - 1);
  let intactBytes = end;
  if (end > start) {
    const bytes = new Uint8Array(end - start);
    await handle.read(bytes, 0, bytes.byteLength, start);
    try {
      JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      intactBytes = start;
    }
  }
  if (intactBytes < info.size) await handle.truncate(intactBytes);
}

/** Offset just after the last newline before `end`; 0 if there is none. */
async function lastNewline(handle: FileHandle, end: number): Promise<number> {
  const block = new Uint8Array(65_536);
  for (let stop = end; stop > 0;) {
    const start = Math.max(0, stop - block.byteLength);
    const { bytesRead } = await handle.read(block, 0, stop - start, start);
    const at = block.subarray(0, bytesRead).lastIndexOf(10);
    if (at !== -1) return start + at + 1;
    stop = start;
  }
  return 0;
}
