/**
 * Charts as SVG markup: they need no script, follow the page's colours through its variables, and carry their own look,
 * so that they are files as well once the variables are written out. One unit is one CSS pixel at the width of a phone.
 */
import { at } from "../../base/at.js";
import { compact, fixed } from "../../base/format.js";
import { escapeHtml } from "./escape.js";

/** One axis: its ends, logarithmic or not, and how its values are written. */
export interface SvgAxis {
  readonly low: number;
  readonly high: number;
  readonly log: boolean;
  readonly label: string;
  /** Decimals of a linear axis follow from its steps where this is left out. */
  readonly format?: (value: number) => string;
}

/** A line; gaps are null. */
export interface SvgLine {
  readonly label: string;
  /** A CSS colour. */
  readonly colour: string;
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
  readonly dash?: boolean;
  /** Ends of a band at every x. */
  readonly low?: readonly (number | null)[];
  readonly high?: readonly (number | null)[];
  /** A line if left out, else dots of this kind. */
  readonly kind?: "line" | "dots" | "cloud" | "mark";
}

/** A vertical line at a value, or a shaded range of x. */
export interface SvgMark {
  readonly x: number;
  readonly label: string;
}

/** A chart of lines. */
export interface SvgChart {
  /** What is shown, for those who do not see it. */
  readonly description: string;
  readonly x: SvgAxis;
  readonly y: SvgAxis;
  readonly lines: readonly SvgLine[];
  readonly marks?: readonly SvgMark[];
  /** A dashed horizontal line with its name. */
  readonly level?: { readonly value: number; readonly label: string };
  /** The part of x on which the laws were fitted: what is left and right of it is shaded. */
  readonly fitted?: readonly [number, number] | null;
}

/** A map of cells, each with the name of a class. */
export interface SvgMap {
  readonly description: string;
  readonly x: SvgAxis;
  readonly y: SvgAxis;
  /** Classes by row (y) and column (x), both in ascending order and evenly apart on their axes. */
  readonly cells: readonly (readonly string[])[];
  readonly colours: Readonly<Record<string, string>>;
  /** Where a ring is drawn. */
  readonly here: { readonly x: number; readonly y: number; readonly label: string };
  readonly fittedX: readonly [number, number] | null;
  readonly fittedY: readonly [number, number] | null;
}

const width = 360;
const height = 270;
const box = { left: 46, right: 70, top: 12, bottom: 40 } as const;
const mapBox = { left: 46, right: 12, top: 12, bottom: 40 } as const;
type Box = Readonly<Record<keyof typeof box, number>>;

type Scale = (value: number) => number;

/** Position of a value along an axis. */
function scaleOf({ low, high, log }: SvgAxis, from: number, to: number): Scale {
  const map = log ? Math.log : (value: number) => value;
  const [a, b] = [map(low), map(high)];
  return (value) => from + ((map(value) - a) / (b - a)) * (to - from);
}

/** Round values inside of an axis: powers of ten, with 2 and 5 where there are few, or steps of 1, 2 or 5. */
export function ticksOf({ low, high, log }: SvgAxis): readonly number[] {
  if (log) {
    const decades = Math.log10(high / low);
    const every = decades > 6 ? 2 : 1;
    const leads = decades < 2 ? [1, 2, 5] : [1];
    const first = Math.floor(Math.log10(low) + 1e-9);
    const ticks: number[] = [];
    for (let decade = first; decade <= Math.log10(high); decade++) {
      if (decade % every === 0) ticks.push(...leads.map((lead) => lead * 10 ** decade));
    }
    return ticks.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
  }
  const rough = (high - low) / 7;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step =
    at(
      [1, 2, 5, 10].filter((lead) => lead * power >= rough * 0.999),
      0,
    ) * power;
  const count = Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => (Math.ceil(low / step - 1e-9) + i) * step);
}

/** How the ticks are written: all with as many decimals as their step needs. */
export function tickWords(axis: SvgAxis, ticks: readonly number[]): readonly string[] {
  if (axis.format !== undefined) return ticks.map(axis.format);
  if (axis.log) return ticks.map((tick) => compact(tick, 1));
  const step = ticks.length > 1 ? at(ticks, 1) - at(ticks, 0) : 1;
  // The step itself may have two leading digits, as 2.5 has.
  const decimals = [0, 1, 2, 3, 4, 5, 6].find((count) => Math.abs(Number(step.toFixed(count)) / step - 1) < 1e-6) ?? 6;
  return ticks.map((tick) => fixed(tick, decimals));
}

const round = (value: number): string => String(Number(value.toFixed(1)));

function axes(x: SvgAxis, y: SvgAxis, sides: Box, toX: Scale, toY: Scale): string {
  const [bottom, right] = [height - sides.bottom, width - sides.right];
  const xs = ticksOf(x);
  const ys = ticksOf(y);
  const across = tickWords(x, xs).map(
    (text, i) =>
      `<text x="${round(toX(at(xs, i)))}" y="${bottom + 15}" text-anchor="middle">${escapeHtml(text)}</text>`,
  );
  const up = tickWords(y, ys).map((text, i) => {
    const place = round(toY(at(ys, i)));
    return (
      `<line stroke="var(--grid)" x1="${sides.left}" x2="${right}" y1="${place}" y2="${place}"/>` +
      `<text x="${sides.left - 5}" y="${place}" dy="4" text-anchor="end">${escapeHtml(text)}</text>`
    );
  });
  return (
    up.join("") +
    across.join("") +
    `<text x="${sides.left}" y="${height - 6}">${escapeHtml(x.label)}</text>` +
    `<text x="${sides.left - 40}" y="${sides.top - 2}">${escapeHtml(y.label)}</text>`
  );
}

const frame = (description: string, body: string): string =>
  `<svg class="view" viewBox="0 -6 ${width} ${height + 6}" role="img" aria-label="${escapeHtml(description)}" ` +
  `font-family="sans-serif" font-size="11" fill="var(--muted)">${body}</svg>`;

/** A chart of lines, each with its name at its end. */
export function svgChart({ description, x, y, lines, marks = [], level, fitted = null }: SvgChart): string {
  const [right, bottom] = [width - box.right, height - box.bottom];
  const toX = scaleOf(x, box.left, right);
  const toY = scaleOf(y, bottom, box.top);
  // Where a line ends near the bottom, the word in the shaded part stands at the top.
  const isLow = lines.some((line) => {
    const last = line.y.findLast((value) => isShown(value, y));
    return last != null && toY(last) > bottom - 30;
  });
  const wordAt = isLow ? box.top + 11 : bottom - 5;
  const shades = fitted === null ? "" : beyondFit(x, fitted, toX, { top: box.top, bottom, wordAt });
  const bands = lines.map((line) => band(line, x, y, toX, toY));
  const drawn = lines.map((line) =>
    line.kind === undefined || line.kind === "line" ? path(line, x, y, toX, toY) : dots(line, x, y, toX, toY),
  );
  const names = endLabels(lines, x, y, toX, toY);
  const verticals = marks
    .filter(({ x: place }) => place >= x.low && place <= x.high)
    .map(({ x: place, label }, i) => {
      const px = round(toX(place));
      return (
        `<line ${dotted} x1="${px}" x2="${px}" y1="${box.top}" y2="${bottom}"/>` +
        `<text x="${px}" y="${box.top + 10 + 12 * i}" dx="3">${escapeHtml(label)}</text>`
      );
    });
  const base = level === undefined || !isShown(level.value, y) ? "" : levelLine(level, toY(level.value), right);
  const lower = shades + axes(x, y, box, toX, toY) + bands.join("") + base;
  return frame(description, lower + drawn.join("") + verticals.join("") + names);
}

const dotted = 'stroke="var(--muted)" stroke-dasharray="2 3"';

function levelLine({ label }: { readonly label: string }, y: number, right: number): string {
  const line = `<line stroke="var(--muted)" stroke-dasharray="5 4" x1="${box.left}" x2="${right}" y1="${round(y)}" `;
  const text = `<text x="${right - 2}" y="${round(y - 3)}" text-anchor="end">${escapeHtml(label)}</text>`;
  return `${line}y2="${round(y)}"/>${text}`;
}

/** The band of a line as a faint shape: a gap ends a piece of it. */
function band({ x: xs, low, high, colour }: SvgLine, x: SvgAxis, y: SvgAxis, toX: Scale, toY: Scale): string {
  if (low === undefined || high === undefined) return "";
  const inside = (value: number): number => Math.min(y.high, Math.max(y.low, value));
  const pieces: (readonly [px: number, low: number, high: number])[][] = [[]];
  xs.forEach((place, i) => {
    const [bottom, top] = [low[i] ?? null, high[i] ?? null];
    if (bottom === null || top === null || !isShown(place, x)) pieces.push([]);
    else at(pieces, pieces.length - 1).push([toX(place), toY(inside(bottom)), toY(inside(top))]);
  });
  return pieces
    .filter((piece) => piece.length > 1)
    .map((piece) => {
      const there = piece.map(([px, , top]) => `${round(px)} ${round(top)}`);
      const back = piece.map(([px, bottom]) => `${round(px)} ${round(bottom)}`).reverse();
      return `<path fill="${escapeHtml(colour)}" fill-opacity="0.17" d="M${[...there, ...back].join("L")}z"/>`;
    })
    .join("");
}

/** Radius and opacity of the dots of each kind. */
const dotLooks = { dots: [2.4, 1], cloud: [1.4, 0.45], mark: [4.5, 1] } as const;

function dots(
  { x: xs, y: ys, colour, kind = "dots" }: SvgLine,
  x: SvgAxis,
  y: SvgAxis,
  toX: Scale,
  toY: Scale,
): string {
  const [radius, opacity] = dotLooks[kind === "line" ? "dots" : kind];
  const circles = xs.map((place, i) => {
    const value = ys[i] ?? null;
    if (!isShown(value, y) || !isShown(place, x)) return "";
    return `<circle cx="${round(toX(place))}" cy="${round(toY(value))}" r="${radius}"/>`;
  });
  return `<g fill="${escapeHtml(colour)}" fill-opacity="${opacity}">${circles.join("")}</g>`;
}

/** Heights of what is drawn beyond the fitted range. */
interface ShadeHeights {
  readonly top: number;
  readonly bottom: number;
  readonly wordAt: number;
}

/** Shading left and right of the fitted range. */
function beyondFit(
  axis: SvgAxis,
  fitted: readonly [number, number],
  toX: Scale,
  { top, bottom, wordAt }: ShadeHeights,
): string {
  const parts: (readonly [number, number])[] = [
    [axis.low, Math.min(axis.high, fitted[0])],
    [Math.max(axis.low, fitted[1]), axis.high],
  ];
  return parts
    .filter(([from, to]) => to > from)
    .map(([from, to]) => {
      const [left, right] = [toX(from), toX(to)];
      const word =
        right - left > 56 ? `<text x="${round(right - 4)}" y="${wordAt}" text-anchor="end">beyond fit</text>` : "";
      const size = `width="${round(right - left)}" height="${round(bottom - top)}"`;
      return `<rect fill="var(--beyond)" x="${round(left)}" y="${top}" ${size}/>${word}`;
    })
    .join("");
}

const isShown = (value: number | null, { low, high }: SvgAxis): value is number =>
  value !== null && Number.isFinite(value) && value >= low && value <= high;

function path({ x: xs, y: ys, colour, dash }: SvgLine, x: SvgAxis, y: SvgAxis, toX: Scale, toY: Scale): string {
  let pen = "M";
  const steps = xs.flatMap((value, i) => {
    const level = ys[i] ?? null;
    if (!isShown(level, y) || !isShown(value, x)) {
      pen = "M";
      return [];
    }
    const step = `${pen}${round(toX(value))} ${round(toY(level))}`;
    pen = "L";
    return [step];
  });
  const dashes = dash === true ? ' stroke-dasharray="4 3"' : "";
  return `<path fill="none" stroke="${escapeHtml(colour)}" stroke-width="2" d="${steps.join("")}"${dashes}/>`;
}

/** The names of lines at their last point, pushed apart where they would lie on each other. */
function endLabels(lines: readonly SvgLine[], x: SvgAxis, y: SvgAxis, toX: Scale, toY: Scale): string {
  const ends = lines
    .flatMap(({ label, colour, x: xs, y: ys }) => {
      const last = xs.findLastIndex((value, i) => isShown(value, x) && isShown(ys[i] ?? null, y));
      if (last < 0) return [];
      return [{ label, colour, x: toX(at(xs, last)), y: toY(ys[last] ?? NaN) }];
    })
    .toSorted((one, other) => one.y - other.y);
  const apart = 12;
  ends.forEach((end, i) => {
    const above = ends[i - 1];
    if (above !== undefined && end.y < above.y + apart) end.y = above.y + apart;
  });
  return ends
    .map(
      ({ label, colour, x: px, y: py }) =>
        `<text x="${round(px + 4)}" y="${round(py)}" dy="4" fill="${escapeHtml(colour)}">${escapeHtml(label)}</text>`,
    )
    .join("");
}

/** A map of classes over two logarithmic axes, with a ring where the plan is. */
export function svgMap({ description, x, y, cells, colours, here, fittedX, fittedY }: SvgMap): string {
  const [right, bottom] = [width - mapBox.right, height - mapBox.bottom];
  const toX = scaleOf(x, mapBox.left, right);
  const toY = scaleOf(y, bottom, mapBox.top);
  const rows = cells.length;
  const cellHeight = (bottom - mapBox.top) / rows;
  const drawn = cells.map((row, i) => {
    const cellWidth = (right - mapBox.left) / row.length;
    const top = bottom - (i + 1) * cellHeight;
    // Neighbours of one class are one rectangle.
    return runsOf(row)
      .map(
        ({ name, from, to }) =>
          `<rect x="${round(mapBox.left + from * cellWidth)}" y="${round(top)}" ` +
          `width="${round((to - from) * cellWidth + 0.3)}" height="${round(cellHeight + 0.3)}" ` +
          `fill="${escapeHtml(colours[name] ?? "none")}"/>`,
      )
      .join("");
  });
  const edges = [
    ...(fittedX ?? [])
      .filter((value) => value > x.low && value < x.high)
      .map((value) => {
        const px = round(toX(value));
        return `<line ${dotted} x1="${px}" x2="${px}" y1="${mapBox.top}" y2="${bottom}"/>`;
      }),
    ...(fittedY ?? [])
      .filter((value) => value > y.low && value < y.high)
      .map((value) => {
        const py = round(toY(value));
        return `<line ${dotted} x1="${mapBox.left}" x2="${right}" y1="${py}" y2="${py}"/>`;
      }),
  ];
  const [px, py] = [toX(here.x), toY(here.y)];
  const isRight = px > (mapBox.left + right) / 2;
  const ring =
    `<circle fill="var(--page)" stroke="var(--ink)" stroke-width="2" cx="${round(px)}" cy="${round(py)}" r="5"/>` +
    '<text fill="var(--ink)" font-weight="600" paint-order="stroke" stroke="var(--page)" stroke-width="3" ' +
    `x="${round(px + (isRight ? -9 : 9))}" y="${round(py)}" dy="4" ` +
    `text-anchor="${isRight ? "end" : "start"}">${escapeHtml(here.label)}</text>`;
  return frame(description, axes(x, y, mapBox, toX, toY) + drawn.join("") + edges.join("") + ring);
}

/** Equal neighbours of a row as runs. */
function runsOf(
  row: readonly string[],
): readonly { readonly name: string; readonly from: number; readonly to: number }[] {
  const runs: { name: string; from: number; to: number }[] = [];
  row.forEach((name, i) => {
    const last = runs.at(-1);
    if (last?.name === name) last.to = i + 1;
    else runs.push({ name, from: i, to: i + 1 });
  });
  return runs;
}
