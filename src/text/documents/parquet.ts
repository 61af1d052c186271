/** Parquet files, one row group in memory at a time. Read by hyparquet, which has no native code. */
import { basename } from "node:path";
import * as zlib from "node:zlib";
import type { AsyncBuffer, Compressors, FileMetaData } from "hyparquet";
import { at } from "../../base/at.js";
import { inputError, UpcycleError } from "../../base/errors.js";
import type { CorpusDocument } from "./document.js";
import { openRanges, type RangeFile } from "../../files/io/ranges.js";

type Unpack = (bytes: Uint8Array, options: { readonly maxOutputLength: number }) => Uint8Array;

/** Node's own decompression, since hyparquet brings that of Snappy alone. Zstandard came with Node 22.15. */
const zstd = (zlib as unknown as { readonly zstdDecompressSync?: Unpack }).zstdDecompressSync;

const limited = (unpack: Unpack) => (bytes: Uint8Array, size: number) =>
  new Uint8Array(unpack(bytes, { maxOutputLength: Math.max(1, size) }));
const compressors: Compressors = {
  GZIP: limited(zlib.gunzipSync),
  BROTLI: limited(zlib.brotliDecompressSync),
  ...(zstd === undefined ? {} : { ZSTD: limited(zstd) }),
};

/**
 * One document per row, named `file:row` from 1. Throws inputError for a file that is no Parquet, a column that is
 * missing or holds no text, a row without text, and compression that cannot be undone here.
 */
export async function* readParquetText(path: string, field: string): AsyncGenerator<CorpusDocument> {
  const { parquetMetadataAsync, parquetReadObjects } = await import("hyparquet");
  const ranges = await openRanges(path);
  try {
    const file = bufferOf(ranges);
    const metadata = await withParquetErrors(path, () => parquetMetadataAsync(file));
    requireTextColumn(metadata, field, path);
    let row = 0;
    for (const { num_rows: size } of metadata.row_groups) {
      const rows = await withParquetErrors(path, () =>
        parquetReadObjects({
          file,
          metadata,
          columns: [field],
          rowStart: row,
          rowEnd: row + Number(size),
          compressors,
        }),
      );
      for (const { [field]: text } of rows as readonly Record<string, unknown>[]) {
        row++;
        if (typeof text !== "string") {
          throw inputError(
            `row ${row} has ${text === null || text === undefined ? "no text" : `a ${typeof text}`} in column ` +
              `"${field}"`,
            { where: path },
          );
        }
        yield { name: `${basename(path)}:${row}`, text };
      }
    }
  } finally {
    await ranges.close();
  }
}

/**
 * All columns of each row, as hyparquet gives them. Throws inputError for a file that is no Parquet, and for
 * compression that cannot be undone here.
 */
export async function* readParquetRows(path: string): AsyncGenerator<Readonly<Record<string, unknown>>> {
  const { parquetMetadataAsync, parquetReadObjects } = await import("hyparquet");
  const ranges = await openRanges(path);
  try {
    const file = bufferOf(ranges);
    const metadata = await withParquetErrors(path, () => parquetMetadataAsync(file));
    let row = 0;
    for (const { num_rows: size } of metadata.row_groups) {
      const end = row + Number(size);
      const rows = await withParquetErrors(path, () =>
        parquetReadObjects({ file, metadata, rowStart: row, rowEnd: end, compressors }),
      );
      yield* rows as readonly Readonly<Record<string, unknown>>[];
      row = end;
    }
  } finally {
    await ranges.close();
  }
}

function bufferOf(ranges: RangeFile): AsyncBuffer {
  return {
    byteLength: ranges.size,
    slice: async (start, end = ranges.size) => (await ranges.read(start, Math.min(end, ranges.size) - start)).buffer,
  };
}

/** Throws inputError unless a column holds text: it says so, or it is a plain byte array, as old writers left it. */
function requireTextColumn({ schema }: FileMetaData, field: string, where: string): void {
  // The root comes first; only columns of the top level are asked for.
  const columns: FileMetaData["schema"] = [];
  for (let i = 1; i < schema.length; i += 1 + descendants(schema, i)) columns.push(at(schema, i));
  const column = columns.find(({ name }) => name === field);
  if (column === undefined)
    throw inputError(`there is no column "${field}"`, {
      where,
      hint: `its columns are: ${columns
        .slice(0, 8)
        .map(({ name }) => name)
        .join(", ")}`,
    });
  if (column.type === "BYTE_ARRAY" && column.num_children === undefined && column.repetition_type !== "REPEATED")
    return;
  throw inputError(`column "${field}" holds ${column.type ?? "a group"}, expected text`, { where });
}

/** How many elements of the schema lie below one. */
function descendants(schema: FileMetaData["schema"], index: number): number {
  let count = 0;
  for (let child = 0; child < (schema[index]?.num_children ?? 0); child++)
    count += 1 + descendants(schema, index + 1 + count);
  return count;
}

/** Runs what hyparquet does, and throws its failures as inputError; what reading the file throws stays what it is. */
async function withParquetErrors<T>(where: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (cause) {
    if (cause instanceof UpcycleError) throw cause;
    const message = (cause as Error).message;
    const codec = /unsupported compression codec: (\w+)/.exec(message)?.[1];
    if (codec === undefined) throw inputError(`this Parquet file cannot be read (${message})`, { where, cause });
    const hint =
      codec === "ZSTD"
        ? "use Node 22.15 or later, or compress it with Snappy"
        : "compress it with Snappy, gzip or not at all";
    throw inputError(`this Parquet file is compressed with ${codec}, which cannot be unpacked here`, {
      where,
      hint,
      cause,
    });
  }
}
