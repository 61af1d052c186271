/** The loss curves of a study as a figure: shapes as data, which `svgText` writes as SVG and `rasterOf` as pixels. */
import { at } from "../../base/at.js";
import { compact, flops } from "../../base/format.js";
import type { ArmResult, StudyResult } from "../../model/results/result.js";
import { escapeHtml } from "../page/escape.js";
import { textSize, type Figure, type Shape } from "../page/figure-shapes.js";
import { armTones, toneIndices } from "../page/palette.js";
import { armCurve, mainParent } from "./statistics.js";
import { MOST_TOLD } from "./told-arms.js";

type Point = Extract<Shape, { readonly kind: "text" }>["at"];

const [ink, pale] = ["#33383f", "#d5dae0"];
const legendWidth = 250;
const [left, top, plotWidth, plotHeight] = [66, 34, 560, 380];

/**
 * Held-out loss against training tokens or FLOPs: for each arm the mean over its seeds with a band from the lowest to
 * the highest, and the parent's loss; in a grid, arms that differ in their parents alone look alike. Null where no arm
 * has two measurements.
 */
export function lossFigure(result: StudyResult, axis: "tokens" | "flops"): Figure | null {
  const curves = result.arms.map(armCurve);
  const xs = curves.flatMap((curve) => curve[axis]);
  const last = Math.max(...xs);
  if (!(last > 0)) return null;
  const [low, high] = lossRange(curves, axis, last);
  const right = left + plotWidth;
  const bottom = top + plotHeight;
  const x = (value: number): number => left + (plotWidth * value) / last;
  const y = (loss: number): number => bottom - (plotHeight * (loss - low)) / (high - low);
  const rows = legendRows(result);
  const tones = toneIndices(rows.map(({ first }) => first));
  const shapes: Shape[] = [];
  const line = (points: readonly Point[], stroke: string, width: number, dash: readonly number[] = []): Shape => ({
    kind: "line",
    points,
    stroke,
    width,
    dash,
    clipped: true,
  });
  for (const tick of ticks(low, high)) {
    shapes.push(
      line(
        [
          [left, y(tick)],
          [right, y(tick)],
        ],
        pale,
        1,
      ),
    );
    shapes.push({
      kind: "text",
      at: [left - 8, y(tick) + 4],
      anchor: "end",
      text: tickText(tick, high - low),
      fill: ink,
    });
  }
  for (const tick of ticks(0, last)) {
    shapes.push({
      ...line(
        [
          [x(tick), bottom],
          [x(tick), bottom + 5],
        ],
        ink,
        1,
      ),
      clipped: false,
    } as Shape);
    const text = axis === "tokens" ? compact(tick) : flops(tick).replace(/FLOP$/, "");
    shapes.push({ kind: "text", at: [x(tick), bottom + 20], anchor: "middle", text, fill: ink });
  }
  const { loss } = mainParent(result);
  if (result.parents.length === 1)
    shapes.push(
      line(
        [
          [left, y(loss)],
          [right, y(loss)],
        ],
        ink,
        1,
        [2, 4],
      ),
    );
  for (const [index, curve] of curves.entries()) {
    const { arm } = at(result.arms, index);
    const row = rows.findIndex(({ name }) => name === arm || name === at(result.arms, index).id);
    const { light } = at(armTones, at(tones, row));
    const points = (values: readonly number[]): Point[] => values.map((value, i) => [x(at(curve[axis], i)), y(value)]);
    shapes.push({
      kind: "band",
      points: [...points(curve.low), ...points(curve.high).reverse()],
      fill: light,
      opacity: 0.18,
    });
    shapes.push(line(points(curve.mean), light, 2, dashOf(row, tones)));
  }
  shapes.push({
    ...line(
      [
        [left, top],
        [left, bottom],
        [right, bottom],
      ],
      ink,
      1,
    ),
    clipped: false,
  } as Shape);
  const title = `Held-out loss against ${axis === "tokens" ? "training tokens" : "training FLOPs"}`;
  shapes.push({ kind: "text", at: [left, top - 14], anchor: "start", text: `${title} (nats per token)`, fill: ink });
  shapes.push(...legend(rows, tones, { start: right + 24, withParent: result.parents.length === 1 }));
  return {
    title,
    width: right + 24 + legendWidth,
    height: Math.max(bottom + 40, top + 22 * (rows.length + 2)),
    frame: [left, top, right, bottom],
    shapes,
  };
}

/** What one line of the legend stands for: an arm, or, in a grid, an arm of the file behind all of its parents. */
interface LegendRow {
  /** `id` of the arm, or the name that it has in the file. */
  readonly name: string;
  readonly label: string;
  readonly first: ArmResult;
}

function legendRows({ arms, parents }: StudyResult): LegendRow[] {
  if (arms.length <= MOST_TOLD || parents.length === 1)
    return arms.map((arm) => ({ name: arm.id, label: arm.label, first: arm }));
  return [...new Set(arms.map(({ arm }) => arm))].map((name) => {
    const own = arms.filter(({ arm }) => arm === name);
    const first = at(own, 0);
    return { name, label: first.label.replace(`, ${first.parent}`, ""), first };
  });
}

function legend(
  named: readonly LegendRow[],
  tones: readonly number[],
  { start, withParent }: { readonly start: number; readonly withParent: boolean },
): Shape[] {
  const rows = named.map(({ label }, index) => ({
    text: label.length > 32 ? `${label.slice(0, 31)}…` : label,
    stroke: at(armTones, at(tones, index)).light,
    dash: dashOf(index, tones),
    width: 2,
  }));
  if (withParent) rows.push({ text: "parent", stroke: ink, dash: [2, 4], width: 1 });
  return rows.flatMap(({ text, stroke, dash, width }, row): Shape[] => {
    const y = top + 8 + 22 * row;
    return [
      {
        kind: "line",
        points: [
          [start, y],
          [start + 26, y],
        ],
        stroke,
        width,
        dash,
        clipped: false,
      },
      { kind: "text", at: [start + 34, y + 4], anchor: "start", text, fill: ink },
    ];
  });
}

/** Arms that share a colour are told apart by dashes. */
function dashOf(index: number, tones: readonly number[]): readonly number[] {
  const before = tones.slice(0, index).filter((tone) => tone === tones[index]).length;
  return at([[], [8, 4], [2, 3], [10, 3, 2, 3]], before % 4);
}

/** From the lowest loss to the highest of the last nine tenths; what is above, the beginning, is cut off. */
function lossRange(
  curves: readonly ReturnType<typeof armCurve>[],
  axis: "tokens" | "flops",
  last: number,
): readonly [number, number] {
  const low = Math.min(...curves.flatMap((curve) => curve.low));
  const late = curves.flatMap((curve) => curve.high.filter((_, i) => at(curve[axis], i) >= 0.1 * last));
  const high = Math.max(...late);
  const margin = Math.max(0.05 * (high - low), 1e-6 * Math.abs(high), 1e-9);
  return [low - margin, high + margin];
}

/** Some five round numbers between two. */
export function ticks(low: number, high: number): number[] {
  const rough = (high - low) / 5;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * ([1, 2, 5, 10].find((factor) => factor * unit >= rough) ?? 10);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first;
  return Array.from({ length: count + 1 }, (_, i) => (first + i) * step);
}

const tickText = (tick: number, range: number): string =>
  tick.toFixed(Math.min(6, Math.max(1, 1 - Math.floor(Math.log10(range)))));

/** The figure as SVG, which needs nothing else. */
export function svgText({ title, width, height, frame, shapes }: Figure): string {
  const [x, y, right, bottom] = frame;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
      `font-family="sans-serif" font-size="${textSize}">`,
    `<title>${escapeHtml(title)}</title>`,
    `<defs><clipPath id="plot"><rect x="${x}" y="${y}" width="${right - x}" height="${bottom - y}"/></clipPath></defs>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...shapes.map(shapeText),
    "</svg>",
    "",
  ].join("\n");
}

const clip = ' clip-path="url(#plot)"';
const pointsText = (points: readonly Point[]): string =>
  points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");

function shapeText(shape: Shape): string {
  switch (shape.kind) {
    case "band":
      return (
        `<polygon points="${pointsText(shape.points)}" fill="${shape.fill}" ` +
        `fill-opacity="${shape.opacity}"${clip}/>`
      );
    case "line": {
      const dash = shape.dash.length === 0 ? "" : ` stroke-dasharray="${shape.dash.join(" ")}"`;
      return (
        `<polyline points="${pointsText(shape.points)}" fill="none" stroke="${shape.stroke}" ` +
        `stroke-width="${shape.width}"${dash}${shape.clipped ? clip : ""}/>`
      );
    }
    case "text":
      return (
        `<text x="${shape.at[0].toFixed(2)}" y="${shape.at[1].toFixed(2)}" text-anchor="${shape.anchor}" ` +
        `fill="${shape.fill}">${escapeHtml(shape.text)}</text>`
      );
  }
}
