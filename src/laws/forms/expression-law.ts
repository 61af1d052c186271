/** A law from a formula the user wrote. */
import { at, valueAt } from "../../base/at.js";
import { randomStream } from "../../base/random.js";
import { inputError } from "../../base/errors.js";
import { compileExpression, namesIn, parseExpression, quoted, type Expression } from "./expression.js";
import { checkFinite } from "./expression-check.js";
import { generalLaw } from "./general.js";
import type { Law, Points } from "./types.js";

/** Names that are columns even where the user maps none. */
const standardColumns: readonly string[] = ["N", "D", "D1", "D2"];

/** Every object of JavaScript has these properties: as names of columns or parameters they would pass for values. */
export const isForbiddenName = (name: string): boolean => name in Object.prototype;
/** What to do about a name that is forbidden. */
export const forbiddenHint = "every object of JavaScript has a property of that name; choose another";

/** Starts tried before the best few are fitted. */
const candidates = 4000;

/**
 * A law from the text of a formula. `columns`: further names that are columns. `start`: where a parameter's search
 * begins. Parameters are positive and fitted as logarithms, unless their start is zero or negative; such are fitted as
 * they stand. Throws inputError for a formula that is no law.
 */
export function expressionLaw(
  text: string,
  columns: readonly string[] = [],
  start: Readonly<Record<string, number>> = {},
): Law {
  const formula = readFormula(text, [...standardColumns, ...columns], start);
  const { expression, columnNames, names, isLog } = formula;
  const evaluate = compileExpression(expression, names, columnNames);
  const toNatural = (theta: Float64Array): Float64Array =>
    theta.map((value, j) => (isLog[j] ? Math.exp(value) : value));
  return generalLaw({
    id: "expression",
    title: "user-defined law",
    formula: `L(${columnNames.join(", ")}) = ${text.replace(/^\s*L\s*=\s*/, "").trim()}`,
    source: "user-defined",
    columns: columnNames.map((name) => ({ name, meaning: "column of the formula", unit: "as given" })),
    parameters: names.map((name, j) => ({
      name,
      meaning: "parameter of the formula",
      unit: "as given",
      role: isLog[j] ? "coefficient" : "shape",
    })),
    center: () => [],
    place: (_, places, row) => {
      const values = columnNames.map((name) => at(valueAt(places.columns, name), row));
      const natural = new Float64Array(names.length);
      return (theta, slopes) => {
        for (let j = 0; j < natural.length; j++) natural[j] = isLog[j] ? Math.exp(theta[j]!) : theta[j]!;
        const result = evaluate(natural, values);
        for (let j = 0; j < natural.length; j++)
          slopes[j] = (result.slopes[j]! * (isLog[j] ? natural[j]! : 1)) / result.value;
        return Math.log(result.value);
      };
    },
    natural: toNatural,
    internal: (natural) => natural.map((value, j) => (isLog[j] ? Math.log(value) : value)),
    lower: isLog.map((log) => (log ? -60 : -1e6)),
    upper: isLog.map((log) => (log ? 60 : 1e6)),
    candidates: (points) => {
      const starts = startsOf(formula, start);
      checkFinite({ text, expression, parameters: names }, rowsOf(points, columnNames), starts.map(toNatural));
      return starts;
    },
  });
}

/** A formula whose names are told apart: columns, and parameters in the order of `isLog`. */
interface Formula {
  readonly expression: Expression;
  readonly columnNames: readonly string[];
  readonly names: readonly string[];
  /** The parameter is positive and fitted as its logarithm. */
  readonly isLog: readonly boolean[];
  /** Parameters that stand in an exponent. */
  readonly powers: ReadonlySet<string>;
}

function readFormula(text: string, columns: readonly string[], start: Readonly<Record<string, number>>): Formula {
  const expression = parseExpression(text.replace(/^\s*L\s*=\s*/, ""));
  const { all, powers } = namesIn(expression);
  const forbidden = all.find(isForbiddenName);
  if (forbidden !== undefined) {
    throw inputError(`in the law ${quoted(text)}: "${forbidden}" is not allowed as a name`, { hint: forbiddenHint });
  }
  const isColumn = new Set(columns);
  const columnNames = all.filter((name) => isColumn.has(name));
  const names = all.filter((name) => !isColumn.has(name));
  if (columnNames.length === 0)
    throw inputError(`the law ${quoted(text)} uses no column`, {
      hint: `columns are ${[...isColumn].join(", ")}; others are named by --columns`,
    });
  if (names.length === 0) throw inputError(`the law ${quoted(text)} has no parameter to fit`);
  const stray = Object.keys(start).find((name) => !names.includes(name));
  if (stray !== undefined)
    throw inputError(`the law ${quoted(text)} has no parameter ${stray}`, {
      hint: `its parameters: ${names.join(", ")}`,
    });
  return { expression, columnNames, names, isLog: names.map((name) => (start[name] ?? 1) > 0), powers };
}

/** Internal starting values. The first has every parameter whose start the user gave at that start. */
function startsOf({ names, isLog, powers }: Formula, start: Readonly<Record<string, number>>): Float64Array[] {
  const stream = randomStream(0, "expression starts");
  return Array.from({ length: candidates }, (_, i) =>
    Float64Array.from(names, (name, j) => {
      const part = stream.uniformAt(i * names.length + j);
      const ownStart = start[name];
      // Around a start that the user gave within a factor of 3; else powers from 0.02 to 1, others from 0.1 to 1e5.
      if (ownStart !== undefined) {
        const offset = i === 0 ? 0 : (2 * part - 1) * Math.log(3);
        return isLog[j] ? Math.log(ownStart) + offset : ownStart + offset * Math.max(1e-2, Math.abs(ownStart));
      }
      const [low, high] = powers.has(name) ? [0.02, 1] : [0.1, 1e5];
      return Math.log(low) + part * Math.log(high / low);
    }),
  );
}

/** Values of the columns at each point, by name. */
function rowsOf({ n, columns }: Points, names: readonly string[]): Readonly<Record<string, number>>[] {
  return Array.from({ length: n }, (_, row) =>
    Object.fromEntries(names.map((name) => [name, at(valueAt(columns, name), row)])),
  );
}
