/** What the page of a fit draws: curves, points, residuals, profiles and clouds, as plain numbers. */
import { valueAt, at as elementAt } from "../../base/at.js";
import { largestOf, smallestOf } from "../../base/extremes.js";
import { compact, fixed } from "../../base/format.js";
import type { Fit } from "../../laws/fitting/fit.js";
import { pick, type Criteria, type Quality } from "../../laws/fitting/compare.js";
import type { BootstrapInterval } from "../../laws/fitting/bootstrap.js";
import type { Profile } from "../../laws/fitting/profile.js";
import { placesOf, predict, type Law, type Points } from "../../laws/forms/types.js";

/** A finished fit with everything that was asked about it. */
export interface LawResult {
  readonly fit: Fit;
  readonly points: Points;
  readonly quality: Quality;
  readonly profiles: Readonly<Record<string, Profile>>;
  readonly bootstrap: Readonly<Record<string, BootstrapInterval>>;
  /** Natural parameters of every bootstrap draw. */
  readonly draws: Readonly<Record<string, Float64Array>>;
  readonly predictions: readonly {
    readonly at: Readonly<Record<string, number>>;
    readonly group: string | null;
    readonly loss: number;
    readonly profile: Profile | null;
    readonly bootstrap: BootstrapInterval | null;
  }[];
  readonly comparison: readonly Criteria[];
  /** Sentences: about the points, the fit, the predictions. */
  readonly warnings: readonly string[];
  /** Where the points are from, and what was left out. */
  readonly file: string;
  readonly rows: number;
  readonly leftOut: string;
  readonly columns: Readonly<Record<string, string>>;
  /** Of this tool. */
  readonly version: string;
  /** A shell command that makes the same page again. */
  readonly command: string;
}

/** One chart: dots, lines, or both over one x. */
export interface Chart {
  readonly id: string;
  readonly title: string;
  readonly note: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xLog: boolean;
  readonly yLog: boolean;
  readonly series: readonly ChartSeries[];
  /** A dashed horizontal line. */
  readonly level: number | null;
}

interface ChartSeries {
  readonly label: string;
  readonly tone: number;
  readonly kind: "dots" | "line" | "cloud" | "mark";
  readonly x: readonly number[];
  readonly y: readonly number[];
}

const mostLines = 6;
const mostPoints = 1500;
const mostDraws = 800;
const curveSteps = 48;
const contourSteps = 60;
/** Fewer than tones: dots have the first. */
const contourLines = 5;

const rounded = (value: number): number => Number(value.toPrecision(6));
const spaced = (low: number, high: number, steps: number): number[] =>
  Array.from({ length: steps }, (_, i) => low * (high / low) ** (i / (steps - 1)));
const middle = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
};

export function lawCharts(result: LawResult): Chart[] {
  const parts = partsOf(result);
  return [
    ...parts.flatMap(lossCharts),
    ...residualCharts(result),
    ...parts.flatMap(contourCharts),
    ...parts.flatMap(isoFlopCharts),
    ...profileCharts(result),
    ...cloudCharts(result),
  ];
}

/** A law, or one of several fitted together: its columns, its points, its predictions. */
interface Part {
  /** Of a law over groups; empty otherwise. */
  readonly group: string;
  readonly columns: Law["columns"];
  readonly points: Points;
  readonly predict: (columns: Readonly<Record<string, readonly number[]>>) => number[];
}

function partsOf({ fit: { law, params }, points }: LawResult): Part[] {
  const all = Array.from({ length: points.n }, (_, i) => i);
  return (law.groups ?? [{ name: "", columns: law.columns.map(({ name }) => name) }]).map(
    ({ name: group, columns }) => ({
      group,
      columns: law.columns.filter(({ name }) => columns.includes(name)),
      points:
        law.groups === undefined
          ? points
          : pick(
              points,
              all.filter((i) => points.group?.[i] === group),
            ),
      predict: (at) => {
        const n = elementAt(Object.values(at), 0).length;
        const unused = Object.fromEntries(
          law.columns
            .filter(({ name }) => at[name] === undefined)
            .map(({ name }) => [name, new Array<number>(n).fill(NaN)]),
        );
        return [
          ...predict(law, params, placesOf({ ...at, ...unused }, law.groups && new Array<string>(n).fill(group))),
        ];
      },
    }),
  );
}

const idOf = (id: string, { group }: Part): string => (group === "" ? id : `${id}-${group}`);
const titleOf = (title: string, { group }: Part): string => (group === "" ? title : `${title}, ${group}`);

/** Loss against one column, one line for each of a few values of another, the rest at their medians near that line. */
function lossCharts(part: Part): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const pairs: [string, string][] = names.includes("D2")
    ? [["D2", "D1"], ["D1", "D2"], ...(names.includes("N") ? [["D2", "N"] as [string, string]] : [])]
    : names.includes("N") && names.includes("D")
      ? [
          ["D", "N"],
          ["N", "D"],
        ]
      : names.length >= 2
        ? [
            [elementAt(names, 0), elementAt(names, 1)],
            [elementAt(names, 1), elementAt(names, 0)],
          ]
        : [[elementAt(names, 0), elementAt(names, 0)]];
  // Of several laws one chart each.
  return pairs.slice(0, part.group === "" ? undefined : 1).map(([x, by], i): Chart => {
    const bins = binsOf(valueAt(points.columns, by), x === by ? 1 : mostLines);
    const others = names.filter((name) => name !== x && name !== by);
    return {
      id: idOf(`loss-${i}`, part),
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
      series: bins.flatMap(({ label, rows }, tone): ChartSeries[] => {
        const at = (name: string): number => middle(rows.map((row) => elementAt(valueAt(points.columns, name), row)));
        const values = rows.map((row) => elementAt(valueAt(points.columns, x), row));
        const [low, high] = [smallestOf(values), largestOf(values)];
        const grid = high > low && low > 0 ? spaced(low, high, curveSteps) : [low];
        const shown = thinned(rows, mostPoints / bins.length);
        const name = x === by ? "points" : `${by} ${label}`;
        return [
          {
            label: name,
            tone,
            kind: "dots",
            x: shown.map((row) => elementAt(valueAt(points.columns, x), row)),
            y: shown.map((row) => rounded(elementAt(points.loss, row))),
          },
          {
            label: `${name}, fit`,
            tone,
            kind: "line",
            x: grid.map(rounded),
            y: part
              .predict(
                Object.fromEntries(names.map((column) => [column, column === x ? grid : grid.map(() => at(column))])),
              )
              .map(rounded),
          },
        ];
      }),
    };
  });
}

/** Groups of rows by the values of a column: its distinct values, or ranges of equal count where there are many. */
function binsOf(values: Float64Array, most: number): { label: string; rows: number[] }[] {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const rows = Array.from(values, (_, i) => i);
  if (distinct.length <= most)
    return distinct.map((value) => ({ label: compact(value), rows: rows.filter((i) => values[i] === value) }));
  const sorted = [...values].sort((a, b) => a - b);
  const cuts = Array.from({ length: most + 1 }, (_, i) =>
    i === most ? Infinity : elementAt(sorted, Math.floor((i * sorted.length) / most)),
  );
  return Array.from({ length: most }, (_, i) =>
    rows.filter(
      (row) => elementAt(values, row) >= elementAt(cuts, i) && elementAt(values, row) < elementAt(cuts, i + 1),
    ),
  )
    .filter((members) => members.length > 0)
    .map((members) => {
      const found = members.map((row) => elementAt(values, row));
      return { label: `${compact(smallestOf(found), 2)}-${compact(largestOf(found), 2)}`, rows: members };
    });
}

function residualCharts({ fit, points }: LawResult): Chart[] {
  const rows = thinned(
    Array.from({ length: points.n }, (_, i) => i),
    mostPoints,
  );
  const predicted = rows.map((row) => rounded(elementAt(points.loss, row) * Math.exp(elementAt(fit.residuals, row))));
  return [
    {
      id: "residuals",
      title: "Residuals",
      xLabel: "predicted loss, nats per token",
      yLabel: "ln predicted - ln observed",
      xLog: false,
      yLog: false,
      level: 0,
      note: "A trend or a fan means that the law, or the assumption of equal noise, does not hold.",
      series: [
        {
          label: "points",
          tone: 2,
          kind: "dots",
          x: predicted,
          y: rows.map((row) => rounded(elementAt(fit.residuals, row))),
        },
      ],
    },
  ];
}

/**
 * Lines of equal fitted loss over two columns, and the points: D1 and D2 of upcycled models, else size and tokens.
 * Other columns at their medians.
 */
function contourCharts(part: Part): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const [x, y] = names.includes("D2") ? ["D1", "D2"] : ["N", "D"];
  if (!names.includes(x) || !names.includes(y)) return [];
  const at = medians(part);
  const [xs, ys] = [valueAt(points.columns, x), valueAt(points.columns, y)].map((values) =>
    spaced(smallestOf(values), largestOf(values), contourSteps),
  ) as [number[], number[]];
  const rows = xs.map((one) =>
    part.predict(
      Object.fromEntries(
        names.map((name) => [name, ys.map((other) => (name === x ? one : name === y ? other : valueAt(at, name)))]),
      ),
    ),
  );
  const all = rows.flat();
  const [low, high] = [smallestOf(all), largestOf(all)];
  if (!(high > low)) return [];
  const others = names.filter((name) => name !== x && name !== y);
  const levels = Array.from({ length: contourLines }, (_, i) => low + ((i + 0.5) / contourLines) * (high - low));
  const shown = thinned(
    Array.from({ length: points.n }, (_, i) => i),
    300,
  );
  return [
    {
      id: idOf("contours", part),
      title: titleOf(`Contours of the loss over ${x} and ${y}`, part),
      xLabel: `${x}, ${unitOf(part, x)}`,
      yLabel: `${y}, ${unitOf(part, y)}`,
      xLog: true,
      yLog: true,
      level: null,
      note: `Along a line the fitted loss is the same${heldColumns(others, at)}; dots are where points lie.`,
      series: [
        ...levels.flatMap((level, tone): ChartSeries[] => {
          // Loss falls along y, so a level is met at most once for each x.
          const line = xs.flatMap((one, i): [number, number][] => {
            const column = elementAt(rows, i);
            const k = column.findIndex(
              (value, j) => j > 0 && (elementAt(column, j - 1) - level) * (value - level) <= 0,
            );
            if (k < 1) return [];
            const share = (level - elementAt(column, k - 1)) / (elementAt(column, k) - elementAt(column, k - 1) || 1);
            return [[one, elementAt(ys, k - 1) * (elementAt(ys, k) / elementAt(ys, k - 1)) ** share]];
          });
          return line.length < 2
            ? []
            : [
                {
                  label: fixed(level, 3),
                  tone: tone + 1,
                  kind: "line",
                  x: line.map(([one]) => rounded(one)),
                  y: line.map(([, other]) => rounded(other)),
                },
              ];
        }),
        {
          label: "points",
          tone: 0,
          kind: "cloud",
          x: shown.map((row) => elementAt(valueAt(points.columns, x), row)),
          y: shown.map((row) => elementAt(valueAt(points.columns, y), row)),
        },
      ],
    },
  ];
}

/**
 * Loss along lines of equal compute, C = 6 N D (upcycled: 6 N D2), where a law has size and tokens; other columns at
 * their medians.
 */
function isoFlopCharts(part: Part): Chart[] {
  const { points } = part;
  const names = part.columns.map(({ name }) => name);
  const tokens = names.includes("D2") ? "D2" : "D";
  const [N, D] = [points.columns.N, points.columns[tokens]];
  if (!names.includes("N") || !names.includes(tokens) || N === undefined || D === undefined || points.n === 0)
    return [];
  const at = medians(part);
  const others = names.filter((name) => name !== "N" && name !== tokens);
  const compute = N.map((size, i) => 6 * size * elementAt(D, i));
  const budgets = spaced(smallestOf(compute), largestOf(compute), 6);
  const sizes = spaced(smallestOf(N), largestOf(N), 60);
  const range = [smallestOf(D) / 3, largestOf(D) * 3];
  const fixedAt = heldColumns(others, at);
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
        `Fitted loss along lines of equal C = 6 N ${tokens}${fixedAt}, from the smallest compute of the points ` +
        "to the largest; the lowest point of a line is the best size for its compute.",
      series: budgets.flatMap((budget, tone): ChartSeries[] => {
        const along = sizes.filter(
          (size) => budget / (6 * size) >= elementAt(range, 0) && budget / (6 * size) <= elementAt(range, 1),
        );
        if (along.length < 3) return [];
        const losses = part.predict(
          Object.fromEntries(
            names.map((name) => [
              name,
              along.map((size) => (name === "N" ? size : name === tokens ? budget / (6 * size) : valueAt(at, name))),
            ]),
          ),
        );
        return [
          {
            label: `${budget.toExponential(1).replace("e+", "e")} FLOP`,
            tone,
            kind: "line",
            x: along.map(rounded),
            y: losses.map(rounded),
          },
        ];
      }),
    },
  ];
}

/** `, with N = 1.00B, D = 20.0B`: columns that a chart does not show, at the values they have in it. */
function heldColumns(names: readonly string[], values: Readonly<Record<string, number>>): string {
  return names.length === 0
    ? ""
    : `, with ${names.map((name) => `${name} = ${compact(valueAt(values, name))}`).join(", ")}`;
}

function medians({ columns, points }: Part): Readonly<Record<string, number>> {
  return Object.fromEntries(columns.map(({ name }) => [name, middle([...valueAt(points.columns, name)])]));
}

function profileCharts({ fit, profiles }: LawResult): Chart[] {
  return fit.law.parameters.flatMap(({ name }): Chart[] => {
    const profile = profiles[name];
    if (profile === undefined) return [];
    const curve = smoothed(profile).filter(({ deviance }) => deviance <= 4 * profile.threshold);
    return [
      {
        id: `profile-${name}`,
        title: `Profile of ${name}`,
        xLabel: name,
        yLabel: "deviance",
        xLog: false,
        yLog: false,
        level: rounded(profile.threshold),
        note: profileNote(profile),
        series: [
          {
            label: "deviance",
            tone: 2,
            kind: "line",
            x: curve.map(({ value }) => rounded(value)),
            y: curve.map(({ deviance }) => rounded(deviance)),
          },
          { label: "optimum", tone: 3, kind: "mark", x: [rounded(valueAt(fit.params, name))], y: [0] },
        ],
      },
    ];
  });
}

function profileNote({ level, lowOpen, highOpen }: Profile): string {
  const open = lowOpen || highOpen ? " It is open: the data do not bound this parameter on that side." : "";
  return `Values below the dashed line form the ${Number((100 * level).toFixed(2))} % interval.${open}`;
}

/**
 * The square root of the deviance, with the sign of the side, is nearly a straight line: interpolated as one, squared
 * again.
 */
function smoothed({ curve }: Profile): Profile["curve"] {
  const bottom = curve.findIndex(({ deviance }) => deviance === 0);
  const root = (i: number): number => Math.sign(i - bottom) * Math.sqrt(elementAt(curve, i).deviance);
  return curve.flatMap((point, i) =>
    i === 0
      ? [point]
      : Array.from({ length: 10 }, (_, k) => {
          const part = (k + 1) / 10;
          const at = root(i - 1) + part * (root(i) - root(i - 1));
          return {
            value: elementAt(curve, i - 1).value + part * (point.value - elementAt(curve, i - 1).value),
            deviance: at * at,
          };
        }),
  );
}

/** Pairs of parameters over bootstrap draws: the exponents with each other, and each with the irreducible loss. */
function cloudCharts({ fit, draws }: LawResult): Chart[] {
  const exponents = fit.law.parameters.filter(({ role }) => role === "exponent").map(({ name }) => name);
  const constant = fit.law.parameters.find(({ role }) => role === "constant")?.name;
  const pairs = [
    ...exponents.slice(1).map((name, i) => [elementAt(exponents, i), name] as const),
    ...(constant === undefined ? [] : exponents.map((name) => [constant, name] as const)),
  ];
  return pairs.slice(0, 6).flatMap(([one, other], i): Chart[] => {
    const [xs, ys] = [draws[one], draws[other]];
    if (xs === undefined || ys === undefined || xs.length === 0) return [];
    const rows = thinned(
      Array.from({ length: xs.length }, (_, row) => row),
      mostDraws,
    );
    return [
      {
        id: `cloud-${i}`,
        title: `${other} against ${one}`,
        xLabel: one,
        yLabel: other,
        xLog: false,
        yLog: false,
        level: null,
        note: "Bootstrap draws, and the fit.",
        series: [
          {
            label: "draws",
            tone: 2,
            kind: "cloud",
            x: rows.map((row) => rounded(elementAt(xs, row))),
            y: rows.map((row) => rounded(elementAt(ys, row))),
          },
          {
            label: "fit",
            tone: 3,
            kind: "mark",
            x: [rounded(valueAt(fit.params, one))],
            y: [rounded(valueAt(fit.params, other))],
          },
        ],
      },
    ];
  });
}

function unitOf({ columns }: Part, name: string): string {
  return columns.find((column) => column.name === name)?.unit ?? "";
}

function thinned(rows: readonly number[], most: number): number[] {
  const step = Math.max(1, rows.length / most);
  return Array.from({ length: Math.min(rows.length, Math.floor(most)) }, (_, i) =>
    elementAt(rows, Math.floor(i * step)),
  );
}
