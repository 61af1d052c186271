/**
 * Numbers and tables as text for people. Decimal units (1 GB = 10^9 bytes), a space before every unit, commas between
 * thousands; a number that is not finite prints as "n/a", because result files may hold the losses of a run that
 * diverged.
 */
import { largestOf } from "./extremes.js";
import { visibleLine } from "./shown.js";
import { beginning, displayWidth, padded } from "./width.js";

/** What stands in place of a number that is not finite, or that there is none. */
export const notAvailable = "n/a";

/**
 * At least `digits` significant digits, integers whole, an exponent below 1e-4 and from 1e15: 0.0123, 1.23, 1234,
 * 1.20e-6.
 */
export function significant(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return notAvailable;
  if (value === 0) return "0";
  const size = Math.abs(Number(value.toPrecision(digits)));
  if (size < 1e-4 || size >= 1e15) return value.toExponential(digits - 1).replace("e+", "e");
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(decimals);
}

/** A number with `decimals` digits after the point: 3.412. */
export function fixed(value: number, decimals = 3): string {
  return Number.isFinite(value) ? value.toFixed(decimals) : notAvailable;
}

/** A number rounded to an integer, with commas between thousands: 3,724. */
export function grouped(value: number): string {
  if (!Number.isFinite(value)) return notAvailable;
  const digits = Math.abs(Math.round(value)).toString();
  const sign = Math.round(value) < 0 ? "-" : "";
  return sign + digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

/** Scales to the largest unit that leaves at least 1, after rounding: 999,999 is 1.00M and not 1000K. */
function scaled(value: number, units: readonly string[], digits: number, gap: string): string {
  if (!Number.isFinite(value)) return notAvailable;
  let rest = value;
  let unit = 0;
  while (unit < units.length - 1 && Math.abs(Number(rest.toPrecision(Math.max(digits, 3)))) >= 1000) {
    rest /= 1000;
    unit += 1;
  }
  const number = unit === 0 && Number.isInteger(rest) ? String(rest) : significant(rest, digits);
  return units[unit] === "" ? number : `${number}${gap}${units[unit]}`;
}

/** A count for people: 512, 12.3K, 1.23M, 4.56B, 7.89T. */
export function compact(value: number, digits = 3): string {
  return scaled(value, ["", "K", "M", "B", "T"], digits, "");
}

/** An amount of bytes in decimal units: 4.6 GB. */
export function bytes(value: number, digits = 2): string {
  return scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"], digits, " ");
}

/** An amount of arithmetic, not a speed: 1.23 PFLOP. */
export function flops(value: number, digits = 3): string {
  return scaled(value, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP"], digits, " ");
}

/** A speed, below 100 with two significant digits: 3,724 tok/s. */
export function rate(perSecond: number, unit = "tok"): string {
  if (!Number.isFinite(perSecond)) return notAvailable;
  return `${perSecond >= 100 ? grouped(perSecond) : significant(perSecond, 2)} ${unit}/s`;
}

/** A time of so many seconds in two units at most: 0.42 s, 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return notAvailable;
  if (seconds < 9.95) return `${significant(seconds, 2)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  const hours = Math.round(seconds / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A fraction as a percentage: 0.0153 is "1.5 %". */
export function percent(fraction: number, digits = 2): string {
  return Number.isFinite(fraction) ? `${significant(100 * fraction, digits)} %` : notAvailable;
}

/** `3.412 ± 0.007`, where ± is the largest distance of a value from the mean; one value has no ±. */
export function meanWithSpread(values: readonly number[], decimals = 3): string {
  const finite = values.filter((value) => Number.isFinite(value));
  if (finite.length === 0) return notAvailable;
  const mean = finite.reduce((sum, value) => sum + value, 0) / finite.length;
  if (finite.length === 1) return fixed(mean, decimals);
  const distance = largestOf(finite.map((value) => Math.abs(value - mean)));
  return `${fixed(mean, decimals)} ± ${fixed(distance, decimals)}`;
}

/**
 * A line broken into lines of at most `width` columns. The first keeps its indentation, the others get two columns
 * more. Words that are too long are cut, or kept whole (`longWords`), so that a path can still be copied.
 */
export function folded(line: string, width: number, longWords: "cut" | "keep" = "cut"): string[] {
  const indent = " ".repeat(line.search(/[^ ]|$/));
  const parts = wrap(line.slice(indent.length), width - indent.length - 2, longWords);
  return parts.map((part, i) => (i === 0 ? `${indent}${part}` : `${indent}  ${part}`));
}

/** `label  text` with the text from column `width` on, continued below itself, no line wider than `columns`. */
export function labelled(label: string, text: string, width: number, columns: number): string[] {
  return wrap(text, columns - width).map((part, i) => padded(i === 0 ? visibleLine(label) : "", width) + part);
}

/**
 * Breaks `text`, made visible first, at spaces into lines of at most `width` columns. Words that are longer than a line
 * are cut, or kept whole (`longWords`).
 */
export function wrap(text: string, width: number, longWords: "cut" | "keep" = "cut"): readonly string[] {
  const lines: string[] = [];
  const words = visibleLine(text).split(" ");
  let line = "";
  let columns = 0;
  for (const word of longWords === "cut" ? words.flatMap((word) => cutWord(word, Math.max(1, width))) : words) {
    const size = displayWidth(word);
    if (line === "") [line, columns] = [word, size];
    else if (columns + 1 + size <= width) [line, columns] = [`${line} ${word}`, columns + 1 + size];
    else {
      lines.push(line.trimEnd());
      [line, columns] = [word, size];
    }
  }
  lines.push(line);
  return lines;
}

/** A word cut into parts of at most `width` columns, behind one of its `seams` where a part has one. */
function cutWord(word: string, width: number): readonly string[] {
  const parts: string[] = [];
  let rest = word;
  while (displayWidth(rest) > width) {
    const most = beginning(rest, width);
    const whole = most.split(seams).slice(0, -1).join("");
    const part = whole === "" ? most : whole;
    parts.push(part);
    rest = rest.slice(part.length);
  }
  return rest === "" ? parts : [...parts, rest];
}

/** The side of its column on which a cell's text stands. */
export type Alignment = "left" | "right";
/** Rows of cells, or of a cell's lines. */
type Rows = readonly (readonly string[])[];

/** Columns of the terminal between two columns of a table. */
const columnGap = 2;
/** Most characters of one cell: an endless shape or name must not fill a screen. */
const longestCell = 1000;
/** Places in a name, behind a separator, at which it may be broken. */
const seams = /(?<=[/._\-,:+\\ ])/;
/** A column of names is made as narrow as the longest part between two seams, and where that part is endless, this. */
const widestPart = 24;

/** A column of a table on its way to a width that fits. */
interface FittedColumn {
  readonly alignment: Alignment;
  /** No narrower: the widest part that must not be broken. */
  readonly least: number;
  width: number;
}

/**
 * Rows as aligned columns, no line wider than `maxWidth`: the first row is the heading, in which `\n` breaks a cell,
 * and gets a rule below it. Text that does not fit is wrapped within its cell, left-aligned columns first, so nothing
 * is cut off. Where numbers would have to be cut, each row is a list of its cells.
 */
export function table(rows: Rows, alignment: readonly Alignment[], maxWidth = 80): readonly string[] {
  const linesOf = (text: string, index: number): readonly string[] => (index === 0 ? text.split("\n") : [text]);
  const cells = rows.map((row, index) =>
    alignment.map((_, column) => linesOf(row[column] ?? "", index).map((line) => visibleLine(line, longestCell))),
  );
  const columns = fittedColumns(cells, alignment, maxWidth);
  if (columns === null) return rowsAsLists(rows, maxWidth);
  const [heading, ...others] = cells;
  if (heading === undefined) return [];
  const rule = columns.map(({ width }) => "-".repeat(width)).join(" ".repeat(columnGap));
  return [...rowLines(heading, columns), rule, ...others.flatMap((row) => rowLines(row, columns))];
}

/** One row of a table: each cell wrapped to its column's width. */
function rowLines(row: Rows, columns: readonly FittedColumn[]): string[] {
  const blocks = columns.map(({ width }, column) => (row[column] ?? []).flatMap((line) => wrap(line, width)));
  const height = Math.max(...blocks.map((block) => block.length));
  return Array.from({ length: height }, (_, line) =>
    columns
      .map(({ width, alignment }, column) => padded(blocks[column]?.[line] ?? "", width, alignment))
      .join(" ".repeat(columnGap))
      .trimEnd(),
  );
}

/**
 * The columns with their natural widths, narrowed one column of the terminal at a time where the table is too wide;
 * null where it cannot fit.
 */
function fittedColumns(
  cells: readonly Rows[],
  alignment: readonly Alignment[],
  maxWidth: number,
): FittedColumn[] | null {
  const widest = (column: number, parts: (line: string) => readonly string[]): number => {
    let width = 1;
    for (const row of cells)
      for (const part of (row[column] ?? []).flatMap(parts)) width = Math.max(width, displayWidth(part));
    return width;
  };
  const widths = alignment.map((_, column) => widest(column, (line) => [line]));
  let excess = widths.reduce((sum, width) => sum + width, 0) + columnGap * (widths.length - 1) - maxWidth;
  const leastOf = (side: Alignment, column: number): number => {
    if (side === "right") return widest(column, (line) => line.split(" "));
    const longest = widest(column, (line) => line.split(seams));
    return Math.min(widestPart, longest);
  };
  const columns = widths.map((width, column): FittedColumn => {
    const side = alignment[column] ?? "left";
    return { alignment: side, width, least: excess <= 0 ? width : leastOf(side, column) };
  });
  for (; excess > 0; excess--) {
    const column = widestColumn(columns, "left") ?? widestColumn(columns, "right");
    if (column === null) return null;
    column.width -= 1;
  }
  return columns;
}

/** The first of the widest columns of one side that can still be made narrower. */
function widestColumn(columns: readonly FittedColumn[], side: Alignment): FittedColumn | null {
  let widest: FittedColumn | null = null;
  for (const column of columns) {
    if (column.alignment !== side || column.width <= column.least) continue;
    if (widest === null || column.width > widest.width) widest = column;
  }
  return widest;
}

/** Each row's first cell, and below it the others with their headings. */
function rowsAsLists([heading = [], ...rows]: Rows, maxWidth: number): string[] {
  const names = heading.map((name) => name.trim().replaceAll("\n", " "));
  const width = Math.max(...names.slice(1).map(displayWidth)) + 2 * columnGap;
  return rows.flatMap((row) => [
    ...wrap(row[0] ?? "", maxWidth),
    ...row.slice(1).flatMap((cell, i) => labelled(`  ${names[i + 1] ?? ""}`, cell, width, maxWidth)),
  ]);
}
