/** Whether points can be fitted at all, said in a sentence that helps; and what looks wrong but can be fitted. */
import { at, valueAt } from "../../base/at.js";
import { largestOf, smallestOf } from "../../base/extremes.js";
import { inputError } from "../../base/errors.js";
import { compact, significant } from "../../base/format.js";
import { outOfRange, type Column, type Law, type Points } from "./types.js";

interface CheckOptions {
  /** File or other origin, for errors. */
  readonly where?: string;
  /** What point i is called, such as its line in the file; "point 1" and so on where left out. */
  readonly pointName?: (i: number) => string;
  /** Columns whose unit the user has stated: their sizes are taken as meant. */
  readonly stated?: readonly string[];
}

/**
 * Raw counts below this are not sizes or token counts of any model: the column is in thousands, millions or billions.
 */
const smallestCount = 1000;
const largestCount = 1e15;
/** Above it a "loss" is rather a perplexity. */
const largestLoss = 20;
/** One column whose values span this much mixes units. */
const widestSpan = 1e8;

/** Warnings, one sentence each. Throws inputError where a fit would be meaningless. */
export function checkPoints(
  law: Law,
  points: Points,
  { where, stated: statedColumns = [], pointName = (i) => `point ${i + 1}` }: CheckOptions = {},
): readonly string[] {
  const fail: Fail = (message, hint) => {
    throw inputError(message, { where, hint });
  };
  const warnings: string[] = [];
  const p = law.parameters.length;
  checkGroups(law, points, pointName, fail);
  for (const column of law.columns) checkValues(law, points, column, pointName, fail);
  checkLosses(points, pointName, fail);
  if (points.n <= p) {
    fail(
      `${points.n} point${points.n === 1 ? "" : "s"} for a law with ${p} parameters ` +
        `(${law.parameters.map(({ name }) => name).join(", ")})`,
      `at least ${p + 1} are needed to say anything, several per parameter to say it with some certainty`,
    );
  }
  for (const { name } of law.columns)
    checkSpan(law, points, name, { isStated: statedColumns.includes(name), pointName, fail, warnings });
  checkLossSpan(points, fail, warnings);
  if (points.n < 3 * p)
    warnings.push(`${points.n} points for ${p} parameters are few: intervals are wide and depend on every point.`);
  return warnings;
}

type Fail = (message: string, hint?: string) => never;
type PointName = (i: number) => string;

/** The column is there, and its value at every point that uses it is a number the law can take. */
function checkValues(law: Law, points: Points, column: Column, pointName: PointName, fail: Fail): void {
  const { name, meaning } = column;
  const values =
    points.columns[name] ??
    fail(`the law ${law.id} needs a column ${name} (${meaning})`, `name it: --columns ${name}=YOUR_COLUMN`);
  for (const i of rowsUsing(law, points, name)) {
    const value = at(values, i);
    const wrong = outOfRange(column, value);
    if (wrong !== null) fail(`${pointName(i)}: ${name} is ${value}, ${wrong}`, "leave that row out, or correct it");
  }
}

/** Every loss is finite and positive. */
function checkLosses({ loss: losses }: Points, pointName: PointName, fail: Fail): void {
  for (const [i, loss] of losses.entries()) {
    if (!Number.isFinite(loss)) fail(`${pointName(i)}: loss is ${loss}`, "leave runs that diverged out");
    if (loss <= 0)
      fail(
        `${pointName(i)}: loss is ${loss}`,
        "a cross entropy is positive; is the column a logarithm or a difference?",
      );
  }
}

/** Losses differ, and are of the size of cross entropies. */
function checkLossSpan({ loss }: Points, fail: Fail, warnings: string[]): void {
  const [low, high] = [smallestOf(loss), largestOf(loss)];
  if (high === low) fail(`every loss is ${low}`, "nothing depends on anything here; check the column");
  if (low > largestLoss)
    fail(
      `every loss is above ${largestLoss} (smallest: ${significant(low)})`,
      "expected nats per token; is this column a perplexity? Then take its logarithm",
    );
  if (high > largestLoss)
    warnings.push(
      `Losses go up to ${significant(high)}: expected nats per token. Is a point a perplexity, or from a run ` +
        "that diverged?",
    );
}

interface SpanCheck {
  /** The user has stated the column's unit. */
  readonly isStated: boolean;
  readonly pointName: PointName;
  readonly fail: Fail;
  readonly warnings: string[];
}

/** A column's values differ, and counts are of a size that raw counts have. */
function checkSpan(law: Law, points: Points, name: string, { isStated, pointName, fail, warnings }: SpanCheck): void {
  const rows = rowsUsing(law, points, name);
  const values = Float64Array.from(rows, (i) => at(valueAt(points.columns, name), i));
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  if (high === low) {
    fail(
      `every point has ${name} = ${compact(low, 4)}, so nothing about ${name} can be learnt`,
      alternative(law, name),
    );
  }
  if (!countColumns.has(name)) return;
  // A count of zero, such as no tokens of a parent, has no order of magnitude.
  const least = values.reduce((most, value) => (value > 0 ? Math.min(most, value) : most), Infinity);
  if (least === Infinity) return;
  if (!isStated && high < smallestCount) {
    fail(
      `${name} goes from ${significant(low)} to ${significant(high)}, expected raw counts`,
      `if it is in billions, write --columns ${name}=YOUR_COLUMN*1e9`,
    );
  }
  if (!isStated && least > largestCount)
    fail(
      `${name} starts at ${significant(least)}, more than any model has seen`,
      `check its unit; --columns ${name}=YOUR_COLUMN*1e-9 scales it`,
    );
  if (high / least > widestSpan) {
    const [smallest, largest] = [least, high].map((value) => pointName(at(rows, values.indexOf(value))));
    fail(
      `${name} spans a factor of ${(high / least).toExponential(1).replace("e+", "e")}: ${compact(least)} at ` +
        `${smallest}, ${compact(high)} at ${largest}`,
      "are some rows in other units than the rest?",
    );
  }
  if (low > 0 && high / low < 3)
    warnings.push(
      `${name} varies only by a factor of ${significant(high / low)}: its exponent will hardly be identified.`,
    );
}

/** Every group has points, every point a known group, and each group more points than its law has columns. */
function checkGroups(law: Law, points: Points, pointName: PointName, fail: Fail): void {
  if (law.groups === undefined) return;
  const names = law.groups.map(({ name }) => name);
  const list = names.join(", ");
  const group =
    points.group ??
    fail(
      `the law ${law.id} needs to know which points are ${list}`,
      "add a column group, or name it: --columns group=YOUR_COLUMN",
    );
  group.forEach((name, i) => {
    if (!names.includes(name)) fail(`${pointName(i)}: group is "${name}", expected one of ${list}`);
  });
  for (const { name, columns } of law.groups) {
    const count = group.filter((groupName) => groupName === name).length;
    if (count < 2 * columns.length + 2)
      fail(`${count} point${count === 1 ? "" : "s"} of group ${name}, expected at least ${2 * columns.length + 2}`);
  }
}

/** Points whose prediction uses the column. */
function rowsUsing(law: Law, points: Points, column: string): readonly number[] {
  const all = Array.from({ length: points.n }, (_, i) => i);
  if (law.groups === undefined) return all;
  const using = new Set(law.groups.filter(({ columns }) => columns.includes(column)).map(({ name }) => name));
  return all.filter((i) => using.has(points.group?.[i] ?? ""));
}

const countColumns: ReadonlySet<string> = new Set(["N", "D", "D1", "D2"]);

/** A law that does without a column that is constant. */
function alternative(law: Law, name: string): string {
  if (law.id.startsWith("upcycling") && name === "N") return "with one model size, fit --law upcycling-data";
  return `add runs with other values of ${name}`;
}
