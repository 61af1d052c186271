/** Points of a law from a table or a folder of runs, with every row that was left out and why. */
import { at as elementAt, entryOf, valueAt } from "../../base/at.js";
import { stat } from "node:fs/promises";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { inputName, isStandardInput } from "../../files/io/streams.js";
import { columnsOfRuns } from "../fitting/findings.js";
import { outOfRange, type Column, type Law, type Points } from "../forms/types.js";
import { headerList, headersOf, readColumn, columnSource, type Cells, type ColumnSource } from "./columns.js";
import { isMissing, numberOf, provenSign, type DecimalSign } from "./numbers.js";
import { readRuns } from "./runs.js";
import type { Table } from "./cells.js";
import { readTable } from "./table.js";

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
  /** Parameters that a token uses, by point, where the table has a column for them; null: it has none. */
  readonly active: Float64Array | null;
  /** Header of the column that names the runs, where several points come from one; null: none. */
  readonly runs: string | null;
  /** Parameters of the law that are called as a column of the file is. */
  readonly namesakes: readonly string[];
}

/** How a table is read: which columns, and which rows. */
export interface ReadOptions {
  readonly mapping: ReadonlyMap<string, string>;
  /** Header of the column that names a point's run; "none": points are independent, whatever columns there are. */
  readonly cluster?: string | undefined;
  /** Points with a larger loss are left out. */
  readonly maxLoss?: number | undefined;
  /** Laws to be compared with, whose columns are read too. */
  readonly compare?: readonly Law[];
  /** Columns of the law that are read only where the table has them. */
  readonly optional?: readonly string[];
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
  { mapping, cluster, maxLoss, compare = [], optional = [] }: ReadOptions,
): ReadPoints {
  const table: NamedTable = { headers, rows, path, mapping, index: new Map(headers.map((name, i) => [name, i])) };
  const lawColumns = [law, ...compare]
    .flatMap(({ columns }) => columns)
    .filter(({ name }, i, all) => all.findIndex((other) => other.name === name) === i)
    .filter(({ name }) => !optional.includes(name) || columnSource(name, headers, mapping) !== null);
  const columnNames = lawColumns.map(({ name }) => name);
  const { values, texts, stated, unreadable, decimal } = readColumns(table, law, lawColumns);
  const group = law.groups === undefined ? undefined : groupColumn(law.groups, table, lines);
  if (cluster !== undefined && cluster !== "none" && !table.index.has(cluster))
    throw inputError(`there is no column ${cluster}`, {
      where: "--cluster",
      hint: `columns of the file: ${headerList(headers)}; none takes all points as independent`,
    });
  const reasons = rows.map((_, row) => {
    const groupColumns = law.groups?.find(({ name }) => name === group?.[row])?.columns;
    const needed = lawColumns.filter(({ name }) => (groupColumns ?? columnNames).includes(name));
    return whyNot(needed, values, row, { maxLoss, unreadable });
  });
  requireReadable(unreadable, rows.length, path, lines);
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
  const columns = Object.fromEntries(columnNames.map((name) => [name, Float64Array.from(take(valueAt(values, name)))]));
  const runs = cluster === "none" ? null : (cluster ?? runsColumn(table, columns, usable));
  return {
    points: {
      n: usable.length,
      columns,
      loss,
      ...(runs !== null && { cluster: take(cellsOf(runs, table)) }),
      ...(group !== undefined && { group: take(group) }),
    },
    runs,
    namesakes: law.parameters.flatMap(({ name }) => (table.index.has(name) ? [name] : [])),
    active: table.index.has("active")
      ? Float64Array.from(take(cellsOf("active", table)), (text) => numberOf(text, decimal))
      : null,
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
  readonly unreadable: Unreadable;
  readonly decimal: DecimalSign;
}

/** Cells that hold something which is no number, by row and then by the law's column that needs them. */
type Unreadable = ReadonlyMap<number, ReadonlyMap<string, string>>;

/** Reads the law's columns and the losses. Throws inputError for a column that is not there. */
function readColumns(table: NamedTable, law: Law, lawColumns: readonly Column[]): NumberColumns {
  const { headers, rows, path, mapping, index } = table;
  const cell = (header: string, row: number): string => elementAt(rows, row)[index.get(header) ?? -1] ?? "";
  const names = [...lawColumns.map(({ name }) => name), "loss"];
  const mappable = law.groups === undefined ? names : [...names, "group"];
  // The user may map others too, as steps towards a column of the law (D=C/(6*N)), but only those written before it.
  const helpers = [...mapping.keys()].filter((name) => !mappable.includes(name));
  const sources = [...helpers, ...names].map((name): ColumnSource => {
    const source = columnSource(name, headers, mapping);
    if (source !== null) return source;
    const meaning = lawColumns.find((column) => column.name === name)?.meaning ?? "loss in nats per token";
    throw inputError(`no column for ${name} (${meaning})`, { where: path, hint: hintFor(name, headers) });
  });
  const decimal = decimalSign(sources, table, cell);
  const cells: Cells = { headers, rows: rows.length, decimal, cell };
  const values: Record<string, Float64Array> = {};
  const unreadable = new Map<number, Map<string, string>>();
  for (const source of sources) {
    values[source.name] = readColumn(source, cells, values);
    for (const header of headersOf(source, headers))
      for (const row of rows.keys()) {
        const text = cell(header, row);
        if (isMissing(text) || !Number.isNaN(numberOf(text, decimal))) continue;
        const own = unreadable.get(row) ?? new Map<string, string>();
        unreadable.set(row, own.set(source.name, `${header} is "${text}", which is no number`));
      }
  }
  return {
    values,
    decimal,
    unreadable,
    texts: Object.fromEntries(sources.map(({ name, text }) => [name, text])),
    stated: sources.filter((source) => source.stated).map(({ name }) => name),
  };
}

/**
 * The decimal sign of a table: what its cells prove. Without proof `3,210` is a decimal number as a loss and else a
 * count
 * in thousands. Throws inputError where cells prove both.
 */
function decimalSign(
  sources: readonly ColumnSource[],
  { headers, rows, path }: NamedTable,
  cell: (header: string, row: number) => string,
): DecimalSign {
  const proofs = new Map<DecimalSign, string>();
  let isLossWithComma = false;
  for (const source of sources)
    for (const header of headersOf(source, headers))
      for (const row of rows.keys()) {
        const text = cell(header, row);
        const sign = provenSign(text);
        if (sign !== null && !proofs.has(sign)) proofs.set(sign, `${header} is "${text}" in row ${row + 1}`);
        if (source.name === "loss" && /^\d,\d{3}$/.test(text.trim())) isLossWithComma = true;
      }
  const [point, comma] = [proofs.get("."), proofs.get(",")];
  if (point !== undefined && comma !== undefined)
    throw inputError(`numbers have a decimal point and a decimal comma: ${point}, ${comma}`, {
      where: path,
      hint: "write them in one way",
    });
  if (point !== undefined) return ".";
  return comma !== undefined || isLossWithComma ? "," : ".";
}

/** A table of which this part cannot be read is refused: what is wrong with it is not a matter of single rows. */
const mostUnreadable = 0.2;

function requireReadable(unreadable: Unreadable, rows: number, path: string, lines: readonly number[]): void {
  if (unreadable.size <= mostUnreadable * rows) return;
  const [[row, reasons]] = [...unreadable] as [[number, ReadonlyMap<string, string>]];
  throw inputError(`${[...reasons.values()][0] ?? "a cell"} (${unreadable.size} of ${rows} rows are like it)`, {
    where: `${path}:${elementAt(lines, row)}`,
    hint:
      "numbers can be written as 7B, 1.5e9, 1,000, 1 000 or 3,21; correct the cells, or map " +
      "another column (--columns)",
  });
}

/** What to do about a column that is not there. */
function hintFor(name: string, headers: readonly string[]): string {
  const list = `columns of the file: ${headerList(headers)}`;
  const perplexity = headers.find((header) => /(?:^|[^a-z])ppl(?:[^a-z]|$)|perplexity/i.test(header));
  if (name === "loss" && perplexity !== undefined)
    return `a loss is the logarithm of a perplexity: --columns "loss=ln(${perplexity})"; ${list}`;
  const steps = headers.find((header) => ["samples", "iteration", "step", "Step"].includes(header));
  if (["D", "D2"].includes(name) && steps !== undefined)
    return (
      `say how many tokens ${steps} counts: --columns ${name}=${steps}*TOKENS, as in ` +
      `${name}=${steps}*4096; ${list}`
    );
  if (name === "N") return `name it, or write the number: --columns N=COLUMN or N=1.3e9; ${list}`;
  return `name it: --columns ${name}=COLUMN; ${list}`;
}

/** Headers that name a point's run. */
const runHeaders = ["run", "run_id", "run id", "run_name", "run name", "name", "experiment"];

/**
 * The column that names runs, where nobody said which: one whose points agree in everything but their tokens, as
 * several
 * checkpoints of one run do. Null where there is none.
 */
function runsColumn(
  table: NamedTable,
  columns: Readonly<Record<string, Float64Array>>,
  usable: readonly number[],
): string | null {
  const same = columnsOfRuns(Object.keys(columns));
  if (same === null) return null;
  const found = table.headers.find((header) => {
    if (!runHeaders.includes(header.toLowerCase())) return false;
    const names = cellsOf(header, table);
    const firsts = new Map<string, number>();
    const areRuns = usable.every((row, i) => {
      const first = firsts.get(elementAt(names, row)) ?? i;
      firsts.set(elementAt(names, row), first);
      return same.every((name) => Object.is(columns[name]?.[first], columns[name]?.[i]));
    });
    return areRuns && firsts.size > 1 && firsts.size < usable.length;
  });
  return found ?? null;
}

/** Groups by row. Throws inputError naming those that the law does not know. */
function groupColumn(groups: NonNullable<Law["groups"]>, table: NamedTable, lines: readonly number[]): string[] {
  const names = groups.map(({ name }) => name);
  const cells = textColumn("group", table).map((text) => names.find((name) => name === text.toLowerCase()) ?? text);
  const unknown = new Map<string, number[]>();
  cells.forEach((text, row) => {
    if (!names.includes(text)) unknown.set(text, [...(unknown.get(text) ?? []), elementAt(lines, row)]);
  });
  if (unknown.size === 0) return cells;
  const list = [...unknown].map(([text, where]) => `"${text}" (${where.length} rows, first on line ${where[0]})`);
  throw inputError(`unknown group${unknown.size === 1 ? "" : "s"} ${list.slice(0, 5).join(", ")}`, {
    where: table.path,
    hint: `groups are ${names.join(", ")}; rename them, or leave those rows out`,
  });
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

interface RowLimits {
  readonly maxLoss: number | undefined;
  readonly unreadable: Unreadable;
}

/** Why a row cannot be a point; null: it can. `columns` are those that its prediction needs. */
function whyNot(
  columns: readonly Column[],
  values: Readonly<Record<string, Float64Array>>,
  row: number,
  { maxLoss, unreadable }: RowLimits,
): string | null {
  for (const name of [...columns.map((column) => column.name), "loss"]) {
    const value = elementAt(valueAt(values, name), row);
    if (Number.isNaN(value)) return unreadable.get(row)?.get(name) ?? `${name} is missing`;
    if (!Number.isFinite(value)) return `${name} is infinite`;
    const column = columns.find((one) => one.name === name);
    if (column !== undefined && outOfRange(column, value) !== null) return `${name} is ${value}`;
  }
  if (maxLoss !== undefined && elementAt(valueAt(values, "loss"), row) > maxLoss) return `loss is above ${maxLoss}`;
  return null;
}
