/** Charts as plain numbers, and the arithmetic that several of them share. */
import { at } from "../../base/at.js";

/** One chart: dots, lines, or both over one x. */
export interface Chart {
  /** The `id` of its figure in the page. */
  readonly id: string;
  readonly title: string;
  readonly note: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xLog: boolean;
  readonly yLog: boolean;
  readonly series: readonly ChartSeries[];
  /** Height of a dashed horizontal line; null for none. */
  readonly level: number | null;
}

/** One line, or one set of dots. */
export interface ChartSeries {
  readonly label: string;
  /** Index into `armTones`, modulo their number; not used with a `ramp`. */
  readonly tone: number;
  /** Place on the scale of a quantity that has an order, from 0 to 1. */
  readonly ramp?: number;
  /** `cloud`: small faint dots; `mark`: one large dot. */
  readonly kind: "dots" | "line" | "cloud" | "mark";
  readonly x: readonly number[];
  readonly y: readonly number[];
}

/** A number with six significant digits, which is finer than any pixel. */
export const rounded = (value: number): number => Number(value.toPrecision(6));

/** Numbers from `low` to `high` in equal ratios. */
export const spaced = (low: number, high: number, steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => low * (high / low) ** (i / (steps - 1)));

/** The median; of an even number of values the upper one of the two in the middle. NaN where there are none. */
export function middle(values: readonly number[]): number {
  const ascending = [...values].sort((a, b) => a - b);
  return ascending[ascending.length >> 1] ?? NaN;
}

/** At most `most` of the items, evenly spaced. */
export function sample(items: readonly number[], most: number): number[] {
  const step = Math.max(1, items.length / most);
  return Array.from({ length: Math.min(items.length, Math.floor(most)) }, (_, i) => at(items, Math.floor(i * step)));
}

/** The whole numbers below `count`. */
export const indices = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Round numbers between `low` and `high`, about `most` of them, with the decimals that they need. */
export function roundLevels(low: number, high: number, most: number): RoundLevels {
  const decade = Math.floor(Math.log10((high - low) / most));
  const steps = [decade, decade + 1].flatMap((power) => [1, 2, 5].map((lead) => ({ step: lead * 10 ** power, power })));
  const all = steps.map(({ step, power }): RoundLevels => {
    const decimals = Math.max(0, -power);
    const first = Math.ceil(low / step - 1e-9);
    const count = Math.max(0, Math.floor(high / step + 1e-9) - first + 1);
    return {
      decimals,
      levels: Array.from({ length: count }, (_, i) => Number(((first + i) * step).toFixed(decimals))),
    };
  });
  const distance = ({ levels }: RoundLevels): number => Math.abs(levels.length - most);
  return all.reduce((best, next) => (distance(next) < distance(best) ? next : best));
}

/** Levels as they are drawn and named. */
interface RoundLevels {
  readonly levels: readonly number[];
  readonly decimals: number;
}
