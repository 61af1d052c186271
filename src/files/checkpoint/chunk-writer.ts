/** Makes chunks and writes them to their places: on this thread, with a few under way at a time. */
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { at } from "../../base/at.js";
import { withFsErrors } from "../io/fs-errors.js";
import { filesToKeep } from "../io/limits.js";
import { openForOffsets, runMemory, type OffsetFile, type RunMemory } from "../io/offsets.js";
import type { Chunk } from "./chunks.js";
import { countNonFinite } from "../numeric/finite.js";
import { fillChunk, type MakeRectangle } from "./fill.js";

/** What is known of a chunk that is written. */
export interface WrittenChunk {
  /** CRC-32 of its bytes; null where the target asks for no checksums. */
  readonly sum: number | null;
  /** How many of its values are NaN or infinite. */
  readonly nonFinite: number;
}

/** Makes chunks and writes them, several at once. */
export interface ChunkWriter {
  /** How many `write` may be under way at once. */
  readonly inFlight: number;
  /** Afterwards the chunk is in the hands of the system, not yet on disk. */
  write(chunk: Chunk): Promise<WrittenChunk>;
  close(): Promise<void>;
}

/** The weight files that chunks are written to. */
export interface ChunkTarget {
  /** Folder of the weight files, which exist. */
  readonly folder: string;
  /** The name that errors give the folder. */
  readonly shownAs: string;
  /** Their names, in the order of the chunks' file numbers. */
  readonly files: readonly string[];
  /** Bytes of the largest chunk. */
  readonly chunkBytes: number;
  /** Whether `write` gives the CRC-32 of each chunk; no if left out. */
  readonly checksums?: boolean;
  /** Whether to write past the page cache where the system can. */
  readonly direct: boolean;
}

/** How many chunks are under way at once: while one is written, the next is read. */
const defaultInFlight = 3;
/** Open files per writer, each twice where writing goes past the page cache. */
const mostFiles = filesToKeep(8);

/** Opens a writer that makes chunks on this thread, with `inFlight` of them under way at once. */
export function openChunkWriter(
  { folder, shownAs, files, chunkBytes, direct, checksums = false }: ChunkTarget,
  make: MakeRectangle,
  inFlight = defaultInFlight,
): ChunkWriter {
  const free: RunMemory[] = [];
  const open = new Map<number, { file: Promise<OffsetFile>; users: number }>();

  const closeIdle = async (): Promise<void> => {
    const idle = [...open].filter(([, { users }]) => users === 0).slice(0, Math.max(0, open.size - mostFiles));
    for (const [index] of idle) open.delete(index);
    for (const [, { file }] of idle) await (await file).close();
  };
  const writeAt = async (index: number, bytes: Uint8Array, offset: number): Promise<void> => {
    const name = at(files, index);
    const entry = open.get(index) ?? { file: openForOffsets(join(folder, name), direct), users: 0 };
    open.set(index, entry);
    entry.users++;
    try {
      await withFsErrors(join(shownAs, name), "write weights", async () => (await entry.file).write(bytes, offset));
    } finally {
      entry.users--;
    }
    if (open.size > mostFiles) await closeIdle();
  };
  return {
    inFlight,
    async write(chunk) {
      const memory = free.pop() ?? runMemory(chunkBytes);
      try {
        let run = memory.at(at(chunk.places, 0).offset, chunk.bytes);
        await fillChunk(chunk, make, run);
        const sum = checksums ? crc32(run) : null;
        const nonFinite = countNonFinite(chunk.dtype, run);
        for (const { file, offset } of chunk.places) {
          run = memory.moved(run, offset);
          await writeAt(file, run, offset);
        }
        return { sum, nonFinite };
      } finally {
        free.push(memory);
      }
    },
    async close() {
      const all = [...open.values()];
      open.clear();
      for (const { file } of all) await (await file.catch(() => undefined))?.close();
    },
  };
}
