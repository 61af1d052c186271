/** What the page of a fit draws: curves, points, residuals, profiles and clouds, as plain numbers. */
import { compact } from "../base/format.js";
import type { Fit } from "../laws/fit.js";
import type { Criteria, Quality } from "../laws/compare.js";
import type { BootstrapInterval } from "../laws/bootstrap.js";
import type { Profile } from "../laws/profile.js";
import { placesOf, predict, type Points } from "../laws/types.js";

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
  readonly series: readonly Series[];
  /** A dashed horizontal line. */
  readonly level: number | null;
}

export interface Series {
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

const rounded = (value: number): number => Number(value.toPrecision(6));
const spaced = (low: number, high: number, steps: number): number[] => Array.from({ length: steps }, (_, i) => low * (high / low) ** (i / (steps - 1)));
const middle = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? NaN;
};

export function lawCharts(result: LawResult): Chart[] {
  return [...lossCharts(result), ...residualCharts(result), ...isoFlopCharts(result), ...profileCharts(result), ...cloudCharts(result)];
}

/** Loss against one column, one line for each of a few values of another, the rest at their medians near that line. */
function lossCharts(result: LawResult): Chart[] {
  const { fit, points } = result;
  if (fit.law.groups !== undefined) return [];
  const names = fit.law.columns.map(({ name }) => name);
  const pairs: [string, string][] = names.includes("D2") ? [["D2", "D1"], ["D1", "D2"], ...(names.includes("N") ? [["D2", "N"] as [string, string]] : [])]
    : names.includes("N") && names.includes("D") ? [["D", "N"], ["N", "D"]]
    : names.length >= 2 ? [[names[0]!, names[1]!], [names[1]!, names[0]!]] : [[names[0]!, names[0]!]];
  return pairs.map(([x, by], i): Chart => {
    const bins = binsOf(points.columns[by]!, x === by ? 1 : mostLines);
    const others = names.filter((name) => name !== x && name !== by);
    return {
      id: `loss-${i}`, xLog: x !== "S", level: null, xLabel: `${x}, ${unitOf(result, x)}`, yLabel: "loss, nats per token",
      title: x === by ? `Loss against ${x}` : `Loss against ${x}, by ${by}`,
      note: others.length === 0 ? "Dots are points, lines the fit in the middle of each group." : `Dots are points; lines the fit at the middle of each group, ${others.join(" and ")} at its median.`,
      series: bins.flatMap(({ label, rows }, tone): Series[] => {
        const at = (name: string): number => middle(rows.map((row) => points.columns[name]![row]!));
        const values = rows.map((row) => points.columns[x]![row]!);
        const [low, high] = [Math.min(...values), Math.max(...values)];
        const grid = high > low && low > 0 ? spaced(low, high, curveSteps) : [low];
        const places = placesOf(Object.fromEntries(names.map((name) => [name, name === x ? grid : grid.map(() => at(name))])));
        const shown = thinned(rows, mostPoints / bins.length);
        const name = x === by ? "points" : `${by} ${label}`;
        return [
          { label: name, tone, kind: "dots", x: shown.map((row) => points.columns[x]![row]!), y: shown.map((row) => rounded(points.loss[row]!)) },
          { label: `${name}, fit`, tone, kind: "line", x: grid.map(rounded), y: [...predict(fit.law, fit.params, places)].map(rounded) },
        ];
      }),
    };
  });
}

/** Groups of rows by the values of a column: its distinct values, or ranges of equal count where there are many. */
function binsOf(values: Float64Array, most: number): { label: string; rows: number[] }[] {
  const distinct = [...new Set(values)].sort((a, b) => a - b);
  const rows = Array.from(values, (_, i) => i);
  if (distinct.length <= most) return distinct.map((value) => ({ label: compact(value), rows: rows.filter((i) => values[i] === value) }));
  const sorted = [...values].sort((a, b) => a - b);
  const cuts = Array.from({ length: most + 1 }, (_, i) => (i === most ? Infinity : sorted[Math.floor((i * sorted.length) / most)]!));
  return Array.from({ length: most }, (_, i) => rows.filter((row) => values[row]! >= cuts[i]! && values[row]! < cuts[i + 1]!))
    .filter((members) => members.length > 0)
    .map((members) => {
      const found = members.map((row) => values[row]!);
      return { label: `${compact(Math.min(...found), 2)}-${compact(Math.max(...found), 2)}`, rows: members };
    });
}

function residualCharts({ fit, points }: LawResult): Chart[] {
  const rows = thinned(Array.from({ length: points.n }, (_, i) => i), mostPoints);
  const predicted = rows.map((row) => rounded(points.loss[row]! * Math.exp(fit.residuals[row]!)));
  return [{
    id: "residuals", title: "Residuals", xLabel: "predicted loss, nats per token", yLabel: "ln predicted - ln observed", xLog: false, level: 0,
    note: "A trend or a fan means that the law, or the assumption of equal noise, does not hold.",
    series: [{ label: "points", tone: 2, kind: "dots", x: predicted, y: rows.map((row) => rounded(fit.residuals[row]!)) }],
  }];
}

/** Loss along lines of equal compute, C = 6 N D, where a law has just N and D. */
function isoFlopCharts({ fit, points }: LawResult): Chart[] {
  const names = fit.law.columns.map(({ name }) => name);
  const { N, D } = points.columns;
  if (names.length !== 2 || N === undefined || D === undefined || fit.law.groups !== undefined) return [];
  const compute = N.map((size, i) => 6 * size * D[i]!);
  const budgets = spaced(Math.min(...compute), Math.max(...compute), 6);
  const sizes = spaced(Math.min(...N), Math.max(...N), 60);
  const tokens = [Math.min(...D) / 3, Math.max(...D) * 3];
  return [{
    id: "isoflop", title: "Equal compute", xLabel: "N, parameters", yLabel: "loss, nats per token", xLog: true, level: null,
    note: "Fitted loss along lines of equal C = 6 N D, from the smallest compute of the points to the largest; the lowest point of a line is the best size for its compute.",
    series: budgets.flatMap((budget, tone): Series[] => {
      const along = sizes.filter((size) => budget / (6 * size) >= tokens[0]! && budget / (6 * size) <= tokens[1]!);
      if (along.length < 3) return [];
      const losses = predict(fit.law, fit.params, placesOf({ N: along, D: along.map((size) => budget / (6 * size)) }));
      return [{ label: `${budget.toExponential(1).replace("e+", "e")} FLOP`, tone, kind: "line", x: along.map(rounded), y: [...losses].map(rounded) }];
    }),
  }];
}

function profileCharts({ fit, profiles }: LawResult): Chart[] {
  return fit.law.parameters.flatMap(({ name }): Chart[] => {
    const found = profiles[name];
    if (found === undefined) return [];
    const curve = smoothed(found).filter(({ deviance }) => deviance <= 4 * found.threshold);
    return [{
      id: `profile-${name}`, title: `Profile of ${name}`, xLabel: name, yLabel: "deviance", xLog: false, level: rounded(found.threshold),
      note: `Values below the dashed line form the ${Number((100 * found.level).toFixed(2))} % interval.${found.lowOpen || found.highOpen ? " It is open: the data do not bound this parameter on that side." : ""}`,
      series: [
        { label: "deviance", tone: 2, kind: "line", x: curve.map(({ value }) => rounded(value)), y: curve.map(({ deviance }) => rounded(deviance)) },
        { label: "optimum", tone: 3, kind: "mark", x: [rounded(fit.params[name]!)], y: [0] },
      ],
    }];
  });
}

/** The square root of the deviance, with the sign of the side, is nearly a straight line: interpolated as one, squared again. */
function smoothed({ curve }: Profile): Profile["curve"] {
  const bottom = curve.findIndex(({ deviance }) => deviance === 0);
  const root = (i: number): number => Math.sign(i - bottom) * Math.sqrt(curve[i]!.deviance);
  return curve.flatMap((point, i) =>
    i === 0 ? [point] : Array.from({ length: 10 }, (_, k) => {
      const part = (k + 1) / 10;
      const at = root(i - 1) + part * (root(i) - root(i - 1));
      return { value: curve[i - 1]!.value + part * (point.value - curve[i - 1]!.value), deviance: at * at };
    }));
}

/** Pairs of parameters over bootstrap draws: the exponents with each other, and each with the irreducible loss. */
function cloudCharts({ fit, draws }: LawResult): Chart[] {
  const exponents = fit.law.parameters.filter(({ role }) => role === "exponent").map(({ name }) => name);
  const constant = fit.law.parameters.find(({ role }) => role === "constant")?.name;
  const pairs = [...exponents.slice(1).map((name, i) => [exponents[i]!, name] as const), ...(constant === undefined ? [] : exponents.map((name) => [constant, name] as const))];
  return pairs.slice(0, 6).flatMap(([one, other], i): Chart[] => {
    const [xs, ys] = [draws[one], draws[other]];
    if (xs === undefined || ys === undefined || xs.length === 0) return [];
    const rows = thinned(Array.from({ length: xs.length }, (_, row) => row), mostDraws);
    return [{
      id: `cloud-${i}`, title: `${other} against ${one}`, xLabel: one, yLabel: other, xLog: false, level: null, note: "Bootstrap draws, and the fit.",
      series: [
        { label: "draws", tone: 2, kind: "cloud", x: rows.map((row) => rounded(xs[row]!)), y: rows.map((row) => rounded(ys[row]!)) },
        { label: "fit", tone: 3, kind: "mark", x: [rounded(fit.params[one]!)], y: [rounded(fit.params[other]!)] },
      ],
    }];
  });
}

function unitOf({ fit }: LawResult, name: string): string {
  return fit.law.columns.find((column) => column.name === name)?.unit ?? "";
}

function thinned(rows: readonly number[], most: number): number[] {
  const step = Math.max(1, rows.length / most);
  return Array.from({ length: Math.min(rows.length, Math.floor(most)) }, (_, i) => rows[Math.floor(i * step)]!);
}
