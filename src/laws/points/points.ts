/** Points of a law from a table or a folder of runs, with every row that was left out and why. */
import { at as elementAt, entryOf, valueAt } from "../../base/at.js";
import { stat } from "node:fs/promises";
import { inputError } from "../../base/errors.js";
import { withFsErrors } from "../../files/io/fs-errors.js";
import { inputName, isStandardInput } from "../../files/io/streams.js";
import type { Law, Points } from "../forms/types.js";
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
  const at = new Map(headers.map((name, i) => [name, i]));
  const cell = (header: string, row: number): string | undefined => elementAt(rows, row)[at.get(header) ?? -1];
  const lawColumns = [law, ...compare]
    .flatMap(({ columns }) => columns)
    .filter(({ name }, i, all) => all.findIndex((other) => other.name === name) === i);
  const wanted = [...lawColumns.map(({ name }) => name), "loss"];
  const needsGroup = law.groups !== undefined;
  const allowed = [...wanted, ...(needsGroup ? ["group"] : [])];
  // Others may serve as steps towards a wanted one (D=C/(6*N)), but only those written before it.
  const helpers = [...mapping.keys()].filter((name) => !allowed.includes(name));
  const values: Record<string, Float64Array> = {};
  const texts: Record<string, string> = {};
  const stated: string[] = [];
  for (const name of [...helpers, ...wanted]) {
    const source = columnSource(name, headers, mapping);
    if (source === null) {
      const meaning = lawColumns.find((column) => column.name === name)?.meaning ?? "loss in nats per token";
      throw inputError(`no column for ${name} (${meaning})`, {
        where: path,
        hint: `name it: --columns ${name}=COLUMN; columns of the file: ${headerList(headers)}`,
      });
    }
    values[name] = readColumn(source, cell, values, rows.length, headers);
    texts[name] = source.text;
    if (source.stated) stated.push(name);
  }
  const group = needsGroup ? textColumn("group", headers, mapping, path, rows, at) : undefined;
  if (cluster !== undefined && !at.has(cluster))
    throw inputError(`there is no column ${cluster}`, {
      where: "--cluster",
      hint: `columns of the file: ${headerList(headers)}`,
    });
  const dropped: Dropped[] = [];
  const kept: number[] = [];
  rows.forEach((_, row) => {
    const reason = whyNot(
      law.groups?.find(({ name }) => name === group?.[row])?.columns ?? lawColumns.map(({ name }) => name),
      values,
      row,
      maxLoss,
    );
    if (reason === null) kept.push(row);
    else dropped.push({ line: elementAt(lines, row), reason });
  });
  if (kept.length === 0) {
    const [first] = dropped;
    throw inputError(`none of ${rows.length} rows can be used`, {
      where: path,
      ...(first && { hint: `line ${first.line}: ${first.reason}` }),
    });
  }
  const take = (column: Float64Array): Float64Array => Float64Array.from(kept, (row) => elementAt(column, row));
  for (const row of kept) {
    if (elementAt(valueAt(values, "loss"), row) <= 0) {
      throw inputError(`loss is ${valueAt(values, "loss")[row]}`, {
        where: `${path}:${lines[row]}`,
        hint: "a cross entropy is positive; is the column a logarithm or a difference?",
      });
    }
  }
  return {
    points: {
      n: kept.length,
      columns: Object.fromEntries(lawColumns.map(({ name }) => [name, take(valueAt(values, name))])),
      loss: take(valueAt(values, "loss")),
      ...(cluster !== undefined && {
        cluster: kept.map((row) => elementAt(elementAt(rows, row), entryOf(at, cluster))),
      }),
      ...(group !== undefined && { group: kept.map((row) => elementAt(group, row)) }),
    },
    lines: kept.map((row) => elementAt(lines, row)),
    columns: Object.fromEntries(wanted.map((name) => [name, valueAt(texts, name)])),
    stated,
    dropped,
    rows: rows.length,
  };
}

function textColumn(
  name: string,
  headers: readonly string[],
  mapping: ReadonlyMap<string, string>,
  path: string,
  rows: Table["rows"],
  at: ReadonlyMap<string, number>,
): string[] {
  const header = mapping.get(name) ?? columnSource(name, headers, new Map())?.text;
  if (header === undefined || !at.has(header)) {
    throw inputError(`no column for ${name}`, {
      where: path,
      hint: `name it: --columns ${name}=COLUMN; columns of the file: ${headerList(headers)}`,
    });
  }
  return rows.map((cells) => elementAt(cells, entryOf(at, header)));
}

function whyNot(
  needed: readonly string[],
  values: Readonly<Record<string, Float64Array>>,
  row: number,
  maxLoss: number | undefined,
): string | null {
  for (const name of [...needed, "loss"]) {
    const value = elementAt(valueAt(values, name), row);
    if (Number.isNaN(value)) return `${name} is missing or no number`;
    if (!Number.isFinite(value)) return `${name} is infinite`;
    if (name !== "loss" && name !== "S" && value <= 0) return `${name} is ${value}`;
  }
  if (maxLoss !== undefined && elementAt(valueAt(values, "loss"), row) > maxLoss) return `loss is above ${maxLoss}`;
  return null;
}
