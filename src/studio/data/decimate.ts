/** Curves of many points as few: of every column of pixels its first, lowest, highest and last point. */
import { firstAtLeast } from "../../base/search.js";

/** Which part of a curve is wanted, and in how many columns. */
export interface DecimateOptions {
  /** Ends of x that are shown; left out, the curve's own. */
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly columns: number;
}

/** Points of a curve, in the order of x. */
export interface DecimatedCurve {
  readonly x: number[];
  readonly y: (number | null)[];
}

/**
 * What a line through all points looks like, in at most four points for each column: what a column's pixels cover is
 * from its lowest to its highest point, and lines to its neighbours begin at its last and end at its first. A value
 * that is not finite stands as null, so that the gap is seen. A curve of no more points than that is given as it is;
 * one point beyond each end is kept, so that lines reach the edges. `x` is ascending, `x` and `y` are of one length.
 */
export function decimated(x: ArrayLike<number>, y: ArrayLike<number>, options: DecimateOptions): DecimatedCurve {
  const { columns } = options;
  const length = Math.min(x.length, y.length);
  const from = options.from ?? x[0] ?? 0;
  const to = options.to ?? x[length - 1] ?? 0;
  const start = Math.max(0, firstAtLeast(x, from) - 1);
  let end = Math.min(length, firstAtLeast(x, to) + 1);
  while (end < length && x[end - 1] === x[end] && x[end] === to) end++;
  const result: DecimatedCurve = { x: [], y: [] };
  const keep = (index: number): void => {
    const value = y[index] ?? NaN;
    result.x.push(x[index] ?? NaN);
    result.y.push(Number.isFinite(value) ? value : null);
  };
  if (end - start <= 4 * columns || !(to > from)) {
    for (let i = start; i < end; i++) keep(i);
    return result;
  }
  const width = (to - from) / columns;
  const columnOf = (index: number): number => Math.floor(((x[index] ?? 0) - from) / width);
  for (let i = start; i < end;) {
    const column = columnOf(i);
    let next = i + 1;
    let [lowest, highest, gap] = [i, i, Number.isFinite(y[i] ?? NaN) ? -1 : i];
    for (; next < end && columnOf(next) === column; next++) {
      const value = y[next] ?? NaN;
      if (!Number.isFinite(value)) gap = gap < 0 ? next : gap;
      // A first point that is no number is neither the lowest nor the highest.
      else {
        if (!((y[lowest] ?? NaN) <= value)) lowest = next;
        if (!((y[highest] ?? NaN) >= value)) highest = next;
      }
    }
    const kept = [i, Math.min(lowest, highest), Math.max(lowest, highest), next - 1];
    if (gap >= 0) kept.splice(kept.findLastIndex((index) => index <= gap) + 1, 0, gap);
    kept.forEach((index, at) => {
      if (index !== kept[at - 1]) keep(index);
    });
    i = next;
  }
  return result;
}

/** Powers of ten that are exact. */
const powers = Array.from({ length: 23 }, (_, i) => 10 ** i);

/** A value with so many digits, so that its text is short: finer than any pixel. */
export function shortened(value: number, digits: number): number {
  const places = digits - 1 - Math.floor(Math.log10(Math.abs(value)));
  const power = powers[Math.abs(places)];
  // Zero, and what is very small or very large.
  if (power === undefined) return value === 0 ? 0 : Number(value.toPrecision(digits));
  return places >= 0 ? Math.round(value * power) / power : Math.round(value / power) * power;
}
