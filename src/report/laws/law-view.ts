/** What the page of a fit draws: curves, points, residuals, profiles and clouds, as plain numbers. */
import { valueAt, at as elementAt } from "../../base/at.js";
import type { Fit } from "../../laws/fitting/fit.js";
import type { Criteria, Quality } from "../../laws/fitting/compare.js";
import type { BootstrapInterval } from "../../laws/fitting/bootstrap.js";
import type { Interval, Profile } from "../../laws/fitting/profile.js";
import type { Misfit } from "../../laws/fitting/misfit.js";
import type { Rival } from "../../laws/fitting/rivals.js";
import type { Points } from "../../laws/forms/types.js";
import { indices, rounded, sample, type Chart } from "./chart.js";
import { partsOf } from "./law-part.js";
import { contourCharts, isoFlopCharts, lossCharts } from "./part-charts.js";

export type { Chart } from "./chart.js";

/** A finished fit with everything that was asked about it. */
export interface LawResult {
  readonly fit: Fit;
  readonly points: Points;
  /** Parameters that a token uses, by point; null where the table does not say them. */
  readonly active: Float64Array | null;
  readonly quality: Quality;
  readonly profiles: Readonly<Record<string, Profile>>;
  readonly bootstrap: Readonly<Record<string, BootstrapInterval>>;
  /** Parameters of every bootstrap draw, in natural units, by name. */
  readonly draws: Readonly<Record<string, Float64Array>>;
  readonly predictions: readonly {
    readonly at: Readonly<Record<string, number>>;
    readonly group: string | null;
    readonly loss: number;
    readonly profile: Profile | null;
    readonly bootstrap: BootstrapInterval | null;
    /** Where the loss of a new training run lies. */
    readonly newRun: Interval;
    /** How far the place lies outside of the points; empty inside. */
    readonly warnings: readonly unknown[];
  }[];
  /** Whether the residuals hold a pattern; null where there are too few points to say. */
  readonly misfit: Pick<Misfit, "isFlagged"> | null;
  /** Points far from the fit. */
  readonly outliers: readonly unknown[];
  /** Other forms over the same columns. */
  readonly rivals: readonly { readonly law: string; readonly verdict: Rival["verdict"] }[];
  /** Training runs that the points come from, and how alike those of one are. */
  readonly noise: { readonly runs: number | null; readonly correlation: number | null };
  readonly comparison: readonly Criteria[];
  /** What to be careful about, a sentence each. */
  readonly warnings: readonly string[];
  /** Name of the table that the points are from. */
  readonly file: string;
  /** Rows of the table. */
  readonly rows: number;
  /** Which rows were left out, and why; empty where none was. */
  readonly leftOut: string;
  /** The column of the table, or the expression over its columns, that each column of the law is read from. */
  readonly columns: Readonly<Record<string, string>>;
  /** Version of Upcycle. */
  readonly version: string;
  /** A shell command that makes the same page again. */
  readonly command: string;
}

const mostPoints = 1500;
const mostDraws = 800;
const mostClouds = 6;

/** All charts of a fit. */
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

/** Residuals against predictions. */
function residualCharts({ fit, points }: LawResult): Chart[] {
  const rows = sample(indices(points.n), mostPoints);
  const predictions = rows.map((row) => rounded(elementAt(points.loss, row) * Math.exp(elementAt(fit.residuals, row))));
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
          x: predictions,
          y: rows.map((row) => rounded(elementAt(fit.residuals, row))),
        },
      ],
    },
  ];
}

/** A fit of which parameters were profiled. */
interface ProfiledFit {
  readonly fit: {
    readonly law: { readonly parameters: readonly { readonly name: string }[] };
    readonly params: LawResult["fit"]["params"];
  };
  readonly profiles: LawResult["profiles"];
}

/** The deviance along each parameter that was profiled. */
export function profileCharts({ fit, profiles }: ProfiledFit): Chart[] {
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
 * A profile's curve with nine further points between each two. The square root of the deviance, negative on the left of
 * the optimum, is nearly a straight line, so it is interpolated as one and squared again.
 */
function smoothed({ curve }: Profile): Profile["curve"] {
  const bottom = curve.findIndex(({ deviance }) => deviance === 0);
  const root = (i: number): number => Math.sign(i - bottom) * Math.sqrt(elementAt(curve, i).deviance);
  return curve.flatMap((point, i) =>
    i === 0
      ? [point]
      : Array.from({ length: 10 }, (_, k) => {
          const part = (k + 1) / 10;
          const between = root(i - 1) + part * (root(i) - root(i - 1));
          return {
            value: elementAt(curve, i - 1).value + part * (point.value - elementAt(curve, i - 1).value),
            deviance: between * between,
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
  return pairs.slice(0, mostClouds).flatMap(([one, other], i): Chart[] => {
    const [xs, ys] = [draws[one], draws[other]];
    if (xs === undefined || ys === undefined || xs.length === 0) return [];
    const rows = sample(indices(xs.length), mostDraws);
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
