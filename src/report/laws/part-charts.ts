/**
 * Charts of a law over its columns: losses, contours, lines of equal compute. `N` parameters, `D` tokens, `D1` tokens
 * of the parent, `D2` further tokens.
 */
import { at, valueAt } from "../../base/at.js";
import { largestOf, smallestOf } from "../../base/extremes.js";
import { compact, fixed } from "../../base/format.js";
import { indices, middle, rounded, spaced, sample, type Chart, type ChartSeries } from "./chart.js";
import { constantColumns, idOf, medians, titleOf, unitOf, type LawPart } from "./law-part.js";

const mostLines = 6;
const mostPoints = 1500;
const mostContourPoints = 300;
const curveSteps = 48;
const contourSteps = 60;
/** Contours are fewer than the tones, because dots have the first tone. */
const contourLines = 5;
const isoFlopLines = 6;
const isoFlopSteps = 60;

/** Charts of the loss against one column, with a line for each of a few values of another. */
export function lossCharts(part: LawPart): Chart[] {
  const axes = lossAxes(part.columns.map(({ name }) => name));
  // Each of several laws has one chart.
  return axes.slice(0, part.group === "" ? undefined : 1).map((pair, i) => lossChart(part, pair, `loss-${i}`));
}

/** Pairs of the column along x and the column by which lines differ, which is the same for a law of one column. */
function lossAxes(names: readonly string[]): readonly (readonly [x: string, by: string])[] {
  if (names.includes("D2")) {
    const bySize = names.includes("N") ? [["D2", "N"] as const] : [];
    return [["D2", "D1"], ["D1", "D2"], ...bySize];
  }
  if (names.includes("N") && names.includes("D"))
    return [
      ["D", "N"],
      ["N", "D"],
    ];
  const first = at(names, 0);
  const second = names[1];
  if (second === undefined) return [[first, first]];
  return [
    [first, second],
    [second, first],
  ];
}

function lossChart(part: LawPart, [x, by]: readonly [x: string, by: string], id: string): Chart {
  const names = part.columns.map(({ name }) => name);
  const bins = binsOf(valueAt(part.points.columns, by), x === by ? 1 : mostLines);
  const others = names.filter((name) => name !== x && name !== by);
  return {
    id: idOf(id, part),
    xLog: x !== "S",
    yLog: false,
    level: null,
    xLabel: `${x}, ${unitOf(part, x)}`,
    yLabel: "loss, nats per token",
    title: titleOf(x === by ? `Loss against ${x}` : `Loss against ${x}, by ${by}`, part),
    note:
      others.length === 0
        ? "Dots are points, lines the fit in the middle of each group."
        : `Dots are points; lines the fit at the middle of each group, ${others.join(" and ")} at its median.`,
    series: bins.flatMap(({ label, rows }, tone) =>
      lossSeries(part, x, rows, {
        tone,
        label: x === by ? "points" : `${by} ${label}`,
        most: mostPoints / bins.length,
      }),
    ),
  };
}

/** The points of one bin, and the law along `x` with all other columns at their medians in the bin. */
function lossSeries(
  { points, columns, predict }: LawPart,
  x: string,
  rows: readonly number[],
  { tone, label, most }: { readonly tone: number; readonly label: string; readonly most: number },
): ChartSeries[] {
  const valuesOf = (name: string, members: readonly number[]): number[] =>
    members.map((row) => at(valueAt(points.columns, name), row));
  const xs = valuesOf(x, rows);
  const [low, high] = [smallestOf(xs), largestOf(xs)];
  const grid = high > low && low > 0 ? spaced(low, high, curveSteps) : [low];
  const places = Object.fromEntries(
    columns.map(({ name }) => {
      const median = middle(valuesOf(name, rows));
      return [name, name === x ? grid : grid.map(() => median)];
    }),
  );
  const dots = sample(rows, most);
  return [
    { label, tone, kind: "dots", x: valuesOf(x, dots), y: dots.map((row) => rounded(at(points.loss, row))) },
    { label: `${label}, fit`, tone, kind: "line", x: grid.map(rounded), y: predict(places).map(rounded) },
  ];
}

interface Bin {
  readonly label: string;
  readonly rows: readonly number[];
}

/** Groups of rows by the values of a column: its distinct values, or ranges of equal count where there are many. */
function binsOf(values: Float64Array, most: number): Bin[] {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const rows = indices(values.length);
  if (distinct.length <= most)
    return distinct.map((value) => ({ label: compact(value), rows: rows.filter((i) => values[i] === value) }));
  const ascending = [...values].sort((a, b) => a - b);
  const starts = Array.from({ length: most }, (_, i) => at(ascending, Math.floor((i * ascending.length) / most)));
  return starts.flatMap((start, i) => {
    const end = starts[i + 1] ?? Infinity;
    const members = rows.filter((row) => at(values, row) >= start && at(values, row) < end);
    if (members.length === 0) return [];
    const own = members.map((row) => at(values, row));
    return [{ label: `${compact(smallestOf(own), 2)}-${compact(largestOf(own), 2)}`, rows: members }];
  });
}

/** Fitted losses over a grid of two columns. */
interface LossGrid {
  readonly xs: readonly number[];
  readonly ys: readonly number[];
  /** By x, then by y. */
  readonly losses: readonly (readonly number[])[];
}

/**
 * Lines of equal fitted loss over two columns, and the points: D1 and D2 of upcycled models, else size and tokens.
 * Other columns stand at their medians.
 */
export function contourCharts(part: LawPart): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const [x, y] = names.includes("D2") ? ["D1", "D2"] : ["N", "D"];
  if (!names.includes(x) || !names.includes(y)) return [];
  const values = medians(part);
  const grid = lossGrid(part, x, y, values);
  const losses = grid.losses.flat();
  const [low, high] = [smallestOf(losses), largestOf(losses)];
  if (!(high > low)) return [];
  const others = names.filter((name) => name !== x && name !== y);
  const levels = Array.from({ length: contourLines }, (_, i) => low + ((i + 0.5) / contourLines) * (high - low));
  const dots = sample(indices(points.n), mostContourPoints);
  return [
    {
      id: idOf("contours", part),
      title: titleOf(`Contours of the loss over ${x} and ${y}`, part),
      xLabel: `${x}, ${unitOf(part, x)}`,
      yLabel: `${y}, ${unitOf(part, y)}`,
      xLog: true,
      yLog: true,
      level: null,
      note: `Along a line the fitted loss is the same${constantColumns(others, values)}; dots are where points lie.`,
      series: [
        ...levels.flatMap((level, i) => contourSeries(grid, level, i + 1)),
        {
          label: "points",
          tone: 0,
          kind: "cloud",
          x: dots.map((row) => at(valueAt(points.columns, x), row)),
          y: dots.map((row) => at(valueAt(points.columns, y), row)),
        },
      ],
    },
  ];
}

function lossGrid(part: LawPart, x: string, y: string, values: Readonly<Record<string, number>>): LossGrid {
  const along = (name: string): number[] => {
    const column = valueAt(part.points.columns, name);
    return spaced(smallestOf(column), largestOf(column), contourSteps);
  };
  const [xs, ys] = [along(x), along(y)];
  const losses = xs.map((one) => {
    const valueOf = (name: string, other: number): number =>
      name === x ? one : name === y ? other : valueAt(values, name);
    return part.predict(
      Object.fromEntries(part.columns.map(({ name }) => [name, ys.map((other) => valueOf(name, other))])),
    );
  });
  return { xs, ys, losses };
}

/** The line on which the loss is `level`; none where it has fewer than two points. */
function contourSeries({ xs, ys, losses }: LossGrid, level: number, tone: number): ChartSeries[] {
  const line = xs.flatMap((x, i) => {
    const y = levelCrossing(ys, at(losses, i), level);
    return y === null ? [] : [{ x, y }];
  });
  if (line.length < 2) return [];
  const [x, y] = [line.map((place) => rounded(place.x)), line.map((place) => rounded(place.y))];
  return [{ label: fixed(level, 3), tone, kind: "line", x, y }];
}

/** Where the losses along y meet `level`, which they do at most once, because losses fall along y; null where not. */
function levelCrossing(ys: readonly number[], losses: readonly number[], level: number): number | null {
  const k = losses.findIndex((loss, j) => j > 0 && (at(losses, j - 1) - level) * (loss - level) <= 0);
  if (k < 1) return null;
  const [before, after] = [at(losses, k - 1), at(losses, k)];
  const share = (level - before) / (after - before || 1);
  return at(ys, k - 1) * (at(ys, k) / at(ys, k - 1)) ** share;
}

/**
 * Loss along lines of equal compute, C = 6 N D (upcycled: 6 N D2), where a law has size and tokens. Other columns stand
 * at their medians.
 */
export function isoFlopCharts(part: LawPart): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const tokens = names.includes("D2") ? "D2" : "D";
  const [N, D] = [points.columns.N, points.columns[tokens]];
  if (!names.includes("N") || !names.includes(tokens) || N === undefined || D === undefined || points.n === 0)
    return [];
  const values = medians(part);
  const others = names.filter((name) => name !== "N" && name !== tokens);
  const compute = N.map((size, i) => 6 * size * at(D, i));
  const budgets = spaced(smallestOf(compute), largestOf(compute), isoFlopLines);
  const sizes = spaced(smallestOf(N), largestOf(N), isoFlopSteps);
  const [fewest, most] = [smallestOf(D) / 3, largestOf(D) * 3];
  return [
    {
      id: idOf("isoflop", part),
      title: titleOf("Equal compute", part),
      xLabel: "N, parameters",
      yLabel: "loss, nats per token",
      xLog: true,
      yLog: false,
      level: null,
      note:
        `Fitted loss along lines of equal C = 6 N ${tokens}${constantColumns(others, values)}, from the smallest ` +
        "compute of the points to the largest; the lowest point of a line is the best size for its compute.",
      series: budgets.flatMap((budget, tone) => {
        const near = sizes.filter((size) => budget / (6 * size) >= fewest && budget / (6 * size) <= most);
        return isoFlopSeries(part, tokens, { budget, sizes: near, values }, tone);
      }),
    },
  ];
}

interface ComputeLine {
  /** Compute C in FLOP. */
  readonly budget: number;
  readonly sizes: readonly number[];
  /** Values of the columns but size and tokens. */
  readonly values: Readonly<Record<string, number>>;
}

/** The line of one compute; none where fewer than three sizes have a number of tokens near those of the points. */
function isoFlopSeries(
  part: LawPart,
  tokens: string,
  { budget, sizes, values }: ComputeLine,
  tone: number,
): ChartSeries[] {
  if (sizes.length < 3) return [];
  const valueOf = (name: string, size: number): number => {
    if (name === "N") return size;
    return name === tokens ? budget / (6 * size) : valueAt(values, name);
  };
  const losses = part.predict(
    Object.fromEntries(part.columns.map(({ name }) => [name, sizes.map((size) => valueOf(name, size))])),
  );
  const label = `${budget.toExponential(1).replace("e+", "e")} FLOP`;
  return [{ label, tone, kind: "line", x: sizes.map(rounded), y: losses.map(rounded) }];
}
