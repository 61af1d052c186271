/** A law from a formula the user wrote. */
import { at, valueAt } from "../../base/at.js";
import { solve } from "../../base/linear-algebra.js";
import { randomStream } from "../../base/random.js";
import { inputError } from "../../base/errors.js";
import { compileExpression, linearNames, namesIn, parseExpression, quoted, type Expression } from "./expression.js";
import { checkFinite } from "./expression-check.js";
import { generalLaw } from "./general.js";
import type { Column, Law, Parameter, Points } from "./types.js";

/** Names that are columns even where the user maps none. */
const standardColumns: readonly string[] = ["N", "D", "D1", "D2"];

/** Every object of JavaScript has these properties: as names of columns or parameters they would pass for values. */
export const isForbiddenName = (name: string): boolean => name in Object.prototype;
/** What to do about a name that is forbidden. */
export const forbiddenHint = "every object of JavaScript has a property of that name; choose another";

/** Smallest and largest value that a parameter may have. */
export type Bounds = readonly [low: number, high: number];

/** What the user said about the parameters of a formula, by their names. */
export interface ParameterHints {
  /** Where the search begins. */
  readonly start?: Readonly<Record<string, number>>;
  /** Between which values a parameter lies; without them both signs are tried. */
  readonly bounds?: Readonly<Record<string, Bounds>>;
}

/** Starts tried before the best few are fitted: many for few points, fewer for many. */
const mostCandidates = 4000;
const fewestCandidates = 500;
const candidateWork = 400_000;
/** Where every start is given, only their neighbourhood is searched. */
const givenCandidates = 200;

/**
 * A law from the text of a formula. `columns`: further names that are columns, which may have any finite value, also
 * zero. Parameters may be positive or negative unless bounds say otherwise. Throws inputError for a formula that is no
 * law, and for hints that do not fit it.
 */
export function expressionLaw(text: string, columns: readonly string[] = [], hints: ParameterHints = {}): Law {
  return formulaLaw(text, columns, hints);
}

/** What a law with a name says beside its formula. */
export interface NamedFormula {
  readonly id: string;
  readonly title: string;
  /** The formula as people read it. */
  readonly formula: string;
  readonly source: string;
  readonly note?: string;
  readonly columns: readonly Column[];
  readonly parameters: readonly Omit<Parameter, "role">[];
}

/** A law with a name from the text of its formula, in which its columns and parameters stand under their names. */
export function namedLaw(text: string, named: NamedFormula, hints: ParameterHints): Law {
  return formulaLaw(
    text,
    named.columns.map(({ name }) => name),
    hints,
    named,
  );
}

function formulaLaw(text: string, columns: readonly string[], hints: ParameterHints, named?: NamedFormula): Law {
  const formula = readFormula(text, [...standardColumns, ...columns], hints);
  const { expression, columnNames, names, scales } = formula;
  const own = named?.parameters ?? [];
  const evaluate = compileExpression(expression, names, columnNames);
  const toNatural = (theta: Float64Array): Float64Array => theta.map((value, j) => at(scales, j).natural(value));
  return generalLaw({
    id: named?.id ?? "expression",
    title: named?.title ?? "user-defined law",
    formula: named?.formula ?? `L(${columnNames.join(", ")}) = ${text.replace(/^\s*L\s*=\s*/, "").trim()}`,
    source: named?.source ?? "user-defined",
    ...(named?.note !== undefined && { note: named.note }),
    columns:
      named?.columns ??
      columnNames.map((name) => ({
        name,
        meaning: "column of the formula",
        unit: "as given",
        range: { least: -Infinity },
      })),
    parameters: names.map((name, j) => ({
      name,
      meaning: "parameter of the formula",
      unit: "as given",
      ...own.find((parameter) => parameter.name === name),
      role: at(scales, j).role,
    })),
    center: () => [],
    place: (_, places, row) => {
      const values = columnNames.map((name) => at(valueAt(places.columns, name), row));
      const natural = new Float64Array(names.length);
      return (theta, slopes) => {
        for (let j = 0; j < natural.length; j++) natural[j] = scales[j]!.natural(theta[j]!);
        const result = evaluate(natural, values);
        for (let j = 0; j < natural.length; j++)
          slopes[j] = (result.slopes[j]! * scales[j]!.slope(natural[j]!)) / result.value;
        return Math.log(result.value);
      };
    },
    natural: toNatural,
    internal: (natural) => natural.map((value, j) => at(scales, j).internal(value)),
    lower: scales.map(({ lower }) => lower),
    upper: scales.map(({ upper }) => upper),
    candidates: (points) => {
      const starts = startsOf(formula, points, hints.start ?? {});
      checkFinite({ text, expression, parameters: names }, rowsOf(points, columnNames), starts);
      return starts.map((natural) => natural.map((value, j) => at(scales, j).internal(value)));
    },
  });
}

/**
 * How a parameter is fitted: `natural` values of internal ones, `internal` the way back, `slope` d natural / d internal
 * at a natural value.
 */
interface Scale {
  readonly role: "coefficient" | "shape";
  /** The sign that the parameter can have; 0: both. */
  readonly sign: -1 | 0 | 1;
  readonly natural: (internal: number) => number;
  readonly internal: (natural: number) => number;
  readonly slope: (natural: number) => number;
  readonly lower: number;
  readonly upper: number;
}

const largestLog = 60;
/** Values far above it move on a logarithmic scale, those far below on a linear one, through zero. */
const unit = 1e-6;
const largestFree = 1e30;

/** Positive and negative values go on logarithmic scales; values of both signs on one that joins two such scales. */
function scaleOf([low, high]: Bounds): Scale {
  const sign = low >= 0 ? 1 : high <= 0 ? -1 : 0;
  if (sign === 0) {
    const internal = (value: number): number => Math.asinh(value / unit);
    return {
      role: "shape",
      sign,
      natural: (value) => unit * Math.sinh(value),
      internal,
      slope: (value) => Math.hypot(unit, value),
      lower: internal(Math.max(low, -largestFree)),
      upper: internal(Math.min(high, largestFree)),
    };
  }
  const [least, most] = sign === 1 ? [low, high] : [-high, -low];
  return {
    role: sign === 1 ? "coefficient" : "shape",
    sign,
    natural: (value) => sign * Math.exp(value),
    internal: (value) => Math.log(sign * value),
    slope: (value) => value,
    lower: Math.max(-largestLog, Math.log(least)),
    upper: Math.min(largestLog, Math.log(most)),
  };
}

/** A formula whose names are told apart: columns, and parameters in the order of `scales`. */
interface Formula {
  readonly expression: Expression;
  readonly columnNames: readonly string[];
  readonly names: readonly string[];
  readonly scales: readonly Scale[];
  /** Parameters that stand in an exponent. */
  readonly powers: ReadonlySet<string>;
}

const anyValue: Bounds = [-Infinity, Infinity];

function readFormula(text: string, columns: readonly string[], { start = {}, bounds = {} }: ParameterHints): Formula {
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
  const stray = [...Object.keys(start), ...Object.keys(bounds)].find((name) => !names.includes(name));
  if (stray !== undefined)
    throw inputError(`the law ${quoted(text)} has no parameter ${stray}`, {
      hint: `its parameters: ${names.join(", ")}`,
    });
  for (const name of names) checkHints(name, start[name], bounds[name] ?? anyValue);
  return { expression, columnNames, names, powers, scales: names.map((name) => scaleOf(bounds[name] ?? anyValue)) };
}

function checkHints(name: string, start: number | undefined, [low, high]: Bounds): void {
  if (!(low < high)) throw inputError(`${name} from ${low} to ${high} has no values`, { where: "--bounds" });
  if (start === undefined || (start >= low && start <= high)) return;
  throw inputError(`${name} starts at ${start}, outside of its bounds ${low} to ${high}`, { where: "--start" });
}

/**
 * Natural starting values. Parameters in which the formula is linear come from least squares, given drawn values of all
 * others: powers from 0.02 to 1, others from 0.1 to 1e5, of either sign where bounds allow both, positive ones more
 * often. Around a start that the user gave the values lie within a factor of 3; the first is that start itself.
 */
function startsOf(formula: Formula, points: Points, given: Readonly<Record<string, number>>): Float64Array[] {
  const { names, scales, powers } = formula;
  const stream = randomStream(0, "expression starts");
  const isGiven = names.every((name) => given[name] !== undefined);
  const usual = Math.min(mostCandidates, Math.max(fewestCandidates, Math.floor(candidateWork / points.n)));
  const count = isGiven ? givenCandidates : usual;
  const linear = linearNames(formula.expression, names).filter((name) => given[name] === undefined);
  const project = projectionOf(formula, points, linear);
  return Array.from({ length: count }, (_, i) => {
    const natural = Float64Array.from(names, (name, j) => {
      const [part, side] = [
        stream.uniformAt(2 * (i * names.length + j)),
        stream.uniformAt(2 * (i * names.length + j) + 1),
      ];
      const start = given[name];
      if (start !== undefined) {
        const offset = i === 0 ? 0 : (2 * part - 1) * Math.log(3);
        return start === 0 ? offset : start * Math.exp(offset);
      }
      const [low, high] = powers.has(name) ? [0.02, 1] : [0.1, 1e5];
      const { sign } = at(scales, j);
      return (sign === 0 ? (side < 0.3 ? -1 : 1) : sign) * low * (high / low) ** part;
    });
    project(natural);
    return natural.map((value, j) => inside(value, at(scales, j)));
  });
}

/** The value moved to where the scale has values. */
function inside(value: number, { natural, lower, upper, sign }: Scale): number {
  const [low, high] = [natural(lower), natural(upper)].sort((a, b) => a - b);
  const allowed = sign !== 0 && value * sign <= 0 ? sign * 1e-3 : value;
  return Math.min(high ?? allowed, Math.max(low ?? allowed, allowed));
}

/** Replaces the values of the linear parameters by those of least squared relative error, where there are such. */
function projectionOf(
  { expression, names, columnNames }: Formula,
  { n, columns, loss }: Points,
  linear: readonly string[],
): (natural: Float64Array) => void {
  const k = linear.length;
  if (k === 0) return () => undefined;
  const evaluate = compileExpression(expression, names, columnNames);
  const positions = linear.map((name) => names.indexOf(name));
  const rows = rowValues(n, columns, columnNames);
  return (natural) => {
    for (const j of positions) natural[j] = 0;
    const gram = new Float64Array(k * k);
    const right = new Float64Array(k);
    for (const [i, row] of rows.entries()) {
      const { value, slopes } = evaluate(natural, row);
      const weight = 1 / at(loss, i);
      const rest = 1 - value * weight;
      for (const [a, j] of positions.entries()) {
        const own = slopes[j]! * weight;
        right[a]! += own * rest;
        for (const [b, other] of positions.entries()) gram[a * k + b]! += own * slopes[other]! * weight;
      }
    }
    const sizes = positions.map((_, a) => Math.sqrt(at(gram, a * k + a)) || 1);
    const scaled = gram.map(
      (value, at_) => value / (sizes[Math.floor(at_ / k)]! * sizes[at_ % k]!) + (at_ % (k + 1) === 0 ? 1e-12 : 0),
    );
    const solution = solve(
      scaled,
      k,
      right.map((value, a) => value / sizes[a]!),
    );
    for (const [a, j] of positions.entries()) natural[j] = solution === null ? 1 : at(solution, a) / sizes[a]!;
    if (natural.some((value) => !Number.isFinite(value))) for (const j of positions) natural[j] = 1;
  };
}

function rowValues(n: number, columns: Points["columns"], names: readonly string[]): Float64Array[] {
  return Array.from({ length: n }, (_, i) => Float64Array.from(names, (name) => at(valueAt(columns, name), i)));
}

/** Values of the columns at each point, by name. */
function rowsOf({ n, columns }: Points, names: readonly string[]): Readonly<Record<string, number>>[] {
  return Array.from({ length: n }, (_, i) =>
    Object.fromEntries(names.map((name) => [name, at(valueAt(columns, name), i)])),
  );
}
