/** What the points say against a fit, beyond its parameters: as warnings, a sentence each. */
import { at, valueAt } from "../../base/at.js";
import { percent, significant } from "../../base/format.js";
import type { Points } from "../forms/types.js";
import type { Quality } from "./compare.js";
import type { Fit } from "./fit.js";
import type { LossName } from "../solvers/loss.js";
import { warning, type Warning } from "./identification.js";
import type { Misfit } from "./misfit.js";
import type { Outlier } from "./outliers.js";
import type { Rival } from "./rivals.js";
import { runNoise, type RunNoise } from "./run-noise.js";
import type { Tangent } from "./tangent.js";

/** What a point is called, such as its line in a file. */
export type PointName = (i: number) => string;

/** A law that leaves more of the variance than this undescribed is no description. */
export const poorShare = 0.5;

/** Whether the fit is worth anything at all. */
export function worthWarnings({ status }: Fit, { r2 }: Quality): Warning[] {
  const described = `it describes ${percent(Math.max(0, r2))} of the variance of the losses`;
  if (status === "no-better-than-constant") {
    const text =
      `This is no fit: the law describes the losses no better than one number for all of them (${described}). ` +
      "Look at the formula, at signs and starts (--bounds, --start), and at the columns.";
    return [warning("no-fit", [], text)];
  }
  if (r2 >= poorShare) return [];
  return [warning("no-fit", [], `The law hardly fits: ${described}.`)];
}

/** Columns that grow along a run: checkpoints of one run differ in the first of them that a law has. */
const runningColumns = ["D2", "D", "S1"];

/** Columns by which points of one run agree; null where points cannot be checkpoints of runs. */
export function columnsOfRuns(columns: readonly string[]): readonly string[] | null {
  const running = runningColumns.find((name) => columns.includes(name));
  const others = columns.filter((name) => name !== running && !(running === "S1" && name === "S2"));
  return running === undefined || others.length === 0 ? null : others;
}

/** Independent points would look like this in fewer than one table of so many. */
const dependence = 0.01;
const noticeable = 0.3;

/** Points that go together. */
export interface Dependence {
  readonly noise: RunNoise;
  /** What each point's run would be called. */
  readonly runs: readonly string[];
}

/**
 * Whether points that agree in all but their tokens have residuals that go together, as checkpoints of one run do; said
 * where nobody named the runs. Null: nothing of the kind.
 */
export function dependenceOf(fit: Fit, points: Points, tangent: Tangent): Dependence | null {
  const names = columnsOfRuns(fit.law.columns.map(({ name }) => name));
  if (points.cluster !== undefined || names === null) return null;
  const runs = Array.from({ length: points.n }, (_, i) =>
    [points.group?.[i] ?? "", ...names.map((name) => at(valueAt(points.columns, name), i))].join(" "),
  );
  const noise = runNoise(tangent, runs);
  const isNoticed = noise !== null && noise.independence < dependence && noise.correlation > noticeable;
  return isNoticed ? { noise, runs } : null;
}

/** Says that residuals go together, and what to do. */
export function dependenceWarning(fit: Fit, { noise: { runs, correlation } }: Dependence): Warning {
  const names = columnsOfRuns(fit.law.columns.map(({ name }) => name)) ?? [];
  const text =
    `Points with the same ${names.join(" and ")} have residuals that go together (${runs} groups, correlation ` +
    `${significant(correlation, 2)}), as several checkpoints of one run do. Intervals take points as independent and ` +
    `are then too narrow: name the column of the run (--cluster ` +
    `run${names.length === 1 ? `, or --cluster ${names[0]}` : ""}).`;
  return warning("clustered", [], text);
}

/** Says that a pattern is left in the residuals. */
export function misfitWarning({ probability, share, by, freedom: [patterns] }: Misfit): Warning {
  const odds =
    probability < 1e-4 ? "fewer than one table in 10,000" : `${significant(100 * probability, 2)} % of tables`;
  const what =
    by === "patterns"
      ? `${patterns} smooth functions of the columns take ${percent(share)} of the residuals' variance`
      : `repeated points scatter less than the fit misses them by`;
  const text =
    `The points depart from this form: ${what}, as in ${odds} if the form were true. Intervals do not contain that ` +
    "error; look at the residuals, and compare forms (--compare).";
  return warning("misfit", [], text);
}

const mostNamed = 5;

/** Names the points that lie far from the fit, and says what they weigh in a fit by this loss. */
export function outlierWarning(outliers: readonly Outlier[], loss: LossName, pointName: PointName): Warning[] {
  if (outliers.length === 0) return [];
  const named = outliers.slice(0, mostNamed).map(({ point, residual, size }) => {
    const side = residual > 0 ? "above" : "below";
    return `${pointName(point)} (${significant(100 * Math.abs(residual), 2)} % ${side}, ${size.toFixed(1)} times)`;
  });
  const more = outliers.length > mostNamed ? `, and ${outliers.length - mostNamed} more` : "";
  const text =
    `Far from the fit, in multiples of the usual residual: ${named.join(", ")}${more}. Check those runs. ` +
    (loss === "huber" || loss === "lad"
      ? `The loss of this fit (${loss}) gives them little weight, but they widen its intervals: take them out of the ` +
        "file where they are mistakes."
      : "A robust loss (--loss huber) gives them little weight.");
  return [warning("outliers", [], text)];
}

/** Names rows that are there more than once. */
export function duplicateWarning(points: Points, pointName: PointName): Warning[] {
  const first = new Map<string, number>();
  const pairs: string[] = [];
  for (let i = 0; i < points.n; i++) {
    const values = Object.values(points.columns).map((column) => at(column, i));
    const key = JSON.stringify([points.group?.[i], points.cluster?.[i], ...values.map(String), at(points.loss, i)]);
    const earlier = first.get(key);
    if (earlier === undefined) first.set(key, i);
    else pairs.push(`${pointName(i)} as ${pointName(earlier)}`);
  }
  if (pairs.length === 0) return [];
  const more = pairs.length > mostNamed ? `, and ${pairs.length - mostNamed} more` : "";
  const text =
    `${pairs.length} row${pairs.length === 1 ? " is" : "s are"} there twice, with every value the same ` +
    `(${pairs.slice(0, mostNamed).join(", ")}${more}): each counts as a measurement of its own, so intervals are too ` +
    "narrow unless they are.";
  return [warning("duplicates", [], text)];
}

/** Says which forms the points cannot tell apart, and which of them describe the points better. */
export function rivalWarnings(rivals: readonly Rival[]): Warning[] {
  const withVerdict = (verdict: Rival["verdict"]): string[] =>
    rivals.filter((rival) => rival.verdict === verdict).map(({ fit }) => fit.law.id);
  const [unknown, better] = [withVerdict("cannot tell"), withVerdict("better")];
  return [
    ...(unknown.length === 0
      ? []
      : [
          warning(
            "rivals",
            [],
            `The points cannot tell this form from ${unknown.join(", ")}: where they differ, beyond the points, ` +
              "neither prediction is to be preferred.",
          ),
        ]),
    ...(better.length === 0 ? [] : [warning("rivals", [], `The points are described better by ${better.join(", ")}.`)]),
  ];
}
