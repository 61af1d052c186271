/**
 * Heat maps: matrices of one layer as SVG, rows of shares as cells. Colours are classes, so that they follow the mode.
 */
import { at } from "../../base/at.js";
import { escapeHtml } from "../page/escape.js";
import { loadClass } from "../study/load-map.js";

/** Upper ends of the classes of cosines, from unlike to alike. */
const cosineSteps: readonly number[] = [0, 0.2, 0.4, 0.6, 0.8, 0.95];

/** Class 1 to 7 of a cosine. */
export const cosineClass = (cosine: number): number => 1 + cosineSteps.filter((step) => cosine >= step).length;

/** The colour scale of cosines. */
export function cosineLegend(): string {
  const names = [
    "< 0",
    ...cosineSteps.slice(1).map((step, i) => `${at(cosineSteps, i)}–${step}`),
    `≥ ${cosineSteps.at(-1)}`,
  ];
  const items = names.map((name, i) => `<li><i class="cell l${i + 1}"></i>${name}</li>`);
  return `<ul class="scale" aria-label="Colour scale: cosine">${items.join("")}<li>cosine</li></ul>`;
}

/**
 * A square matrix as SVG, a path for each class of colour, with runs of equal cells as one piece. `null` cells stay
 * empty; `label` is plain text.
 */
export function matrixSvg(
  matrix: readonly (readonly (number | null)[])[],
  classOf: (value: number) => number,
  label: string,
): string {
  const paths = new Map<number, string[]>();
  matrix.forEach((row, y) => {
    for (let x = 0; x < row.length;) {
      const own = classAt(row, x, classOf);
      let end = x + 1;
      while (end < row.length && classAt(row, end, classOf) === own) end += 1;
      if (own !== null) paths.set(own, [...(paths.get(own) ?? []), `M${x} ${y}h${end - x}v1h${x - end}z`]);
      x = end;
    }
  });
  const size = matrix.length;
  const drawn = [...paths].map(([own, parts]) => `<path class="f${own}" d="${parts.join("")}"/>`).join("");
  return (
    `<svg class="matrix" viewBox="0 0 ${size} ${size}" role="img" aria-label="${escapeHtml(label)}" ` +
    `shape-rendering="crispEdges">${drawn}</svg>`
  );
}

function classAt(row: readonly (number | null)[], x: number, classOf: (value: number) => number): number | null {
  const value = row[x];
  return value === null || value === undefined ? null : classOf(value);
}

/** A row of a map: its name, shares (1 = equal) and a last column; all plain text. Null: there is nothing to show. */
export interface MapRow {
  readonly name: string;
  readonly shares: readonly number[] | null;
  readonly last: string;
}

/** More experts than this stand in groups, which break into lines on narrow screens. */
const mostInLine = 16;
const groupSize = 8;

/** Rows of cells with their names in front. `label` says what is shown, as plain text. */
export function shareMap(rows: readonly MapRow[], label: string): string {
  const experts = Math.max(...rows.map(({ shares }) => shares?.length ?? 0));
  const many = experts > mostInLine ? " many" : "";
  return (
    `<div class="grid named${many}" role="img" aria-label="${escapeHtml(label)}">` +
    `${rows.map((row) => mapRow(row, experts)).join("")}</div>`
  );
}

function mapRow({ name, shares, last }: MapRow, experts: number): string {
  const size = experts > mostInLine ? groupSize : experts;
  const groups: string[] = [];
  for (let start = 0; shares !== null && start < shares.length; start += size) {
    const cells = shares.slice(start, start + size).map((share) => `<i class="cell l${loadClass(share)}"></i>`);
    groups.push(`<span class="group" style="--n:${cells.length}">${cells.join("")}</span>`);
  }
  return (
    `<div class="row"><span class="layer">${escapeHtml(name)}</span><span class="cells">${groups.join("")}</span>` +
    `<span class="busiest">${escapeHtml(last)}</span></div>`
  );
}
