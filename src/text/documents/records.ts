/** Files of records: objects with fields, one at a time, out of JSON, JSON lines or Parquet. */
import { inputError } from "../../base/errors.js";
import { isNestedTooDeeply, nestedTooDeeply } from "../../files/formats/duplicate-key.js";
import { decodeUtf8, splitLines } from "./corpus.js";
import { readParquetRows } from "./parquet.js";

/** A value of a field; whole numbers of 64 bits are numbers, times are texts. */
export type FieldValue =
  null | boolean | number | string | readonly FieldValue[] | { readonly [key: string]: FieldValue };

/** An object of a file. */
export type DataRecord = Readonly<Record<string, FieldValue>>;

/** Endings of files of records. */
export const recordExtensions = [".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet"] as const;

/**
 * The records of a file, in order. A .json file holds a list of objects, or one object on each line. Throws inputError
 * with file and line for what is no such file.
 */
export async function* readRecords(path: string): AsyncGenerator<DataRecord> {
  if (!recordExtensions.some((extension) => path.endsWith(extension)))
    throw inputError(`unknown kind of data file, expected ${recordExtensions.join(", ")}`, { where: path });
  if (path.endsWith(".parquet")) {
    for await (const row of readParquetRows(path))
      yield Object.fromEntries(Object.entries(row).map(([key, value]) => [key, plain(value, path)]));
    return;
  }
  let number = 0;
  let list: string[] | null = null;
  for await (const bytes of splitLines(path)) {
    number++;
    const line = decodeUtf8(bytes, `${path}:${number}`);
    // A list may be written over many lines; its file is read as a whole.
    if (list === null && number === 1 && line.trimStart().startsWith("[")) list = [];
    if (list !== null) list.push(line);
    else if (line.trim() !== "") yield objectOf(parsed(line, `${path}:${number}`), `${path}:${number}`);
  }
  if (list === null) return;
  const all = parsed(list.join("\n"), path);
  if (!Array.isArray(all)) throw inputError("the file is no list of objects", { where: path });
  for (const [i, entry] of all.entries()) yield objectOf(entry, `${path}, entry ${i + 1}`);
}

function parsed(json: string, where: string): unknown {
  if (isNestedTooDeeply(json)) throw inputError(nestedTooDeeply, { where });
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw inputError("this is not JSON", {
      where,
      hint: "a .jsonl file holds one JSON object on each line, a .json file also a list of them",
      cause,
    });
  }
}

function objectOf(value: unknown, where: string): DataRecord {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as DataRecord;
  throw inputError("this is not a JSON object", { where });
}

/** What hyparquet gives as JSON has it. */
function plain(value: unknown, where: string): FieldValue {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return Number(value);
  if (typeof value === "number" || typeof value === "string" || typeof value === "boolean") return value;
  // A time beyond what there are dates for.
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (value instanceof Uint8Array) return decodeUtf8(value, where);
  if (Array.isArray(value)) return value.map((one) => plain(one, where));
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<number | bigint>, Number);
  return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, plain(one, where)]));
}
