/**
 * IsoFLOP analysis, Approach 2 of Hoffmann et al. 2022 (arXiv 2203.15556, section 3.2): at each compute budget a
 * parabola
 * of the loss over ln N (and over ln D) has its lowest point at the best size; the best sizes grow as a power of the
 * budget. Parabolas are biased where both exponents differ or the sizes lie to one side of the best one; a law of N
 * and D
 * fitted to the same points is the check.
 */
import { at } from "../../base/at.js";
import { solve } from "../../base/linear-algebra.js";
import { meanOf } from "../../base/mean.js";
import { randomStream } from "../../base/random.js";
import { quantile, studentQuantile } from "./distributions.js";

/** Points of an IsoFLOP study: columns of equal length. */
export interface IsoFlopPoints {
  /** Parameters, tokens and compute of each model, in FLOP. */
  readonly N: ArrayLike<number>;
  readonly D: ArrayLike<number>;
  readonly C: ArrayLike<number>;
  readonly loss: ArrayLike<number>;
}

/** One compute budget. */
export interface Budget {
  readonly compute: number;
  /** Points of this budget. */
  readonly n: number;
  /** Lowest point of the parabola over ln N, and that of the one over ln D; null where it has none. */
  readonly size: number | null;
  readonly tokens: number | null;
  /** Loss at the lowest point over ln N. */
  readonly loss: number | null;
  readonly tokensPerParameter: number | null;
  /** Why the budget is not used; null: it is. */
  readonly leftOut: string | null;
  /** The lowest point lies outside of the sizes that were trained. */
  readonly extrapolated: boolean;
}

/** `value = factor * compute^exponent`. */
export interface PowerOfCompute {
  readonly exponent: number;
  readonly factor: number;
  /** Interval of the exponent: of the line through the best points, and by points drawn again at each budget. */
  readonly interval: readonly [low: number, high: number];
  readonly bootstrap: readonly [low: number, high: number] | null;
}

/** The result of an IsoFLOP analysis. */
export interface IsoFlop {
  readonly budgets: readonly Budget[];
  readonly size: PowerOfCompute;
  readonly tokens: PowerOfCompute;
  readonly level: number;
}

export interface IsoFlopOptions {
  readonly level: number;
  /** Draws of the bootstrap; 0 for none. */
  readonly bootstrap: number;
  readonly seed: number;
  /** Budgets within this part of each other are one. */
  readonly tolerance?: number;
}

/** A parabola needs this many sizes. */
const fewestSizes = 4;
/** Fewer budgets make no line with an interval. */
export const fewestBudgets = 3;

/** Analyses the points; null where fewer than three budgets have a lowest point. */
export function isoFlop(
  points: IsoFlopPoints,
  { level, bootstrap, seed, tolerance = 0.05 }: IsoFlopOptions,
): IsoFlop | null {
  const groups = budgetsOf(points.C, tolerance);
  const budgets = groups.map((rows) => budgetOf(points, rows));
  const lines = linesThrough(budgets);
  if (lines === null) return null;
  const draws = bootstrapExponents(points, groups, { bootstrap, seed });
  const interval = (values: readonly number[]): readonly [number, number] | null => {
    const ascending = Float64Array.from(values).sort();
    return ascending.length < 20 ? null : [quantile(ascending, (1 - level) / 2), quantile(ascending, (1 + level) / 2)];
  };
  const power = (line: Line, drawn: readonly number[]): PowerOfCompute => {
    const half = studentQuantile((1 + level) / 2, Math.max(1, line.n - 2)) * line.error;
    return {
      exponent: line.slope,
      factor: Math.exp(line.offset),
      interval: [line.slope - half, line.slope + half],
      bootstrap: interval(drawn),
    };
  };
  return {
    budgets,
    level,
    size: power(
      lines.size,
      draws.map(([size]) => size),
    ),
    tokens: power(
      lines.tokens,
      draws.map(([, tokens]) => tokens),
    ),
  };
}

/** Rows by budget, ascending: budgets that differ by less than the tolerance are one. */
function budgetsOf(compute: ArrayLike<number>, tolerance: number): readonly (readonly number[])[] {
  const rows = Array.from(compute, (_, i) => i).sort((a, b) => at(compute, a) - at(compute, b));
  const groups: number[][] = [];
  for (const row of rows) {
    const group = groups.at(-1);
    if (group !== undefined && at(compute, row) <= at(compute, at(group, 0)) * (1 + tolerance)) group.push(row);
    else groups.push([row]);
  }
  return groups;
}

function budgetOf({ N, D, C, loss }: IsoFlopPoints, rows: readonly number[]): Budget {
  const compute = Math.exp(meanOf(rows.map((i) => Math.log(at(C, i)))));
  const values = rows.map((i) => at(loss, i));
  const sizes = rows.map((i) => Math.log(at(N, i)));
  const nothing = { size: null, tokens: null, loss: null, tokensPerParameter: null, extrapolated: false };
  const common = { compute, n: rows.length };
  if (new Set(sizes).size < fewestSizes) return { ...common, ...nothing, leftOut: `fewer than ${fewestSizes} sizes` };
  const bySize = lowestOf(sizes, values);
  const byTokens = lowestOf(
    rows.map((i) => Math.log(at(D, i))),
    values,
  );
  if (bySize === null || byTokens === null)
    return { ...common, ...nothing, leftOut: "the losses have no lowest point over sizes" };
  const [size, tokens] = [Math.exp(bySize.x), Math.exp(byTokens.x)];
  return {
    ...common,
    size,
    tokens,
    loss: bySize.y,
    tokensPerParameter: tokens / size,
    leftOut: null,
    extrapolated: bySize.x < Math.min(...sizes) || bySize.x > Math.max(...sizes),
  };
}

/** The lowest point of the parabola of least squares; null where it opens downwards. */
function lowestOf(xs: readonly number[], ys: readonly number[]): { readonly x: number; readonly y: number } | null {
  const middle = meanOf(xs);
  const powers = [0, 1, 2, 3, 4].map((k) => xs.reduce((sum, x) => sum + (x - middle) ** k, 0));
  const gram = Float64Array.from({ length: 9 }, (_, i) => at(powers, Math.floor(i / 3) + (i % 3)));
  const right = Float64Array.from([0, 1, 2], (k) => xs.reduce((sum, x, i) => sum + (x - middle) ** k * at(ys, i), 0));
  const solution = solve(gram, 3, right);
  if (solution === null) return null;
  const [c = NaN, b = NaN, a = NaN] = solution;
  return a > 0 ? { x: middle - b / (2 * a), y: c - (b * b) / (4 * a) } : null;
}

interface Line {
  readonly slope: number;
  readonly offset: number;
  /** Standard error of the slope. */
  readonly error: number;
  readonly n: number;
}

function linesThrough(budgets: readonly Budget[]): { readonly size: Line; readonly tokens: Line } | null {
  const used = budgets.flatMap(({ compute, size, tokens }) =>
    size === null || tokens === null ? [] : [{ compute, size, tokens }],
  );
  if (used.length < fewestBudgets) return null;
  const xs = used.map(({ compute }) => Math.log(compute));
  return {
    size: lineThrough(
      xs,
      used.map(({ size }) => Math.log(size)),
    ),
    tokens: lineThrough(
      xs,
      used.map(({ tokens }) => Math.log(tokens)),
    ),
  };
}

function lineThrough(xs: readonly number[], ys: readonly number[]): Line {
  const n = xs.length;
  const [mx, my] = [meanOf(xs), meanOf(ys)];
  const spread = xs.reduce((sum, x) => sum + (x - mx) ** 2, 0);
  const slope = xs.reduce((sum, x, i) => sum + (x - mx) * (at(ys, i) - my), 0) / spread;
  const offset = my - slope * mx;
  const squares = xs.reduce((sum, x, i) => sum + (at(ys, i) - offset - slope * x) ** 2, 0);
  return { slope, offset, error: Math.sqrt(squares / Math.max(1, n - 2) / spread), n };
}

/** Both exponents of each draw, in which every budget's points are drawn again; draws without a line are left out. */
function bootstrapExponents(
  points: IsoFlopPoints,
  groups: readonly (readonly number[])[],
  { bootstrap, seed }: Pick<IsoFlopOptions, "bootstrap" | "seed">,
): readonly (readonly [size: number, tokens: number])[] {
  const stream = randomStream(seed, "isoflop bootstrap");
  let drawn = 0;
  return Array.from({ length: bootstrap }, () => {
    const sample = groups.map((rows) => rows.map(() => at(rows, Math.floor(stream.uniformAt(drawn++) * rows.length))));
    const lines = linesThrough(sample.map((rows) => budgetOf(points, rows)));
    return lines === null ? null : ([lines.size.slope, lines.tokens.slope] as const);
  }).filter((pair) => pair !== null);
}
