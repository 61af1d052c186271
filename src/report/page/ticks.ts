/** How the ticks of axes are placed and written. */
import { compact, significant } from "../../base/format.js";

/** What ticks of a decade begin with, from few to many. */
const tickLeads = [[1, 2, 5], [1, 2, 3, 4, 5, 6, 7, 8, 9], Array.from({ length: 45 }, (_, i) => (10 + 2 * i) / 10)];

/**
 * Logarithmic ticks: 1, 2 and 5 of every decade, only 1 where there are many decades or few of the pixels that the axis
 * is long, and others too where the axis has less than a decade and would have hardly any.
 */
export function logTicks(min: number, max: number, length: number): number[] {
  const perDecade = length / Math.log10(max / min);
  // Between 1 and 2 a name needs 40 pixels; an axis shorter than a decade would have hardly any tick.
  if (max / min > 500 || (perDecade < 133 && max / min > 20)) return ticksAt([1], min, max);
  const found = tickLeads.map((leads) => ticksAt(leads, min, max));
  return found.find((ticks) => ticks.length > 2) ?? found.at(-1)!;
}

function ticksAt(leads: readonly number[], min: number, max: number): number[] {
  const ticks: number[] = [];
  for (let decade = Math.floor(Math.log10(min)); decade <= Math.log10(max); decade++)
    for (const lead of leads) {
      const tick = Number(`${lead}e${decade}`);
      if (tick >= min && tick <= max) ticks.push(tick);
    }
  return ticks;
}

/** A tick with as many decimals as the axis' step has: two for 0.25. */
export function plainTick(value: number, step: number): string {
  if (Math.abs(value) >= 1e5) return withoutZeros(compact(value));
  let decimals = 0;
  while (decimals < 8 && Math.abs(Number(step.toFixed(decimals)) / step - 1) > 1e-6) decimals += 1;
  return decimals > 6 ? value.toPrecision(3) : value.toFixed(decimals);
}

/** `1.50M` as `1.5M`: ticks are round, and their last zeros say nothing. */
export const withoutZeros = (text: string): string =>
  text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

/** The ticks of one axis without the last zeros that all of them have, so that their decimals stay alike. */
export function trimmedTicks(texts: readonly string[]): string[] {
  const zeros = texts.flatMap((text) => {
    const [, decimals] = /\d\.(\d+)/.exec(text) ?? [];
    return text === ""
      ? []
      : [decimals === undefined ? Infinity : decimals.length - decimals.replace(/0+$/, "").length];
  });
  const count = Math.min(...zeros);
  if (!Number.isFinite(count) || count === 0) return [...texts];
  return texts.map((text) =>
    text.replace(/(\d)\.(\d+)/, (_, before: string, decimals: string) => {
      const kept = decimals.slice(0, decimals.length - count);
      return kept === "" ? before : `${before}.${kept}`;
    }),
  );
}

/** The format of ticks, or one with as many digits as tell them apart where it writes two plain numbers alike. */
export function tellingFormat(
  ticks: readonly (number | null)[],
  format: (value: number) => string,
): (value: number) => string {
  const values = ticks.filter((value) => value !== null);
  const isTelling = (write: (value: number) => string): boolean => new Set(values.map(write)).size === values.length;
  if (isTelling(format) || values.some((value) => Number.isNaN(Number(format(value))))) return format;
  for (let digits = 4; digits <= 12; digits++) {
    const write = (value: number): string => significant(value, digits);
    if (isTelling(write)) return write;
  }
  return format;
}
