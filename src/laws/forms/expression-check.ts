/** Why a formula cannot be fitted to points: the part of it that is finite nowhere, in a sentence. */
import { at } from "../../base/at.js";
import { inputError } from "../../base/errors.js";
import { compact } from "../../base/format.js";
import { quoted, textOf, valueOf, type Expression } from "./expression.js";

interface Formula {
  readonly text: string;
  readonly expression: Expression;
  /** Names of the parameters, in the order of every start. */
  readonly parameters: readonly string[];
}

/** Values of the columns at one point, by name. */
type Point = Readonly<Record<string, number>>;

const hint = "a law is finite and positive at every point; change the formula, or leave such points out";

/**
 * Fits compare logarithms of losses, so a start is of use where the formula is finite and positive at all points.
 * Throws inputError where none of the starts is.
 */
export function checkFinite(formula: Formula, points: readonly Point[], starts: readonly Float64Array[]): void {
  const usable = (point: Point, start: Float64Array): boolean => {
    const value = valueAt(formula, point, start);
    return Number.isFinite(value) && value > 0;
  };
  if (starts.some((start) => points.every((point) => usable(point, start)))) return;
  const point = points.find((one) => !starts.some((start) => usable(one, start)));
  const law = `the law ${quoted(formula.text)}`;
  const startCount = `for any of ${starts.length} starts`;
  if (point === undefined) {
    const message = `${law} is not positive at all points at once ${startCount}`;
    throw inputError(message, { hint: "say with --start where the search begins" });
  }
  const part = nowhereFinite(formula, point, starts);
  const place = Object.entries(point)
    .map(([name, value]) => `${name} = ${compact(value)}`)
    .join(", ");
  if (part === null) throw inputError(`${law} is not positive at ${place} ${startCount}`, { hint });
  throw inputError(`in ${law}: ${quoted(textOf(part))} is not a finite number at ${place} ${startCount}`, { hint });
}

type Visit = (part: Expression, value: number) => void;

function valueAt(formula: Formula, point: Point, start: Float64Array, visit: Visit = () => undefined): number {
  const { expression, parameters } = formula;
  return valueOf(expression, (name) => point[name] ?? at(start, parameters.indexOf(name)), visit);
}

/** The innermost part that is finite at this point from no start. */
function nowhereFinite(formula: Formula, point: Point, starts: readonly Float64Array[]): Expression | null {
  const finite = new Set<Expression>();
  let parts: Expression[] = [];
  for (const start of starts) {
    parts = [];
    valueAt(formula, point, start, (part, value) => {
      parts.push(part);
      if (Number.isFinite(value)) finite.add(part);
    });
  }
  return parts.find((part) => !finite.has(part)) ?? null;
}
