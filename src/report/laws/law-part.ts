/** A fitted law, or each of several laws that were fitted together, as what its charts need. */
import { at as elementAt, valueAt } from "../../base/at.js";
import { compact } from "../../base/format.js";
import { pick } from "../../laws/fitting/compare.js";
import type { Fit } from "../../laws/fitting/fit.js";
import { placesOf, predict, type Law, type Points } from "../../laws/forms/types.js";
import { indices, middle } from "./chart.js";

/** A law, or one of several fitted together: its columns, its points, its predictions. */
export interface LawPart {
  /** Name of the group of a law over groups; empty for any other law. */
  readonly group: string;
  readonly columns: Law["columns"];
  readonly points: Points;
  /** Parameters that a token uses over N, in the middle of the points; null where they do not say it. */
  readonly activeRatio: number | null;
  /** Losses at places that are given column by column. */
  readonly predict: (columns: Readonly<Record<string, readonly number[]>>) => number[];
}

/** The parts of a fit: one, or one for each group. */
export function partsOf({
  fit,
  points,
  active,
}: {
  readonly fit: Fit;
  readonly points: Points;
  readonly active: Float64Array | null;
}): LawPart[] {
  const { law } = fit;
  const groups = law.groups ?? [{ name: "", columns: law.columns.map(({ name }) => name) }];
  return groups.map(({ name: group, columns }) => ({
    group,
    columns: law.columns.filter(({ name }) => columns.includes(name)),
    points: law.groups === undefined ? points : pointsOfGroup(points, group),
    activeRatio: activeRatioOf(points, active, law.groups === undefined ? null : group),
    predict: (places) => predictionsOf(fit, group, places),
  }));
}

function activeRatioOf(
  { n, columns: { N }, group }: Points,
  active: Float64Array | null,
  name: string | null,
): number | null {
  if (active === null || N === undefined) return null;
  const ratios = indices(n)
    .filter((i) => name === null || group?.[i] === name)
    .map((i) => elementAt(active, i) / elementAt(N, i))
    .filter((ratio) => ratio > 0 && Number.isFinite(ratio));
  return ratios.length === 0 ? null : middle(ratios);
}

function pointsOfGroup(points: Points, group: string): Points {
  return pick(
    points,
    indices(points.n).filter((i) => points.group?.[i] === group),
  );
}

/** Columns that the group does not read are NaN. */
function predictionsOf(
  { law, params }: Fit,
  group: string,
  places: Readonly<Record<string, readonly number[]>>,
): number[] {
  const n = elementAt(Object.values(places), 0).length;
  const otherColumns = law.columns.filter(({ name }) => places[name] === undefined);
  const others = Object.fromEntries(otherColumns.map(({ name }) => [name, new Array<number>(n).fill(NaN)]));
  const groups = law.groups && new Array<string>(n).fill(group);
  return [...predict(law, params, placesOf({ ...places, ...others }, groups))];
}

/** The id of a part's chart. */
export const idOf = (id: string, { group }: LawPart): string => (group === "" ? id : `${id}-${group}`);

/** The title of a part's chart. */
export const titleOf = (title: string, { group }: LawPart): string => (group === "" ? title : `${title}, ${group}`);

/** The unit of a column. */
export function unitOf({ columns }: LawPart, name: string): string {
  return columns.find((column) => column.name === name)?.unit ?? "";
}

/** The median of every column. */
export function medians({ columns, points }: LawPart): Readonly<Record<string, number>> {
  return Object.fromEntries(columns.map(({ name }) => [name, middle([...valueAt(points.columns, name)])]));
}

/** The values that columns which a chart does not show have in it: `, with N = 1.00B, D = 20.0B`. */
export function constantColumns(names: readonly string[], values: Readonly<Record<string, number>>): string {
  if (names.length === 0) return "";
  return `, with ${names.map((name) => `${name} = ${compact(valueAt(values, name))}`).join(", ")}`;
}
