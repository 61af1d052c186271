/**
 * Tables of text cells from files: CSV (comma, semicolon, tab, bar or spaces), tables of Markdown, JSON lines, a JSON
 * list, a trainer's state or log, also compressed with gzip; and Parquet.
 */
import { at as elementAt } from "../../base/at.js";
import { gunzipSync } from "node:zlib";
import { UpcycleError, inputError } from "../../base/errors.js";
import { isNestedTooDeeply, nestedTooDeeply } from "../../files/formats/duplicate-key.js";
import { parsePythonJson } from "../../files/formats/python-json.js";
import { bytes as bytesText } from "../../base/format.js";
import { sizeLimits, tooLarge, utf8Text } from "../../files/io/open.js";
import { inputName, readInput } from "../../files/io/streams.js";
import type { Table } from "./cells.js";
import { isMegatronLog, isTrainerState, megatronTable, trainerTable, withRunsInRows } from "./training-logs.js";

/** Reads a table from a file, a pipe or ("-") standard input. Throws inputError for what holds none. */
export async function readTable(file: string): Promise<Table> {
  const path = inputName(file);
  let bytesRead = 0;
  const bytes = await readInput(file, {
    maxBytes: sizeLimits.table,
    // An endless stream of something else ends here, not at the limit.
    look: (piece) => {
      if (bytesRead === 0 && !isPacked(piece)) requireText(piece, path);
      bytesRead += piece.byteLength;
    },
  });
  if (starts(bytes, parquetMark)) return fromParquet(bytes, path);
  const plain = isPacked(bytes) ? unpacked(bytes, path) : bytes;
  requireText(plain, path);
  const text = utf8Text(plain, path, "file is not UTF-8 text, nor such text compressed with gzip");
  const first = text.trimStart()[0];
  if (first === undefined) throw inputError("the file is empty", { where: path });
  if (first === "{") {
    const state = trainerState(text);
    return state === null ? fromObjects(parseLines(text, path), path) : filled(state, path);
  }
  if (isMegatronLog(text)) return filled(megatronTable(text), path);
  if (first === "[") return fromObjects(parseList(text, path), path);
  return withRunsInRows(parseCsv(text, path));
}

/** The table of a `trainer_state.json`; null where the text is no such file. */
function trainerState(text: string): Table | null {
  if (!text.includes('"log_history"') || isNestedTooDeeply(text)) return null;
  try {
    const value = parsePythonJson(text);
    return isTrainerState(value) ? trainerTable(value) : null;
  } catch {
    return null;
  }
}

function filled(table: Table, path: string): Table {
  if (table.rows.length === 0) throw inputError("this log holds no loss", { where: path });
  return table;
}

/** Equal rows take next to nothing in a Parquet file. */
const mostRows = 2_000_000;

const parquetMark = [...Buffer.from("PAR1")];
const gzipMark = [0x1f, 0x8b];

const starts = (bytes: Uint8Array, mark: readonly number[]): boolean => mark.every((byte, i) => bytes[i] === byte);
const isPacked = (bytes: Uint8Array): boolean => starts(bytes, parquetMark) || starts(bytes, gzipMark);

/** No table of text has a zero byte; UTF-16 has, and is called by its name. */
function requireText(bytes: Uint8Array, path: string): void {
  const at = bytes.indexOf(0);
  if (at === -1) return;
  if (elementAt(bytes, 0) >= 0xfe) utf8Text(bytes, path, "file is not UTF-8 text, nor such text compressed with gzip");
  throw inputError(`this is no text: byte ${at} is zero`, {
    where: path,
    hint: "expected CSV, JSON lines, or Parquet",
  });
}

function unpacked(bytes: Uint8Array, path: string): Uint8Array {
  try {
    return gunzipSync(bytes, { maxOutputLength: sizeLimits.table });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
      throw tooLarge(path, `unpacked, file has more than ${bytesText(sizeLimits.table)}`, sizeLimits.table);
    }
    throw inputError("file is not UTF-8 text, nor such text compressed with gzip", { where: path, cause });
  }
}

interface Row {
  readonly line: number;
  readonly value: unknown;
}

function parseLines(text: string, path: string): Row[] {
  return text.split("\n").flatMap((line, i): Row[] => {
    if (line.trim() === "") return [];
    if (isNestedTooDeeply(line)) throw inputError(nestedTooDeeply, { where: `${path}:${i + 1}` });
    try {
      return [{ line: i + 1, value: parsePythonJson(line) }];
    } catch (cause) {
      throw inputError("this line is not JSON", {
        where: `${path}:${i + 1}`,
        cause,
        hint: "expected one object per line",
      });
    }
  });
}

function parseList(text: string, path: string): Row[] {
  if (isNestedTooDeeply(text)) throw inputError(nestedTooDeeply, { where: path });
  try {
    return (parsePythonJson(text) as unknown[]).map((value, i) => ({ line: i + 1, value }));
  } catch (cause) {
    throw inputError(`not valid JSON (${(cause as Error).message})`, { where: path, cause });
  }
}

/** Parquet by hyparquet, which has no native code; loaded only where it is needed. A row's "line" is its number. */
async function fromParquet(bytes: Uint8Array, path: string): Promise<Table> {
  const { parquetMetadata, parquetReadObjects } = await import("hyparquet");
  let rows: Record<string, unknown>[];
  try {
    const file = new Uint8Array(bytes).buffer;
    const metadata = parquetMetadata(file);
    if (metadata.num_rows > mostRows) {
      throw inputError(`the file holds ${metadata.num_rows} rows, the limit is ${mostRows}`, { where: path });
    }
    rows = await parquetReadObjects({ file, metadata });
  } catch (cause) {
    if (cause instanceof UpcycleError) throw cause;
    throw inputError(`this Parquet file cannot be read (${(cause as Error).message})`, {
      where: path,
      hint: "compress it with Snappy or not at all, or export it as CSV",
      cause,
    });
  }
  if (rows.length === 0) throw inputError("the file holds no rows", { where: path });
  return fromObjects(
    rows.map((value, i) => ({ line: i + 1, value })),
    path,
  );
}

function fromObjects(objects: readonly Row[], path: string): Table {
  const names = new Set<string>();
  for (const { line, value } of objects) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw inputError("this is no object with named values", {
        where: `${path}:${line}`,
        hint: 'expected for example {"N": 1e8, "D": 1e10, "loss": 2.9}',
      });
    }
    for (const name of Object.keys(value)) names.add(name);
  }
  const headers = [...names];
  const cell = (value: unknown): string =>
    typeof value === "string" || typeof value === "number" || typeof value === "boolean" || typeof value === "bigint"
      ? String(value)
      : "";
  return {
    headers,
    rows: objects.map(({ value }) => headers.map((name) => cell((value as Record<string, unknown>)[name]))),
    lines: objects.map(({ line }) => line),
  };
}

/** A line of cells; a quoted cell may hold line ends, so a record may go over several lines of the file. */
interface CsvRecord {
  /** Line of the file on which it begins, from 1. */
  readonly line: number;
  readonly cells: readonly string[];
}

/**
 * A table from RFC 4180's CSV, with whichever of the separators the heading has most of, or from Markdown. Throws
 * inputError for a quoted cell that is not closed, for no rows, for a heading without names, for two columns of one
 * name, and for rows of other lengths.
 */
export function parseCsv(text: string, path: string): Table {
  const plain = withTabs(withLineFeeds(text.replace(/^\ufeff/, "")));
  const [head, ...rows] = headed(csvRecords(plain, path).filter((record) => !isRule(record)));
  if (head === undefined || rows.length === 0)
    throw inputError("expected a line of column names and lines of values", { where: path });
  const where = `${path}:${head.line}`;
  if (isNumbers(head))
    throw inputError(`the first line has numbers in place of names: ${head.cells.join(", ")}`, {
      where,
      hint: "write the names of the columns above it, such as N,D,loss",
    });
  const twice = head.cells.find((name, i) => name !== "" && head.cells.indexOf(name) !== i);
  if (twice !== undefined)
    throw inputError(`two columns are called "${twice}"`, { where, hint: "give one of them another name" });
  const ragged = rows.find(({ cells }) => cells.length !== head.cells.length);
  if (ragged !== undefined)
    throw inputError(`${ragged.cells.length} cells, the heading has ${head.cells.length}`, {
      where: `${path}:${ragged.line}`,
      hint:
        ragged.cells.length > head.cells.length
          ? `the cells: ${ragged.cells.join(" | ")}; if a number has commas in it, put it in quotes ("1,000"), or ` +
            "separate columns with semicolons"
          : `the cells: ${ragged.cells.join(" | ")}`,
    });
  return { headers: head.cells, rows: rows.map(({ cells }) => cells), lines: rows.map(({ line }) => line) };
}

/**
 * Without lines that begin with a number sign. Where the first line left holds numbers only, the last comment before it
 * is the heading, as NumPy writes it.
 */
function headed(records: readonly CsvRecord[]): readonly CsvRecord[] {
  const isComment = ({ cells: [first = ""] }: CsvRecord): boolean => first.startsWith("#");
  const at = records.findIndex((record) => !isComment(record));
  const first = records[at];
  const comment = records[at - 1];
  const rest = records.filter((record, i) => i > at && !isComment(record));
  if (first === undefined) return [];
  if (!isNumbers(first) || comment?.cells.length !== first.cells.length) return [first, ...rest];
  const [name = "", ...others] = comment.cells;
  return [{ ...comment, cells: [name.replace(/^#+\s*/, ""), ...others] }, first, ...rest];
}

/** Whether a record has numbers only. */
const isNumbers = ({ cells }: CsvRecord): boolean =>
  cells.every((cell) => cell === "" || Number.isFinite(Number(cell)));

/** The line of dashes below the heading of a table in Markdown. */
const isRule = ({ cells }: CsvRecord): boolean => cells.every((cell) => /^(?::?-{2,}:?)?$/.test(cell));

/** Lines that end with a carriage return alone, as spreadsheets for the Macintosh write them, with line feeds. */
const withLineFeeds = (text: string): string => (text.includes("\n") ? text : text.replaceAll("\r", "\n"));

/** The first line that is no comment and not empty. */
const firstLine = (source: string): string =>
  source.split(/\r?\n/).find((line) => line.trim() !== "" && !line.startsWith("#")) ?? "";

/** A table whose columns are parted by spaces alone, as NumPy writes it, with tabs instead; else the text itself. */
function withTabs(text: string): string {
  const heading = firstLine(text).trim();
  if (/[,;\t|"]/.test(heading) || !/\S\s+\S/.test(heading)) return text;
  return text
    .replaceAll(/^#[ ]+/gm, "#")
    .replaceAll(/^[ ]+|[ ]+$/gm, "")
    .replaceAll(/[ ]+/g, "\t");
}

/** The separator that the first line says (`sep=;`, as spreadsheets write it), or that the heading has most of. */
function separatorOf(source: string): string {
  const [, stated] = /^sep=(.)\r?\n/.exec(source) ?? [];
  if (stated !== undefined) return stated;
  const heading = firstLine(source);
  return [",", ";", "\t", "|"].reduce((best, next) =>
    heading.split(next).length > heading.split(best).length ? next : best,
  );
}

/** Records that have at least one cell with text. */
function csvRecords(text: string, path: string): CsvRecord[] {
  const separator = separatorOf(text);
  const source = text.replace(/^sep=.\r?\n/, "");
  const records: CsvRecord[] = [];
  let line = source === text ? 1 : 2;
  let start = line;
  let cells: string[] = [];
  let cell = "";
  let isQuoted = false;
  const endCell = (): void => {
    cells.push(cell.trim());
    cell = "";
  };
  const endRecord = (): void => {
    endCell();
    if (cells.some((value) => value !== "")) records.push({ line: start, cells });
    cells = [];
    start = line;
  };
  for (let i = 0; i < source.length; i++) {
    const character = elementAt(source, i);
    if (character === "#" && cells.length === 0 && cell === "" && !isQuoted) {
      // A comment is a record of its own, whatever quotes it holds.
      const end = source.indexOf("\n", i);
      const comment = source.slice(i, end === -1 ? undefined : end);
      records.push({ line: start, cells: comment.split(separator).map((part) => part.trim()) });
      if (end === -1) break;
      i = end;
      line += 1;
      start = line;
      continue;
    }
    if (character === "\n") line += 1;
    if (isQuoted) {
      if (character !== '"') cell += character;
      else if (source[i + 1] === '"') {
        cell += '"';
        i += 1;
      } else isQuoted = false;
    } else if (character === '"' && cell.trim() === "") {
      isQuoted = true;
      cell = "";
    } else if (character === separator) endCell();
    else if (character === "\n") endRecord();
    else if (character !== "\r") cell += character;
  }
  if (isQuoted) throw inputError("a quoted cell is not closed", { where: `${path}:${start}` });
  if (cell !== "" || cells.length > 0) endRecord();
  return records;
}
