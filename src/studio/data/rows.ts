/** The list of runs as it is asked for: filtered by a regular expression, sorted, and cut to what is on the screen. */
import { naturalOrder } from "./natural.js";
import type { RunRow } from "./types.js";

/** Columns by which the list can be sorted. */
export const sortKeys = [
  "name",
  "state",
  "kind",
  "params",
  "tokens",
  "loss",
  "bestLoss",
  "trainLoss",
  "tokensPerSecond",
  "secondsLeft",
  "dead",
  "bytes",
  "changed",
] as const;
/** A column of the list. */
export type SortKey = (typeof sortKeys)[number];

/** What of the list is shown, in which order. */
export interface ListRequest {
  /** Regular expression over names, arms and states, small and capital letters alike; "" lets all through. */
  readonly filter: string;
  readonly sort: SortKey;
  readonly descending: boolean;
}

/** The expression of a filter; null where it is none yet, as while it is typed. */
export function filterExpression(filter: string): RegExp | null {
  try {
    return new RegExp(filter, "iu");
  } catch {
    return null;
  }
}

/**
 * The rows that fit, in order. A filter that is no regular expression is looked for as it is written. What is not
 * measured comes last in both directions; equal rows are in the order of their names.
 */
export function shownRows(rows: readonly RunRow[], { filter, sort, descending }: ListRequest): RunRow[] {
  const expression = filterExpression(filter);
  const fits = (text: string): boolean =>
    expression === null ? text.toLowerCase().includes(filter.toLowerCase()) : expression.test(text);
  const shown =
    filter === "" ? [...rows] : rows.filter((row) => fits(`${row.name} ${row.arm} ${row.kind} ${row.state}`));
  const direction = descending ? -1 : 1;
  const compare = naturalOrder(shown.map(({ name }) => name));
  const byName = (a: RunRow, b: RunRow): number => compare(a.name, b.name);
  return shown.sort((a, b) => {
    const [one, other] = [a[sort], b[sort]];
    if (one === null || other === null) return one === other ? byName(a, b) : one === null ? 1 : -1;
    if (one === other) return byName(a, b);
    if (typeof one === "string") return direction * compare(one, String(other));
    return direction * (one < Number(other) ? -1 : 1);
  });
}

/** The rows that a scrolled list has on the screen, and `more` above and below: first index and number. */
export function rowWindow(
  { top, height, rowHeight, total }: { top: number; height: number; rowHeight: number; total: number },
  more: number,
): { readonly first: number; readonly count: number } {
  const first = Math.min(Math.max(0, total - 1), Math.max(0, Math.floor(top / rowHeight) - more));
  const last = Math.min(total, Math.ceil((top + height) / rowHeight) + more);
  return { first, count: Math.max(0, last - first) };
}
