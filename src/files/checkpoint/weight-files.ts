/** The weight files of a folder in the making: created with their sizes and headers, filled chunk by chunk, flushed. */
import { open, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { at } from "../../base/at.js";
import { interruptedError } from "../../base/errors.js";
import { writeAll } from "../io/atomic.js";
import { withFsErrors } from "../io/fs-errors.js";
import type { Chunk } from "./chunks.js";
import type { ChunkWriter } from "./chunk-writer.js";
import type { PlannedFile } from "./plan-files.js";

/**
 * Creates every file with its header and its final size; `shownAs` is the folder that errors name. Throws inputError or
 * stopError as the system says.
 */
export async function createWeightFiles(folder: string, files: readonly PlannedFile[], shownAs: string): Promise<void> {
  for (const { file, header } of files) {
    await withFsErrors(join(shownAs, file), "create file", async () => {
      const handle = await open(join(folder, file), "wx");
      try {
        await writeAll(handle, header.bytes, 0);
        await handle.truncate(header.fileBytes);
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
  }
}

/** Bytes on their way to the disk before they are flushed and recorded: what an interruption can cost. */
const defaultFlushBytes = 512 << 20;

interface FillOptions {
  readonly folder: string;
  readonly shownAs: string;
  readonly files: readonly PlannedFile[];
  readonly chunks: readonly Chunk[];
  /** Indices of chunks that are there already. */
  readonly done: ReadonlySet<number>;
  readonly writer: ChunkWriter;
  readonly flushBytes?: number | undefined;
  /** Takes the CRC-32 of the chunks that are written, by their indices, where the writer gives them. */
  readonly sums?: Map<number, number> | undefined;
  /** Called with the indices of chunks that are on disk. */
  readonly onFlushed?: ((chunks: readonly number[]) => Promise<void>) | undefined;
  /** Called for each chunk with NaN or infinite values, and how many it has; what it throws stops the writing. */
  readonly onNonFinite?: ((chunk: Chunk, values: number) => void | Promise<void>) | undefined;
  /** Called after each chunk with the bytes of all that are written, those of earlier processes included. */
  readonly onWritten?: ((chunk: Chunk, writtenBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Writes the chunks that are not done, in order, a few at a time, and flushes all files. After a failure or an abort
 * what was written is flushed and reported before the error is thrown (interruptedError for an abort).
 */
export async function fillWeightFiles(options: FillOptions): Promise<void> {
  const { chunks, done, writer, onFlushed, onWritten, signal, flushBytes = defaultFlushBytes } = options;
  const underWay = new Set<Promise<void>>();
  let failure: { readonly cause: unknown } | null = null;
  let writtenChunks: number[] = [];
  // They are made again when this is resumed, so that they are found again.
  const damaged = new Set<number>();
  let unflushedBytes = 0;
  let bytes = chunks.reduce((sum, chunk, i) => sum + (done.has(i) ? sizeOf(chunk) : 0), 0);
  let flushing = Promise.resolve();

  const flush = async (): Promise<void> => {
    const now = writtenChunks;
    writtenChunks = [];
    unflushedBytes = 0;
    if (now.length === 0) return;
    await flushFiles(options, new Set(now.flatMap((i) => at(chunks, i).places.map(({ file }) => file))));
    await onFlushed?.(now.filter((i) => !damaged.has(i)));
  };
  const write = async (chunk: Chunk, i: number): Promise<void> => {
    try {
      const { sum, nonFinite } = await writer.write(chunk);
      if (sum !== null) options.sums?.set(i, sum);
      writtenChunks.push(i);
      if (nonFinite > 0) {
        damaged.add(i);
        await options.onNonFinite?.(chunk, nonFinite);
      }
      bytes += sizeOf(chunk);
      unflushedBytes += sizeOf(chunk);
      onWritten?.(chunk, bytes);
    } catch (cause) {
      failure ??= { cause };
    }
  };
  const mayGoOn = (): boolean => failure === null && signal?.aborted !== true;
  for (const [i, chunk] of chunks.entries()) {
    if (!mayGoOn()) break;
    if (done.has(i)) continue;
    const writing = write(chunk, i).finally(() => underWay.delete(writing));
    underWay.add(writing);
    if (underWay.size >= writer.inFlight) await Promise.race(underWay);
    if (unflushedBytes >= flushBytes) {
      // Chunks are written meanwhile, but not until the next flush is due: that one waits for this one.
      await flushing;
      flushing = flush().catch((cause: unknown) => void (failure ??= { cause }));
    }
  }
  await Promise.all(underWay);
  await flushing;
  // TypeScript does not see that `write` and `flush` set it.
  const firstFailure = failure as { readonly cause: unknown } | null;
  if (firstFailure !== null) {
    await flush().catch(() => undefined);
    throw firstFailure.cause;
  }
  await flush();
  if (signal?.aborted === true) {
    const total = chunks.reduce((sum, chunk) => sum + sizeOf(chunk), 0);
    throw interruptedError(`stopped with ${Math.floor((100 * bytes) / Math.max(1, total))} % written`, {
      where: options.shownAs,
      hint: "the same command goes on from there",
    });
  }
}

/** Writes bytes between the weights, by the index of their file, and flushes the files. */
export async function writeBetween(
  folder: string,
  shownAs: string,
  files: readonly PlannedFile[],
  runs: Iterable<{ readonly file: number; readonly offset: number; readonly bytes: Uint8Array }>,
): Promise<void> {
  let handle: FileHandle | null = null;
  let current: number | null = null;
  const finish = async (): Promise<void> => {
    await handle?.datasync();
    await handle?.close();
    handle = null;
  };
  try {
    for (const { file, offset, bytes } of runs) {
      const { file: name } = files[file]!;
      await withFsErrors(join(shownAs, name), "write weights", async () => {
        if (file !== current) {
          await finish();
          handle = await open(join(folder, name), "r+");
          current = file;
        }
        await writeAll(handle!, bytes, offset);
      });
    }
    await finish();
  } finally {
    await (handle as FileHandle | null)?.close();
  }
}

async function flushFiles({ folder, shownAs, files }: FillOptions, touched: ReadonlySet<number>): Promise<void> {
  for (const index of touched) {
    const { file } = at(files, index);
    await withFsErrors(join(shownAs, file), "flush weights", async () => {
      const handle = await open(join(folder, file), "r+");
      try {
        await handle.datasync();
      } finally {
        await handle.close();
      }
    });
  }
}

/** Bytes that a chunk takes at all its places. */
function sizeOf({ bytes, places }: Chunk): number {
  return bytes * places.length;
}
