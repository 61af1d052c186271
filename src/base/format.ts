/**
 * Numbers and tables as text for people. Decimal units (1 GB = 10^9 bytes), a space before every unit, commas between
 * thousands; a number that is not finite prints as "n/a", because result files may hold the losses of a run that
 * diverged.
 */
import { visibleLine } from "./shown.js";
import { beginning, displayWidth, padded } from "./width.js";

import { largestOf } from "./extremes.js";

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

/** `decimals` digits after the point: 3.412. */
export function fixed(value: number, decimals = 3): string {
  return Number.isFinite(value) ? value.toFixed(decimals) : notAvailable;
}

/** Rounded to an integer, commas between thousands: 3,724. */
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

/** 4.6 GB, decimal units. */
export function bytes(value: number, digits = 2): string {
  return scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"], digits, " ");
}

/** 1.23 PFLOP: an amount of arithmetic, not a speed. */
export function flops(value: number, digits = 3): string {
  return scaled(value, ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP"], digits, " ");
}

/** 3,724 tok/s; below 100 with two significant digits. */
export function rate(perSecond: number, unit = "tok"): string {
  if (!Number.isFinite(perSecond)) return notAvailable;
  return `${perSecond >= 100 ? grouped(perSecond) : significant(perSecond, 2)} ${unit}/s`;
}

/** 0.42 s, 42 s, 3 min 20 s, 2 h 05 min, 3 d 4 h: two units at most. */
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
 * A line broken to lines of at most `width` columns, indented like the first and those after it by two more.
 * `longWords` that do not fit are cut, or kept as they are, so that a path can still be copied.
 */
export function folded(line: string, width: number, longWords: "cut" | "keep" = "cut"): string[] {
  const indent = /^ */.exec(line)![0];
  const parts = wrap(line.slice(indent.length), width - indent.length - 2, longWords);
  return parts.map((part, i) => (i === 0 ? `${indent}${part}` : `${indent}  ${part}`));
}

/** `label  text` with the text from column `width` on, continued below itself, no line wider than `columns`. */
export function labelled(label: string, text: string, width: number, columns: number): string[] {
  return wrap(text, columns - width).map((part, i) => padded(i === 0 ? visibleLine(label) : "", width) + part);
}

/**
 * Breaks `text` at spaces into lines of at most `width` columns, made visible first; words longer than a line are cut.
 */
export function wrap(text: string, width: number, longWords: "cut" | "keep" = "cut"): readonly string[] {
  const lines: string[] = [];
  const words = visibleLine(text).split(" ");
  let line = "";
  let used = 0;
  for (const word of longWords === "cut" ? words.flatMap((word) => cutWord(word, Math.max(1, width))) : words) {
    const size = displayWidth(word);
    if (line === "") [line, used] = [word, size];
    else if (used + 1 + size <= width) [line, used] = [`${line} ${word}`, used + 1 + size];
    else {
      lines.push(line.trimEnd());
      [line, used] = [word, size];
    }
  }
  lines.push(line);
  return lines;
}

/** Behind one of the signs that names are put together with, where there is one. */
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

export type Alignment = "left" | "right";
type Rows = readonly (readonly string[])[];

const columnGap = 2;
/** Characters of one cell: a shape or a name without end must not fill a screen. */
const mostOfCell = 1000;
/** Signs that names are put together with, behind which they may be broken. */
const seams = /(?<=[/._\-,:+\\ ])/;
/**
 * A column of words is made as narrow as its longest part of a name, and for the sake of one without end no wider than
 * this.
 */
const widestPart = 24;

/**
 * Rows as aligned columns, no line wider than `maxWidth`: the first row is the heading, in which `\n` breaks a cell,
 * and gets a rule below it. Text that does not fit is wrapped within its cell, left-aligned columns first, so nothing
 * is cut off. Where numbers would have to be cut, each row is a list of its cells.
 */
export function table(rows: Rows, alignment: readonly Alignment[], maxWidth = 80): readonly string[] {
  const linesOf = (text: string, index: number): readonly string[] => (index === 0 ? text.split("\n") : [text]);
  const cells = rows.map((row, index) =>
    alignment.map((_, column) => linesOf(row[column] ?? "", index).map((line) => visibleLine(line, mostOfCell))),
  );
  const widths = fitWidths(cells, alignment, maxWidth);
  if (widths === null) return listed(rows, maxWidth);
  const lines: string[] = [];
  cells.forEach((row, index) => {
    const wrapped = row.map((cell, column) => cell.flatMap((line) => wrap(line, widths[column]!)));
    const height = Math.max(...wrapped.map((cell) => cell.length));
    for (let line = 0; line < height; line++) {
      const parts = wrapped.map((cell, column) => padded(cell[line] ?? "", widths[column]!, alignment[column]));
      lines.push(parts.join(" ".repeat(columnGap)).trimEnd());
    }
    if (index === 0) lines.push(widths.map((width) => "-".repeat(width)).join(" ".repeat(columnGap)));
  });
  return lines;
}

/**
 * Natural column widths, narrowed one column of the terminal at a time where the table is too wide; null where it
 * cannot fit.
 */
function fitWidths(cells: readonly Rows[], alignment: readonly Alignment[], maxWidth: number): number[] | null {
  const widest = (column: number, parts: (line: string) => readonly string[]): number => {
    let width = 1;
    for (const row of cells)
      for (const part of row[column]!.flatMap(parts)) width = Math.max(width, displayWidth(part));
    return width;
  };
  const widths = alignment.map((_, column) => widest(column, (line) => [line]));
  let excess = widths.reduce((sum, width) => sum + width, 0) + columnGap * (widths.length - 1) - maxWidth;
  if (excess <= 0) return widths;
  const least = alignment.map((side, column) =>
    side === "left"
      ? Math.min(
          widestPart,
          widest(column, (line) => line.split(seams)),
        )
      : widest(column, (line) => line.split(" ")),
  );
  for (; excess > 0; excess--) {
    const column = widestColumn(widths, least, alignment, "left") ?? widestColumn(widths, least, alignment, "right");
    if (column === null) return null;
    widths[column]! -= 1;
  }
  return widths;
}

function widestColumn(
  widths: readonly number[],
  least: readonly number[],
  alignment: readonly Alignment[],
  side: Alignment,
): number | null {
  let widest: number | null = null;
  widths.forEach((width, column) => {
    if (alignment[column] !== side || width <= least[column]!) return;
    if (widest === null || width > widths[widest]!) widest = column;
  });
  return widest;
}

/** Each row's first cell, and below it the others with their headings. */
function listed([heading = [], ...rows]: Rows, maxWidth: number): string[] {
  const names = heading.map((name) => name.trim().replaceAll("\n", " "));
  const width = Math.max(...names.slice(1).map(displayWidth)) + 2 * columnGap;
  return rows.flatMap((row) => [
    ...wrap(row[0] ?? "", maxWidth),
    ...row.slice(1).flatMap((cell, i) => labelled(`  ${names[i + 1] ?? ""}`, cell, width, maxWidth)),
  ]);
}
