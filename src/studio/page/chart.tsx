/** Curves: axes, zoom and cursor are uPlot's; lines are drawn each on its own x, so that none has to be resampled. */
import type { JSX, TargetedKeyboardEvent } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { compact } from "../../base/format.js";
import { svgChart } from "../../report/plan/view-svg.js";
import { firstAtLeast } from "../data/decimate.js";
import { csvOf } from "../data/rows.js";
import { download, downloadCanvas, variable, withColours } from "./download.js";

/** One line of a chart. `colour` is a CSS colour that may name variables. */
export interface ChartLine {
  readonly label: string;
  readonly colour: string;
  readonly dash?: readonly number[] | undefined;
  readonly x: readonly number[];
  readonly y: readonly (number | null)[];
  /** Ends of a band at every x. */
  readonly low?: readonly (number | null)[];
  readonly high?: readonly (number | null)[];
}

interface ChartProps {
  readonly title: string;
  readonly xLabel: string;
  readonly lines: readonly ChartLine[];
  readonly format: (value: number) => string;
  readonly xFormat?: (value: number) => string;
  readonly logY?: boolean;
  readonly height?: number;
  /** What is shown of x; left out, all of it. Asked for by dragging over the chart. */
  readonly range?: readonly [number, number] | null;
  readonly onRange?: (range: readonly [number, number] | null) => void;
}

/** Pixels. */
const usualHeight = 250;

interface Extent {
  readonly x: readonly [number, number];
  readonly y: readonly [number, number];
}

/** What the lines cover within a range of x. */
function extentOf(lines: readonly ChartLine[], range: readonly [number, number] | null, logY: boolean): Extent | null {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  const [first, last] = range ?? [-Infinity, Infinity];
  for (const line of lines)
    for (const values of [line.y, line.low, line.high]) {
      if (values === undefined) continue;
      for (let i = 0; i < values.length; i++) {
        const x = line.x[i]!;
        const value = values[i];
        if (value === null || value === undefined || x < first || x > last || (logY && value <= 0)) continue;
        if (x < left) left = x;
        if (x > right) right = x;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
  if (low > high) return null;
  // A line that is level lies in the middle.
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.05 || 1;
  const y: readonly [number, number] = logY ? [low / 1.1, high * 1.1] : [low - pad, high + pad];
  const [from, to] = range ?? [left, right];
  return { x: to > from ? [from, to] : [from - 0.5, to + 0.5], y };
}

/** The value of a line at x: of the nearest point at or before it. */
function valueAt(line: ChartLine, x: number): number | null {
  const i = firstAtLeast(line.x, x);
  const at = line.x[i] === x ? i : i > 0 && (i === line.x.length || x - line.x[i - 1]! < line.x[i]! - x) ? i - 1 : i;
  return line.y[at] ?? null;
}

const lastValue = (line: ChartLine): number | null => line.y.findLast((value) => value !== null) ?? null;

function resolved(colour: string): string {
  const [, name] = /^var\((--[\w-]+)\)$/.exec(colour) ?? [];
  return name === undefined ? colour : variable(name);
}

/** Pixels of values: what `valToPos` says, which looks its scale up for every point. */
function placeOn(u: uPlot, scale: "x" | "y"): (value: number) => number {
  const { min, max, distr } = u.scales[scale]!;
  if (distr === 3 || min === undefined || max === undefined || min === null || max === null)
    return (value) => u.valToPos(value, scale, true);
  const [at, toMax] = [u.valToPos(min, scale, true), u.valToPos(max, scale, true)];
  const pixels = (toMax - at) / (max - min);
  return (value) => at + (value - min) * pixels;
}

function draw(u: uPlot, lines: readonly ChartLine[]): void {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  const toX = placeOn(u, "x");
  const toY = placeOn(u, "y");
  for (const line of lines) if (line.low !== undefined) band(ctx, line, toX, toY);
  ctx.lineWidth = (lines.length > 20 ? 1 : 1.8) * ratio;
  // Nobody sees the joints of thin lines, and they cost more than the lines.
  ctx.lineJoin = lines.length > 20 ? "bevel" : "round";
  for (const { x, y, colour, dash } of lines) {
    ctx.strokeStyle = ctx.fillStyle = resolved(colour);
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
    if (only !== null && only >= 0) {
      ctx.beginPath();
      ctx.arc(toX(x[only]!), toY(y[only]!), 3 * ratio, 0, 2 * Math.PI);
      ctx.fill();
    }
  }
  ctx.restore();
}

function band(
  ctx: CanvasRenderingContext2D,
  line: ChartLine,
  toX: (x: number) => number,
  toY: (y: number) => number,
): void {
  const { x, low = [], high = [] } = line;
  ctx.fillStyle = resolved(line.colour);
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

/** What a plot draws: read at every drawing, so that new points change neither cursor nor a drag that is under way. */
interface Drawn {
  readonly props: ChartProps;
  readonly extent: Extent;
}

function options(now: { readonly current: Drawn }, width: number, onCursor: (x: number | null) => void): uPlot.Options {
  const { props } = now.current;
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const axis: uPlot.Axis = {
    stroke: variable("--muted"),
    font,
    grid: { stroke: variable("--grid"), width: 1 },
    ticks: { show: false },
    gap: 6,
  };
  const { format, xFormat = (value: number) => compact(value), logY = false } = props;
  return {
    width,
    height: props.height ?? usualHeight,
    legend: { show: false },
    padding: [8, 14, 0, 0],
    scales: {
      x: { time: false, range: () => [...now.current.extent.x] },
      y: { range: () => [...now.current.extent.y], distr: logY ? 3 : 1 },
    },
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    axes: [
      { ...axis, size: 30, values: (_, splits) => splits.map((x) => (x === null ? "" : short(x, xFormat))) },
      {
        ...axis,
        size: 58,
        space: 36,
        values: (_, splits) => splits.map((value) => (value === null ? "" : format(value))),
      },
    ],
    cursor: { y: false, points: { show: false }, drag: { x: props.onRange !== undefined, y: false, setScale: false } },
    hooks: {
      draw: [(u) => draw(u, now.current.props.lines)],
      setCursor: [
        (u) => {
          const { left = -1 } = u.cursor;
          onCursor(left < 0 ? null : u.posToVal(left, "x"));
        },
      ],
      setSelect: [
        (u) => {
          const { left, width: wide } = u.select;
          if (wide > 4) now.current.props.onRange?.([u.posToVal(left, "x"), u.posToVal(left + wide, "x")]);
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** Ticks are round: their zeros say nothing. */
const short = (value: number, words: (value: number) => string): string =>
  words(value)
    .replace(/(\.\d*?)0+(?=\D|$)/, "$1")
    .replace(/\.(?=\D|$)/, "");

const directions: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowRight: 1 };

/** Most lines whose values are listed while the pointer moves. */
const mostListed = 12;

/** A chart with its legend, its values as a table, and its files. */
export function Chart(props: ChartProps): JSX.Element {
  const { title, lines, format, range = null, onRange, logY = false, xLabel, height = usualHeight } = props;
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [cursor, setCursor] = useState<number | null>(null);
  const [size, setSize] = useState({ width: 0, mode: 0 });
  const extent = useMemo(() => extentOf(lines, range, logY), [lines, range?.[0], range?.[1], logY]);
  useLayoutEffect(() => {
    const element = host.current;
    if (element === null) return;
    const measure = (): void =>
      setSize((old) => (old.width === element.clientWidth ? old : { ...old, width: element.clientWidth }));
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const change = (): void => setSize((old) => ({ ...old, mode: old.mode + 1 }));
    dark.addEventListener("change", change);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", change);
    };
  }, []);
  const isEmpty = extent === null;
  const now = useRef<Drawn | null>(null);
  now.current = extent === null ? null : { props, extent };
  const hasRoom = size.width > 0;
  useLayoutEffect(() => {
    const element = host.current;
    if (element === null || !hasRoom || now.current === null) return;
    const drawn = now as { readonly current: Drawn };
    const made = new uPlot(options(drawn, size.width, setCursor), [[...drawn.current.extent.x], [null, null]], element);
    plot.current = made;
    return () => {
      made.destroy();
      plot.current = null;
    };
  }, [hasRoom, size.mode, logY, title, isEmpty]);
  useLayoutEffect(() => {
    plot.current?.setSize({ width: size.width, height });
  }, [size.width, height]);
  useLayoutEffect(() => {
    if (now.current !== null) plot.current?.setData([[...now.current.extent.x], [null, null]]);
  }, [lines, range?.[0], range?.[1]]);
  const name = `${title} over ${xLabel}`;
  const shown = lines.slice(0, mostListed);
  const onKey = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    if (extent === null || plot.current === null) return;
    const [from, to] = extent.x;
    const direction = directions[event.key];
    if (direction !== undefined) {
      event.preventDefault();
      const at = Math.min(to, Math.max(from, (cursor ?? to) + (direction * (to - from)) / 50));
      plot.current.setCursor({ left: plot.current.valToPos(at, "x"), top: 1 });
    } else if (event.key === "+" && onRange !== undefined) {
      const middle = cursor ?? (from + to) / 2;
      onRange([Math.max(from, middle - (to - from) / 4), Math.min(to, middle + (to - from) / 4)]);
    } else if ((event.key === "-" || event.key === "Escape") && range !== null) onRange?.(null);
  };
  const more = lines.length > mostListed ? ` and ${lines.length - mostListed} more` : "";
  const summary = shown.map((line) => `${line.label} ${words(lastValue(line), format)}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>
        <b>{title}</b>
        <span class="files">
          {range !== null && onRange !== undefined && (
            <button type="button" onClick={() => onRange(null)}>
              Whole range
            </button>
          )}
          <button type="button" onClick={() => saveSvg(props, extent, name)} aria-label={`${title} as SVG`}>
            SVG
          </button>
          <button
            type="button"
            onClick={() => plot.current !== null && downloadCanvas(name, plot.current.ctx.canvas)}
            aria-label={`${title} as PNG`}
          >
            PNG
          </button>
          <button
            type="button"
            onClick={() => download(`${name}.csv`, csvOfLines(lines, xLabel), "text/csv")}
            aria-label={`${title} as CSV`}
          >
            CSV
          </button>
        </span>
      </figcaption>
      {extent === null && <p class="muted">Nothing is measured yet.</p>}
      <div
        ref={host}
        class="plot"
        style={{ minHeight: extent === null ? "0" : `${height}px` }}
        role="img"
        tabIndex={0}
        aria-label={`${name}. At the end: ${summary}${more}. Arrow keys read it, plus and minus zoom.`}
        onKeyDown={onKey}
        onDblClick={() => onRange?.(null)}
        onBlur={() => setCursor(null)}
      />
      <ul class="readout">
        <li>{cursor === null ? `at the end, over ${xLabel}` : `at ${(props.xFormat ?? compact)(cursor)} ${xLabel}`}</li>
        {shown.map((line) => (
          <li key={line.label}>
            <i class="swatch" style={{ background: line.colour }} />
            {line.label}
            <b>{words(cursor === null ? lastValue(line) : valueAt(line, cursor), format)}</b>
          </li>
        ))}
        {lines.length > mostListed && <li>and {lines.length - mostListed} more</li>}
      </ul>
    </figure>
  );
}

const words = (value: number | null, format: (value: number) => string): string =>
  value === null ? "–" : format(value);

function csvOfLines(lines: readonly ChartLine[], xLabel: string): string {
  const rows = lines.flatMap((line) =>
    line.x.map((x, i) => [line.label, x, line.y[i] ?? null, line.low?.[i] ?? null, line.high?.[i] ?? null]),
  );
  const hasBands = lines.some(({ low }) => low !== undefined);
  const head = ["line", xLabel, "value", ...(hasBands ? ["low", "high"] : [])];
  return csvOf(
    head,
    rows.map((row) => row.slice(0, head.length)),
  );
}

function saveSvg(
  { title, xLabel, lines, format, logY = false }: ChartProps,
  extent: Extent | null,
  name: string,
): void {
  if (extent === null) return;
  const svg = svgChart({
    description: name,
    x: { low: extent.x[0], high: extent.x[1], log: false, label: xLabel, format: (value) => short(value, compact) },
    y: { low: extent.y[0], high: extent.y[1], log: logY, label: title, format },
    lines: lines.map(({ label, colour, x, y, dash }) => ({ label, colour, x, y, dash: dash !== undefined })),
  });
  const [ink, grid] = [variable("--ink"), variable("--grid")];
  const style = `<style>text{font:11px sans-serif;fill:${ink}}.grid{stroke:${grid}}path{fill:none}</style>`;
  const whole = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ').replace(">", `>${style}`);
  download(`${name}.svg`, withColours(whole), "image/svg+xml");
}
