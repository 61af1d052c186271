/**
 * Numbers and tables as text for people. Decimal units (1 GB = 10^9 bytes), a space before every unit, commas between
 * thousands; a number that is not finite prints as "n/a", because result files may hold the losses of a run that diverged.
 */

import { largest } from "./extremes.js";

export const notAvailable = "n/a";

/** At least `digits` significant digits, integers whole, an exponent below 1e-4 and from 1e15: 0.0123, 1.23, 1234, 1.20e-6. */
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
  const distance = largest(finite.map((value) => Math.abs(value - mean)));
  return `${fixed(mean, decimals)} ± ${fixed(distance, decimals)}`;
}

/** A line broken to lines of at most `width` characters, those after the first indented by two. */
export function folded(line: string, width: number): string[] {
  return wrap(line, width - 2).map((part, i) => (i === 0 ? part : `  ${part}`));
}

/** Breaks `text` at spaces into lines of at most `width` characters; words longer than a line are cut. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (const word of paragraph.split(" ").flatMap((word) => cutWord(word, width))) {
      if (line === "") line = word;
      else if (line.length + 1 + word.length <= width) line += ` ${word}`;
      else {
        lines.push(line);
        line = word;
      }
    }
    lines.push(line);
  }
  return lines;
}

function cutWord(word: string, width: number): readonly string[] {
  if (word.length <= width) return [word];
  const parts: string[] = [];
  for (let at = 0; at < word.length; at += width) parts.push(word.slice(at, at + width));
  return parts;
}

export type Alignment = "left" | "right";

const columnGap = 2;
const narrowestColumn = 5;

/**
 * Rows as aligned columns, no line wider than `maxWidth`: the first row is the heading and gets a rule below it. Text that
 * does not fit is wrapped within its cell, left-aligned columns first, so nothing is cut off.
 */
export function table(rows: readonly (readonly string[])[], alignment: readonly Alignment[], maxWidth = 80): string {
  const widths = fitWidths(rows, alignment, maxWidth);
  const lines: string[] = [];
  rows.forEach((row, index) => {
    const cells = widths.map((width, column) => wrap(row[column] ?? "", width));
    const height = Math.max(...cells.map((cell) => cell.length));
    for (let line = 0; line < height; line++) {
      const parts = cells.map((cell, column) => {
        const text = cell[line] ?? "";
        return alignment[column] === "right" ? text.padStart(widths[column]!) : text.padEnd(widths[column]!);
      });
      lines.push(parts.join(" ".repeat(columnGap)).trimEnd());
    }
    if (index === 0) lines.push(widths.map((width) => "-".repeat(width)).join(" ".repeat(columnGap)));
  });
  return lines.join("\n");
}

/** Natural column widths, narrowed one character at a time where the table is too wide. */
function fitWidths(rows: readonly (readonly string[])[], alignment: readonly Alignment[], maxWidth: number): number[] {
  const widths = alignment.map((_, column) =>
    rows.reduce((most, row) => Math.max(most, largest((row[column] ?? "").split("\n").map((line) => line.length))), 1),
  );
  const total = (): number => widths.reduce((sum, width) => sum + width, 0) + columnGap * (widths.length - 1);
  while (total() > maxWidth) {
    const column = widestColumn(widths, alignment, "left") ?? widestColumn(widths, alignment, "right");
    if (column === null) break;
    widths[column]! -= 1;
  }
  return widths;
}

function widestColumn(widths: readonly number[], alignment: readonly Alignment[], side: Alignment): number | null {
  let widest: number | null = null;
  widths.forEach((width, column) => {
    if (alignment[column] !== side || width <= narrowestColumn) return;
    if (widest === null || width > widths[widest]!) widest = column;
  });
  return widest;
}
