/**
 * Charts of a law over its columns: losses, contours, lines of equal compute. `N` parameters, `D` tokens, `D1` tokens
 * of the parent, `D2` further tokens.
 */
import { at, valueAt } from "../../base/at.js";
import { largestOf, smallestOf } from "../../base/extremes.js";
import { compact, significant } from "../../base/format.js";
import { indices, middle, roundLevels, rounded, spaced, sample, type Chart, type ChartSeries } from "./chart.js";
import { constantColumns, idOf, medians, titleOf, unitOf, type LawPart } from "./law-part.js";

const mostLines = 6;
const mostPoints = 1500;
const mostContourPoints = 300;
const curveSteps = 48;
const contourSteps = 60;
const contourLines = 8;
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
  const others = names.filter((name) => name !== x && name !== by);
  const slice = sliceAt(part, others);
  const bins =
    x === by ? [{ label: "", rows: slice.rows }] : binsOf(valueAt(part.points.columns, by), slice.rows, mostLines);
  const shown = bins.reduce((sum, { rows }) => sum + rows.length, 0);
  return {
    id: idOf(id, part),
    xLog: isPositive(valueAt(part.points.columns, x)) && x !== "S",
    yLog: false,
    level: null,
    xLabel: `${x}, ${unitOf(part, x)}`,
    yLabel: "loss, nats per token",
    title: titleOf(x === by ? `Loss against ${x}` : `Loss against ${x}, by ${by}`, part),
    note:
      `Dots are points, the line of their colour the fit at the same value${slice.words}.` +
      (shown < part.points.n
        ? ` ${bins.length} values of ${by} are shown, with ${shown} of ${part.points.n} points.`
        : ""),
    series: bins.flatMap(({ label, rows }, i) =>
      lossSeries(part, x, rows, {
        ramp: bins.length < 2 ? 0.5 : i / (bins.length - 1),
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
  { ramp, label, most }: { readonly ramp: number; readonly label: string; readonly most: number },
): ChartSeries[] {
  const valuesOf = (name: string, members: readonly number[]): number[] =>
    members.map((row) => at(valueAt(points.columns, name), row));
  const xs = valuesOf(x, rows);
  const [low, high] = [smallestOf(xs), largestOf(xs)];
  const grid = high > low ? along(low, high, curveSteps) : [low];
  const places = Object.fromEntries(
    columns.map(({ name }) => {
      const median = middle(valuesOf(name, rows));
      return [name, name === x ? grid : grid.map(() => median)];
    }),
  );
  const dots = sample(rows, most);
  return [
    { label, tone: 0, ramp, kind: "dots", x: valuesOf(x, dots), y: dots.map((row) => rounded(at(points.loss, row))) },
    { label: `${label}, fit`, tone: 0, ramp, kind: "line", x: grid.map(rounded), y: predict(places).map(rounded) },
  ];
}

interface Slice {
  readonly rows: readonly number[];
  /** What the points of the slice have in common: `, with N = 1.00B`. */
  readonly words: string;
}

/** Fewer points than this show no curve. */
const fewestInSlice = 6;

/**
 * The points at which the columns that a chart does not show have one value, near their medians, so that dots lie by
 * their lines; all points where hardly any are alike in them.
 */
function sliceAt({ points }: LawPart, others: readonly string[]): Slice {
  const all = indices(points.n);
  const chosen = others.map((name) => {
    const values = valueAt(points.columns, name);
    const center = middle([...values]);
    const groups = rowsByValue(values, all);
    return groups.find((rows) => rows.some((row) => at(values, row) === center)) ?? [];
  });
  const rows = all.filter((row) => chosen.every((group) => group.includes(row)));
  if (others.length === 0) return { rows: all, words: "" };
  if (rows.length < fewestInSlice) return { rows: all, words: `, ${others.join(" and ")} at the median of the dots` };
  const values = others.map((name) => {
    const column = valueAt(points.columns, name);
    return `${name} = ${compact(middle(rows.map((row) => at(column, row))))}`;
  });
  return { rows, words: `, with ${values.join(", ")}` };
}

interface Bin {
  readonly label: string;
  readonly rows: readonly number[];
}

/** Values within this part of each other count as one. */
const sameValue = 0.03;
/** Where single values have fewer points than this in the mean, ranges of values show more. */
const fewestPerValue = 3;

const isPositive = (values: ArrayLike<number>): boolean => Array.from(values).every((value) => value > 0);

/** Numbers from `low` to `high`, in equal ratios where both are positive. */
const along = (low: number, high: number, steps: number): number[] =>
  low > 0 ? spaced(low, high, steps) : Array.from({ length: steps }, (_, i) => low + ((high - low) * i) / (steps - 1));

/** Rows by value, ascending; values that hardly differ are one. */
function rowsByValue(values: Float64Array, rows: readonly number[]): number[][] {
  const groups: number[][] = [];
  for (const row of rows.toSorted((a, b) => at(values, a) - at(values, b))) {
    const group = groups.at(-1);
    const first = group === undefined ? NaN : at(values, at(group, 0));
    if (group !== undefined && Math.abs(at(values, row) - first) <= sameValue * Math.abs(first)) group.push(row);
    else groups.push([row]);
  }
  return groups;
}

/**
 * Groups of rows by the values of a column. Of many values those with most points are taken, evenly over the range, so
 * that every dot lies by a line of its own value; where nearly each point has a value of its own, ranges of equal
 * count.
 */
function binsOf(values: Float64Array, rows: readonly number[], most: number): Bin[] {
  const groups = rowsByValue(values, rows);
  const labelled = (own: readonly number[]): Bin => ({
    label: compact(middle(own.map((row) => at(values, row)))),
    rows: own,
  });
  if (groups.length <= most) return groups.map(labelled);
  const chosen = Array.from({ length: most }, (_, i) => {
    const part = groups.slice(Math.floor((i * groups.length) / most), Math.floor(((i + 1) * groups.length) / most));
    return part.reduce((largest, group) => (group.length > largest.length ? group : largest));
  });
  if (chosen.reduce((sum, own) => sum + own.length, 0) >= fewestPerValue * most) return chosen.map(labelled);
  const ascending = rows.map((row) => at(values, row)).sort((a, b) => a - b);
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
  if (![x, y].every((name) => isPositive(valueAt(points.columns, name)))) return [];
  const values = medians(part);
  const grid = lossGrid(part, x, y, values);
  const losses = grid.losses.flat();
  const [low, high] = [smallestOf(losses), largestOf(losses)];
  if (!(high > low)) return [];
  const others = names.filter((name) => name !== x && name !== y);
  const { levels, decimals } = roundLevels(low, high, contourLines);
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
        ...levels.flatMap((level, i) =>
          contourSeries(grid, level, {
            label: level.toFixed(decimals),
            ramp: levels.length < 2 ? 0.5 : i / (levels.length - 1),
          }),
        ),
        {
          label: "points",
          tone: 3,
          kind: "cloud",
          x: dots.map((row) => at(valueAt(points.columns, x), row)),
          y: dots.map((row) => at(valueAt(points.columns, y), row)),
        },
      ],
    },
  ];
}

function lossGrid(part: LawPart, x: string, y: string, values: Readonly<Record<string, number>>): LossGrid {
  const steps = (name: string): number[] => {
    const column = valueAt(part.points.columns, name);
    return spaced(smallestOf(column), largestOf(column), contourSteps);
  };
  const [xs, ys] = [steps(x), steps(y)];
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
function contourSeries(
  { xs, ys, losses }: LossGrid,
  level: number,
  { label, ramp }: { readonly label: string; readonly ramp: number },
): ChartSeries[] {
  const line = xs.flatMap((x, i) => {
    const y = levelCrossing(ys, at(losses, i), level);
    return y === null ? [] : [{ x, y }];
  });
  if (line.length < 2) return [];
  const [x, y] = [line.map((place) => rounded(place.x)), line.map((place) => rounded(place.y))];
  return [{ label, tone: 0, ramp, kind: "line", x, y }];
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
 * Loss along lines of equal compute, C = 6 r N D (upcycled: 6 r N D2), where a law has size and tokens; r is how many
 * parameters a token uses over N. Other columns stand at their medians.
 */
export function isoFlopCharts(part: LawPart): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const tokens = names.includes("D2") ? "D2" : "D";
  const [N, D] = [points.columns.N, points.columns[tokens]];
  if (!names.includes("N") || !names.includes(tokens) || N === undefined || D === undefined || points.n === 0)
    return [];
  if (!isPositive(N) || !isPositive(D)) return [];
  const values = medians(part);
  const others = names.filter((name) => name !== "N" && name !== tokens);
  const ratio = part.activeRatio ?? 1;
  const compute = N.map((size, i) => 6 * ratio * size * at(D, i));
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
        `Fitted loss along lines of equal ${computeWords(part, tokens)}${constantColumns(others, values)}, from the ` +
        "smallest compute of the points to the largest; the lowest point of a line is the best size for its compute.",
      series: budgets.flatMap((budget, i) => {
        const tokensOf = (size: number): number => budget / (6 * ratio * size);
        const near = sizes.filter((size) => tokensOf(size) >= fewest && tokensOf(size) <= most);
        return isoFlopSeries(part, tokens, { budget, sizes: near, values, tokensOf }, i / (isoFlopLines - 1));
      }),
    },
  ];
}

/** What a model's compute is counted as: its active parameters where the points say them. */
function computeWords({ activeRatio }: LawPart, tokens: string): string {
  if (activeRatio === null)
    return tokens === "D2"
      ? "C = 6 N D2, which counts the parent's parameters (the points have no column active for those of the mixture)"
      : `C = 6 N ${tokens}`;
  return Math.abs(activeRatio - 1) < 0.005
    ? `C = 6 N ${tokens}`
    : `C = 6 r N ${tokens} with r = ${significant(activeRatio)}, the active parameters over N`;
}

interface ComputeLine {
  /** Compute C in FLOP. */
  readonly budget: number;
  readonly sizes: readonly number[];
  /** Values of the columns but size and tokens. */
  readonly values: Readonly<Record<string, number>>;
  /** Tokens that the compute pays for at a size. */
  readonly tokensOf: (size: number) => number;
}

/** The line of one compute; none where fewer than three sizes have a number of tokens near those of the points. */
function isoFlopSeries(
  part: LawPart,
  tokens: string,
  { budget, sizes, values, tokensOf }: ComputeLine,
  ramp: number,
): ChartSeries[] {
  if (sizes.length < 3) return [];
  const valueOf = (name: string, size: number): number => {
    if (name === "N") return size;
    return name === tokens ? tokensOf(size) : valueAt(values, name);
  };
  const losses = part.predict(
    Object.fromEntries(part.columns.map(({ name }) => [name, sizes.map((size) => valueOf(name, size))])),
  );
  const label = `${budget.toExponential(1).replace("e+", "e")} FLOP`;
  return [{ label, tone: 0, ramp, kind: "line", x: sizes.map(rounded), y: losses.map(rounded) }];
}
