/** What a chart draws on the canvas of uPlot: lines, bands, dots, and what helps to read them. */
import type uPlot from "uplot";
import { plainColours, variable } from "./download.js";

/** One line of a chart, or one set of dots. `colour` is a CSS colour that may name variables. */
export interface ChartLine {
  readonly label: string;
  /** What files of numbers call it, where the label is shorter. */
  readonly name?: string;
  readonly colour: string;
  readonly dash?: readonly number[] | undefined;
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
  /** Ends of a band at every x. */
  readonly low?: readonly (number | null)[];
  readonly high?: readonly (number | null)[];
  /** A line if left out. `cloud`: small faint dots; `mark`: one large dot. */
  readonly kind?: "line" | "dots" | "cloud" | "mark";
}

/** A dot with a name. */
export interface ChartDot {
  readonly x: number;
  readonly y: number;
  readonly label: string;
  readonly colour: string;
}

/** What is drawn besides lines. */
export interface ChartMarks {
  /** A dashed horizontal line; its name stands above it, or below. */
  readonly level?: { readonly value: number; readonly label: string; readonly below?: boolean } | undefined;
  /** Dotted vertical lines. */
  readonly verticals?: readonly { readonly value: number; readonly label: string }[];
  /** The part of x on which a law was fitted: what is beyond it is shaded. */
  readonly fitted?: readonly [number, number] | null;
  readonly dots?: readonly ChartDot[];
  /** Whether lines have their names at their ends. */
  readonly names?: boolean;
}

/** A canvas with what is needed to draw in units of the chart. */
interface Pen {
  readonly ctx: CanvasRenderingContext2D;
  readonly ratio: number;
  readonly box: uPlot.BBox;
  readonly toX: (value: number) => number;
  readonly toY: (value: number) => number;
}

function penOf(u: uPlot): Pen {
  return {
    ctx: u.ctx,
    ratio: devicePixelRatio,
    box: u.bbox,
    toX: placeOn(u, "x"),
    toY: placeOn(u, "y"),
  };
}

/** Pixels of values: what `valToPos` says, which looks its scale up for every point. */
function placeOn(u: uPlot, scale: "x" | "y"): (value: number) => number {
  const { min, max, distr } = u.scales[scale]!;
  if (Number(distr) === 3 || min === undefined || max === undefined || min === null || max === null)
    return (value) => u.valToPos(value, scale, true);
  const [at, toMax] = [u.valToPos(min, scale, true), u.valToPos(max, scale, true)];
  const pixels = (toMax - at) / (max - min);
  return (value) => at + (value - min) * pixels;
}

/** Draws with the state of the canvas put back afterwards. */
function within(pen: Pen, isClipped: boolean, draw: () => void): void {
  const { ctx, box, ratio } = pen;
  ctx.save();
  ctx.font = fontOf(ratio);
  ctx.beginPath();
  if (isClipped) {
    ctx.rect(box.left, box.top, box.width, box.height);
    ctx.clip();
    ctx.beginPath();
  }
  draw();
  ctx.restore();
}

const fontOf = (ratio: number): string => `${11.5 * ratio}px ${getComputedStyle(document.body).fontFamily}`;

/** Radius of the dots of each kind, in CSS pixels. */
const radii = { dots: 2.6, cloud: 1.5, mark: 5 } as const;

/** Draws lines with their bands. Colours are read once per line: a chart may have a hundred of them. */
export function drawLines(u: uPlot, lines: readonly ChartLine[]): void {
  const pen = penOf(u);
  const { ctx, ratio } = pen;
  within(pen, true, () => {
    for (const line of lines) if (line.low !== undefined) drawBand(pen, line);
    ctx.lineWidth = (lines.length > 20 ? 1 : 1.8) * ratio;
    // Nobody sees the joints of thin lines, and they cost more than the lines.
    ctx.lineJoin = lines.length > 20 ? "bevel" : "round";
    for (const line of lines) {
      ctx.strokeStyle = ctx.fillStyle = plainColours(line.colour);
      if (line.kind === undefined || line.kind === "line") drawLine(pen, line);
      else drawDots(pen, line, radii[line.kind]);
    }
  });
}

function drawLine({ ctx, ratio, toX, toY }: Pen, { x, y, dash }: ChartLine): void {
  ctx.setLineDash((dash ?? []).map((part) => part * ratio));
  ctx.beginPath();
  let isPen = false;
  let only: number | null = null;
  for (let i = 0; i < x.length; i++) {
    const value = y[i];
    if (value === null || value === undefined) {
      isPen = false;
      continue;
    }
    only = only === null ? i : -1;
    if (isPen) ctx.lineTo(toX(x[i]!), toY(value));
    else ctx.moveTo(toX(x[i]!), toY(value));
    isPen = true;
  }
  ctx.stroke();
  // A single point makes no line.
  if (only === null || only < 0) return;
  ctx.beginPath();
  ctx.arc(toX(x[only]!), toY(y[only]!), 3 * ratio, 0, 2 * Math.PI);
  ctx.fill();
}

function drawDots({ ctx, ratio, toX, toY }: Pen, { x, y, kind }: ChartLine, radius: number): void {
  ctx.globalAlpha = kind === "cloud" ? 0.45 : 1;
  x.forEach((place, i) => {
    const value = y[i];
    if (value === null || value === undefined) return;
    ctx.beginPath();
    ctx.arc(toX(place), toY(value), radius * ratio, 0, 2 * Math.PI);
    ctx.fill();
  });
  ctx.globalAlpha = 1;
}

function drawBand({ ctx, toX, toY }: Pen, { x, low = [], high = [], colour }: ChartLine): void {
  ctx.fillStyle = plainColours(colour);
  ctx.globalAlpha = 0.17;
  let begin = 0;
  // A gap ends a piece of the band.
  for (let i = 0; i <= x.length; i++) {
    if (i < x.length && low[i] !== null && low[i] !== undefined) continue;
    if (i > begin + 1) {
      ctx.beginPath();
      for (let j = begin; j < i; j++) ctx.lineTo(toX(x[j]!), toY(high[j]!));
      for (let j = i - 1; j >= begin; j--) ctx.lineTo(toX(x[j]!), toY(low[j]!));
      ctx.fill();
    }
    begin = i + 1;
  }
  ctx.globalAlpha = 1;
}

/** Shades what lies beyond the fitted range; drawn before everything else. */
export function drawFitted(u: uPlot, fitted: readonly [number, number]): void {
  const pen = penOf(u);
  const { ctx, ratio, box, toX } = pen;
  const right = box.left + box.width;
  const inside = (value: number): number => Math.min(right, Math.max(box.left, value));
  const [from, to] = [inside(toX(fitted[0])), inside(toX(fitted[1]))];
  within(pen, false, () => {
    ctx.fillStyle = variable("--beyond");
    ctx.fillRect(box.left, box.top, from - box.left, box.height);
    ctx.fillRect(to, box.top, right - to, box.height);
    ctx.fillStyle = variable("--muted");
    ctx.textBaseline = "bottom";
    const word = "beyond the fit";
    const room = ctx.measureText(word).width + 8 * ratio;
    const bottom = box.top + box.height - 4 * ratio;
    if (from - box.left > room) ctx.fillText(word, box.left + 4 * ratio, bottom);
    ctx.textAlign = "right";
    if (right - to > room) ctx.fillText(word, right - 4 * ratio, bottom);
  });
}

/** Draws what helps to read the lines: levels, verticals, dots, names. */
export function drawMarks(u: uPlot, lines: readonly ChartLine[], marks: ChartMarks): void {
  const pen = penOf(u);
  if (marks.level !== undefined) drawLevel(pen, marks.level);
  marks.verticals?.forEach((vertical, i) => drawVertical(pen, vertical, i));
  if (marks.dots !== undefined) drawNamedDots(pen, marks.dots);
  if (marks.names === true) drawEndNames(pen, lines);
}

function drawLevel(pen: Pen, { value, label, below = false }: NonNullable<ChartMarks["level"]>): void {
  const { ctx, ratio, box, toY } = pen;
  const y = toY(value);
  if (y < box.top || y > box.top + box.height) return;
  within(pen, false, () => {
    ctx.strokeStyle = ctx.fillStyle = variable("--muted");
    ctx.lineWidth = ratio;
    ctx.setLineDash([5 * ratio, 4 * ratio]);
    ctx.moveTo(box.left, y);
    ctx.lineTo(box.left + box.width, y);
    ctx.stroke();
    ctx.textAlign = "right";
    ctx.textBaseline = below ? "top" : "bottom";
    ctx.fillText(label, box.left + box.width - 2 * ratio, y + (below ? 4 : -3) * ratio);
  });
}

function drawVertical(
  pen: Pen,
  { value, label }: { readonly value: number; readonly label: string },
  index: number,
): void {
  const { ctx, ratio, box, toX } = pen;
  const x = toX(value);
  if (x < box.left || x > box.left + box.width) return;
  within(pen, false, () => {
    ctx.strokeStyle = ctx.fillStyle = variable("--muted");
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    ctx.moveTo(x, box.top);
    ctx.lineTo(x, box.top + box.height);
    ctx.stroke();
    const isRight = x > box.left + 0.7 * box.width;
    ctx.textAlign = isRight ? "right" : "left";
    ctx.textBaseline = "top";
    ctx.fillText(label, x + (isRight ? -4 : 4) * ratio, box.top + (2 + 14 * index) * ratio);
  });
}

/** Dots, with their names right of them, or left where the right has no room, and none on another. */
function drawNamedDots(pen: Pen, dots: readonly ChartDot[]): void {
  const { ctx, ratio, box, toX, toY } = pen;
  within(pen, false, () => {
    const shown = dots
      .map((dot) => ({ ...dot, colour: plainColours(dot.colour), x: toX(dot.x), y: toY(dot.y) }))
      .filter(({ x, y }) => x >= box.left && x <= box.left + box.width && y >= box.top && y <= box.top + box.height);
    for (const { x, y, colour } of shown) {
      ctx.beginPath();
      ctx.fillStyle = colour;
      ctx.arc(x, y, 4.5 * ratio, 0, 2 * Math.PI);
      ctx.fill();
      ctx.lineWidth = 1.5 * ratio;
      ctx.strokeStyle = variable("--page");
      ctx.stroke();
    }
    ctx.textBaseline = "middle";
    ctx.lineJoin = "round";
    let above = -Infinity;
    for (const { x, y, label, colour } of shown.filter((dot) => dot.label !== "").sort((a, b) => a.y - b.y)) {
      const room = ctx.measureText(label).width + 10 * ratio;
      const isLeft = x + room > box.left + box.width;
      if (isLeft && x - room < box.left) continue;
      above = Math.max(y - 11 * ratio, above + 13 * ratio);
      ctx.textAlign = isLeft ? "right" : "left";
      const place = [x + (isLeft ? -8 : 8) * ratio, above] as const;
      ctx.lineWidth = 3 * ratio;
      ctx.strokeStyle = variable("--page");
      ctx.strokeText(label, ...place);
      ctx.fillStyle = colour;
      ctx.fillText(label, ...place);
    }
  });
}

/** The names of lines at their ends, moved apart where they would lie on each other. */
function drawEndNames(pen: Pen, lines: readonly ChartLine[]): void {
  const { ctx, ratio, toX, toY } = pen;
  within(pen, false, () => {
    const ends = lines.flatMap(({ label, colour, x, y }) => {
      const last = y.findLastIndex((value) => value !== null);
      return last < 0 ? [] : [{ label, colour, x: toX(x[last]!), y: toY(y[last]!) }];
    });
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    let above = -Infinity;
    for (const { label, colour, x, y } of ends.sort((a, b) => a.y - b.y)) {
      above = Math.max(y, above + 13 * ratio);
      ctx.fillStyle = plainColours(colour);
      ctx.fillText(label, x + 5 * ratio, above);
    }
  });
}

/** CSS pixels that the names at the ends of lines need. */
export function nameRoom(lines: readonly ChartLine[], marks: ChartMarks): number {
  const context = marks.names === true ? document.createElement("canvas").getContext("2d") : null;
  if (context === null) return 14;
  context.font = fontOf(1);
  return 10 + Math.max(...lines.map(({ label }) => Math.ceil(context.measureText(label).width)));
}
