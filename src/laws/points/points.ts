/** Points of a law from a table or a folder of runs, with every row that was left out and why. */
import { at as elementAt, entryOf, valueAt } from "../../base/at.js";
import { stat } from "node:fs/promises";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { inputName, isStandardInput } from "../../files/io/streams.js";
import type { Column, Law, Points } from "../forms/types.js";
import { headerList, readColumn, columnSource } from "./columns.js";
import { readRuns } from "./runs.js";
import { readTable, type Table } from "./table.js";

/** A row that was left out. */
export interface Dropped {
  /** Line of the file, from 1. */
  readonly line: number;
  readonly reason: string;
}

/** Points of a law, and how they were read. */
export interface ReadPoints {
  readonly points: Points;
  /** Line of the file of each point, from 1. */
  readonly lines: readonly number[];
  /** Column of the law -> what it was read from. */
  readonly columns: Readonly<Record<string, string>>;
  /** Columns whose unit the user stated. */
  readonly stated: readonly string[];
  readonly dropped: readonly Dropped[];
  /** Rows of the file. */
  readonly rows: number;
}

/** How a table is read: which columns, and which rows. */
export interface ReadOptions {
  readonly mapping: ReadonlyMap<string, string>;
  /** Header of the column that names a point's run. */
  readonly cluster?: string | undefined;
  /** Points with a larger loss are left out. */
  readonly maxLoss?: number | undefined;
  /** Laws to be compared with, whose columns are read too. */
  readonly compare?: readonly Law[];
}

/**
 * Reads the columns a law needs, of a file, a folder of runs, a pipe, or ("-") standard input.
 * Rows with a missing value, or a loss that is no number, are left out and listed; anything that makes
 * the file as a whole suspect (a column that is not there, a negative loss) is refused. Throws inputError.
 */
export async function readPoints(path: string, law: Law, options: ReadOptions): Promise<ReadPoints> {
  const isFolder = !isStandardInput(path) && (await withFsErrors(path, "open", () => stat(path))).isDirectory();
  const table = isFolder ? await readRuns(path, law) : await readTable(path);
  return pointsFrom(table, inputName(path), law, options);
}

function pointsFrom(
  { headers, rows, lines }: Table,
  path: string,
  law: Law,
  { mapping, cluster, maxLoss, compare = [] }: ReadOptions,
): ReadPoints {
  const table: NamedTable = { headers, rows, path, mapping, index: new Map(headers.map((name, i) => [name, i])) };
  const lawColumns = [law, ...compare]
    .flatMap(({ columns }) => columns)
    .filter(({ name }, i, all) => all.findIndex((other) => other.name === name) === i);
  const columnNames = lawColumns.map(({ name }) => name);
  const { values, texts, stated } = readColumns(table, law, lawColumns);
  const group = law.groups === undefined ? undefined : textColumn("group", table);
  if (cluster !== undefined && !table.index.has(cluster))
    throw inputError(`there is no column ${cluster}`, {
      where: "--cluster",
      hint: `columns of the file: ${headerList(headers)}`,
    });
  const reasons = rows.map((_, row) => {
    const groupColumns = law.groups?.find(({ name }) => name === group?.[row])?.columns;
    return whyNot(groupColumns ?? columnNames, values, row, maxLoss);
  });
  const usable = [...rows.keys()].filter((row) => reasons[row] === null);
  const dropped = reasons.flatMap((reason, row): Dropped[] =>
    reason === null ? [] : [{ line: elementAt(lines, row), reason }],
  );
  if (usable.length === 0) {
    const [first] = dropped;
    throw inputError(`none of ${rows.length} rows can be used`, {
      where: path,
      ...(first && { hint: `line ${first.line}: ${first.reason}` }),
    });
  }
  const take = <T>(column: ArrayLike<T>): T[] => usable.map((row) => elementAt(column, row));
  const loss = Float64Array.from(take(valueAt(values, "loss")));
  const negative = loss.findIndex((value) => value <= 0);
  if (negative >= 0) {
    throw inputError(`loss is ${loss[negative]}`, {
      where: `${path}:${take(lines)[negative]}`,
      hint: "a cross entropy is positive; is the column a logarithm or a difference?",
    });
  }
  return {
    points: {
      n: usable.length,
      columns: Object.fromEntries(columnNames.map((name) => [name, Float64Array.from(take(valueAt(values, name)))])),
      loss,
      ...(cluster !== undefined && { cluster: take(cellsOf(cluster, table)) }),
      ...(group !== undefined && { group: take(group) }),
    },
    lines: take(lines),
    columns: Object.fromEntries([...columnNames, "loss"].map((name) => [name, valueAt(texts, name)])),
    stated,
    dropped,
    rows: rows.length,
  };
}

/** A table with what the user said about its columns. */
interface NamedTable {
  readonly headers: readonly string[];
  readonly rows: Table["rows"];
  /** File or other origin, for errors. */
  readonly path: string;
  /** Column of the law -> header or formula, as the user wrote it. */
  readonly mapping: ReadonlyMap<string, string>;
  /** Position of each header. */
  readonly index: ReadonlyMap<string, number>;
}

/** Columns of numbers by name: their values by row, what each was read from, and those whose unit the user stated. */
interface NumberColumns {
  readonly values: Readonly<Record<string, Float64Array>>;
  readonly texts: Readonly<Record<string, string>>;
  readonly stated: readonly string[];
}

/** Reads the law's columns and the losses. Throws inputError for a column that is not there. */
function readColumns(table: NamedTable, law: Law, lawColumns: readonly Column[]): NumberColumns {
  const { headers, rows, path, mapping, index } = table;
  const cell = (header: string, row: number): string | undefined => elementAt(rows, row)[index.get(header) ?? -1];
  const names = [...lawColumns.map(({ name }) => name), "loss"];
  const mappable = law.groups === undefined ? names : [...names, "group"];
  // The user may map others too, as steps towards a column of the law (D=C/(6*N)), but only those written before it.
  const helpers = [...mapping.keys()].filter((name) => !mappable.includes(name));
  const values: Record<string, Float64Array> = {};
  const texts: Record<string, string> = {};
  const stated: string[] = [];
  for (const name of [...helpers, ...names]) {
    const source = columnSource(name, headers, mapping);
    if (source === null) {
      const meaning = lawColumns.find((column) => column.name === name)?.meaning ?? "loss in nats per token";
      throw inputError(`no column for ${name} (${meaning})`, { where: path, hint: hintFor(name, headers) });
    }
    values[name] = readColumn(source, cell, values, rows.length, headers);
    texts[name] = source.text;
    if (source.stated) stated.push(name);
  }
  return { values, texts, stated };
}

function hintFor(name: string, headers: readonly string[]): string {
  return `name it: --columns ${name}=COLUMN; columns of the file: ${headerList(headers)}`;
}

/** Cells by row of the column that stands for `name`. Throws inputError where there is none. */
function textColumn(name: string, table: NamedTable): string[] {
  const { headers, mapping, path, index } = table;
  const header = mapping.get(name) ?? columnSource(name, headers, new Map())?.text;
  if (header === undefined || !index.has(header))
    throw inputError(`no column for ${name}`, { where: path, hint: hintFor(name, headers) });
  return cellsOf(header, table);
}

/** Cells by row under a header. */
function cellsOf(header: string, { rows, index }: NamedTable): string[] {
  const column = entryOf(index, header);
  return rows.map((cells) => elementAt(cells, column));
}

/** Why a row cannot be a point; null: it can. `columns` are those that its prediction needs. */
function whyNot(
  columns: readonly string[],
  values: Readonly<Record<string, Float64Array>>,
  row: number,
  maxLoss: number | undefined,
): string | null {
  for (const name of [...columns, "loss"]) {
    const value = elementAt(valueAt(values, name), row);
    if (Number.isNaN(value)) return `${name} is missing or no number`;
    if (!Number.isFinite(value)) return `${name} is infinite`;
    if (name !== "loss" && name !== "S" && value <= 0) return `${name} is ${value}`;
  }
  if (maxLoss !== undefined && elementAt(valueAt(values, "loss"), row) > maxLoss) return `loss is above ${maxLoss}`;
  return null;
}
