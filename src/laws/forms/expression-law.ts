/** A law from a formula the user wrote. */
import { at, valueAt } from "../../base/at.js";
import { randomStream } from "../../base/random.js";
import { inputError } from "../../base/errors.js";
import { compileExpression, namesIn, parseExpression, quoted } from "./expression.js";
import { checkFinite } from "./expression-check.js";
import { generalLaw } from "./general.js";
import type { Law } from "./types.js";

/** Names that are columns even where the user maps none. */
const standardColumns: readonly string[] = ["N", "D", "D1", "D2"];

/** Every object of JavaScript has these properties: as names of columns or parameters they would pass for values. */
export const isForbiddenName = (name: string): boolean => name in Object.prototype;
export const forbiddenHint = "every object of JavaScript has a property of that name; choose another";

/** Starts tried before the best few are fitted. */
const candidates = 4000;

/**
 * `columns`: further names that are columns. `start`: where a parameter's search begins. Parameters are positive and
 * fitted as logarithms, unless their start is zero or negative; such are fitted as they stand. Throws inputError for a
 * formula that is no law.
 */
export function expressionLaw(
  text: string,
  columns: readonly string[] = [],
  start: Readonly<Record<string, number>> = {},
): Law {
  const expression = parseExpression(text.replace(/^\s*L\s*=\s*/, ""));
  const { all, powers } = namesIn(expression);
  const forbidden = all.find(isForbiddenName);
  if (forbidden !== undefined) {
    throw inputError(`in the law ${quoted(text)}: "${forbidden}" is not allowed as a name`, { hint: forbiddenHint });
  }
  const known = new Set([...standardColumns, ...columns]);
  const used = all.filter((name) => known.has(name));
  const names = all.filter((name) => !known.has(name));
  if (used.length === 0)
    throw inputError(`the law ${quoted(text)} uses no column`, {
      hint: `columns are ${[...known].join(", ")}; others are named by --columns`,
    });
  if (names.length === 0) throw inputError(`the law ${quoted(text)} has no parameter to fit`);
  const stray = Object.keys(start).find((name) => !names.includes(name));
  if (stray !== undefined)
    throw inputError(`the law ${quoted(text)} has no parameter ${stray}`, {
      hint: `its parameters: ${names.join(", ")}`,
    });
  const isLog = names.map((name) => (start[name] ?? 1) > 0);
  const evaluate = compileExpression(expression, names, used);
  const p = names.length;
  const toNatural = (theta: Float64Array): Float64Array =>
    theta.map((value, j) => (isLog[j] ? Math.exp(value) : value));
  return generalLaw({
    id: "expression",
    title: "user-defined law",
    formula: `L(${used.join(", ")}) = ${text.replace(/^\s*L\s*=\s*/, "").trim()}`,
    source: "user-defined",
    columns: used.map((name) => ({ name, meaning: "column of the formula", unit: "as given" })),
    parameters: names.map((name, j) => ({
      name,
      meaning: "parameter of the formula",
      unit: "as given",
      role: isLog[j] ? "coefficient" : "shape",
    })),
    center: () => [],
    place: (_, places, row) => {
      const values = used.map((name) => at(valueAt(places.columns, name), row));
      const natural = new Float64Array(p);
      return (theta, slopes) => {
        for (let j = 0; j < p; j++) natural[j] = isLog[j] ? Math.exp(theta[j]!) : theta[j]!;
        const found = evaluate(natural, values);
        for (let j = 0; j < p; j++) slopes[j] = (found.slopes[j]! * (isLog[j] ? natural[j]! : 1)) / found.value;
        return Math.log(found.value);
      };
    },
    natural: toNatural,
    internal: (natural) => natural.map((value, j) => (isLog[j] ? Math.log(value) : value)),
    lower: names.map((_, j) => (isLog[j] ? -60 : -1e6)),
    upper: names.map((_, j) => (isLog[j] ? 60 : 1e6)),
    candidates: (points) => {
      const stream = randomStream(0, "expression starts");
      const starts = Array.from({ length: candidates }, (_, i) =>
        Float64Array.from(names, (name, j) => {
          const part = stream.uniformAt(i * p + j);
          const given = start[name];
          // Around a given start within a factor of 3 (the first candidate is the start itself); else powers from 0.02
          // to 1, others from 0.1 to 1e5.
          if (given !== undefined) {
            const offset = i === 0 ? 0 : (2 * part - 1) * Math.log(3);
            return isLog[j] ? Math.log(given) + offset : given + offset * Math.max(1e-2, Math.abs(given));
          }
          const [low, high] = powers.has(name) ? [0.02, 1] : [0.1, 1e5];
          return Math.log(low) + part * Math.log(high / low);
        }),
      );
      const rowOf = (_: unknown, row: number): [string, number][] =>
        used.map((name) => [name, at(valueAt(points.columns, name), row)]);
      const rows = Array.from({ length: points.n }, rowOf).map((row) => Object.fromEntries(row));
      checkFinite({ text, expression, parameters: names }, rows, starts.map(toNatural));
      return starts;
    },
  });
}
