/** Curves: axes, zoom and cursor are uPlot's; lines are drawn each on its own x, so that none has to be resampled. */
import type { JSX, TargetedKeyboardEvent } from "preact";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type uPlot from "uplot";
import { compact } from "../../base/format.js";
import { firstAtLeast } from "../../base/search.js";
import { csvOf } from "../../report/page/csv.js";
import { svgChart } from "../../report/page/svg-chart.js";
import { logTicks, plainTick, tellingFormat, trimmedTicks, withoutZeros } from "../../report/page/ticks.js";
import { drawFitted, drawLines, drawMarks, nameRoom, type ChartLine, type ChartMarks } from "./chart-draw.js";
import { download, downloadCanvas, downloadSvg, variable } from "./download.js";
import { usePlots } from "./plot-library.js";

export type { ChartLine } from "./chart-draw.js";

/** A chart. */
export interface ChartProps extends ChartMarks {
  readonly title: string;
  /** Shown in place of the title, where a heading says it already. */
  readonly caption?: string;
  /** What is to be known of it, behind the title. */
  readonly note?: string;
  readonly xLabel: string;
  readonly lines: readonly ChartLine[];
  readonly format: (value: number) => string;
  readonly xFormat?: (value: number) => string;
  /** Values are counts: ticks stand at whole numbers. */
  readonly isCount?: boolean;
  readonly xIsCount?: boolean;
  /** Ticks with the decimals of their step, whatever `format` writes. */
  readonly plainTicks?: boolean;
  readonly xLog?: boolean;
  readonly logY?: boolean;
  readonly height?: number;
  /** Ends of y; what the lines cover if left out. */
  readonly yRange?: readonly [number, number];
  /** What is shown of x; null is all of it. Left out, the chart keeps it to itself. Asked for by dragging over it. */
  readonly range?: readonly [number, number] | null;
  readonly onRange?: (range: readonly [number, number] | null) => void;
}

/** Pixels. */
const usualHeight = 250;
/** Half of the narrowest common page (A4, Letter) between its margins, in CSS pixels. */
const paperWidth = 325;

interface Extent {
  readonly x: readonly [number, number];
  readonly y: readonly [number, number];
}

type ScaleKey = "xLog" | "logY" | "isCount" | "yRange" | "level" | "dots";
type Scales = { readonly [Key in ScaleKey]: ChartProps[Key] | undefined };

/** What the lines cover within a range of x. */
function extentOf(
  lines: readonly ChartLine[],
  range: readonly [number, number] | null,
  { xLog = false, logY = false, isCount = false, yRange, level, dots = [] }: Scales,
): Extent | null {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  const [first, last] = range ?? [xLog ? Number.MIN_VALUE : -Infinity, Infinity];
  const take = (xs: readonly number[], values: readonly (number | null)[] | undefined): void => {
    for (let i = 0; i < (values?.length ?? 0); i++) {
      const x = xs[i]!;
      const value = values![i];
      if (value === null || value === undefined || x < first || x > last || (logY && value <= 0)) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  };
  for (const line of lines) for (const values of [line.y, line.low, line.high]) take(line.x, values);
  for (const dot of dots) take([dot.x], [dot.y]);
  if (low > high) return null;
  if (level !== undefined && range === null) [low, high] = [Math.min(low, level.value), Math.max(high, level.value)];
  // A line that is level lies in the middle.
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.05 || 1;
  // There is no number of things below none.
  const floor = isCount && low >= 0 ? 0 : -Infinity;
  const y: readonly [number, number] = logY ? [low / 1.1, high * 1.1] : [Math.max(floor, low - pad), high + pad];
  // Dots at the ends are whole.
  const hasDots = lines.some((line) => !isLine(line));
  const around = range === null && hasDots ? 0.03 : 0;
  const [less, more] = xLog
    ? [left / (right / left) ** around, right * (right / left) ** around]
    : [left - around * (right - left), right + around * (right - left)];
  const [from, to] = range ?? [less, more];
  return { x: to > from ? [from, to] : xLog ? [from / 2, to * 2] : [from - 0.5, to + 0.5], y: yRange ?? y };
}

/** The value of a line at x: of the nearest point at or before it. */
function valueAt(line: ChartLine, x: number): number | null {
  const i = firstAtLeast(line.x, x);
  const at = line.x[i] === x ? i : i > 0 && (i === line.x.length || x - line.x[i - 1]! < line.x[i]! - x) ? i - 1 : i;
  return line.y[at] ?? null;
}

const isLine = ({ kind = "line" }: ChartLine): boolean => kind === "line";

const lastValue = (line: ChartLine): number | null => line.y.findLast((value) => value !== null) ?? null;

/** What a plot draws: read at every drawing, so that new points change neither cursor nor a drag that is under way. */
interface Drawn {
  readonly props: ChartProps;
  readonly extent: Extent;
  readonly onRange: (range: readonly [number, number]) => void;
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
  const { format, xFormat = (value: number) => compact(value), logY = false, xLog = false, plainTicks = false } = props;
  const right = nameRoom(props.lines, props);
  const texts = (splits: readonly (number | null)[], write: (value: number) => string): string[] =>
    splits.map((value) => (value === null ? "" : write(value)));
  const logarithmic = (length: number): Pick<uPlot.Axis, "splits" | "filter"> => ({
    splits: (_, __, min, max) => logTicks(min, max, length),
    filter: (_, splits) => splits,
  });
  return {
    width,
    height: props.height ?? usualHeight,
    legend: { show: false },
    padding: [8, right, 0, 0],
    scales: {
      x: { time: false, range: () => [...now.current.extent.x], distr: xLog ? 3 : 1 },
      y: { range: () => [...now.current.extent.y], distr: logY ? 3 : 1 },
    },
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    axes: [
      {
        ...axis,
        size: 30,
        ...(xLog && logarithmic(width - 60 - right)),
        ...(props.xIsCount === true && { incrs: wholeSteps }),
        values: (_, splits, __, ___, step) =>
          texts(splits, (x) => (plainTicks && !xLog ? plainTick(x, step) : withoutZeros(xFormat(x)))),
      },
      {
        ...axis,
        size: (_, texts) => axisWidth(texts),
        space: 36,
        ...(props.isCount === true && { incrs: wholeSteps }),
        ...(logY && logarithmic(220)),
        values: (_, splits, __, ___, step) =>
          plainTicks
            ? texts(splits, (y) => (logY ? withoutZeros(compact(y)) : plainTick(y, step)))
            : trimmedTicks(texts(splits, tellingFormat(splits, format))),
      },
    ],
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    hooks: {
      drawClear: [(u) => now.current.props.fitted && drawFitted(u, now.current.props.fitted)],
      draw: [
        (u) => {
          const { lines, ...marks } = now.current.props;
          drawLines(u, lines);
          drawMarks(u, lines, marks);
        },
      ],
      setCursor: [
        (u) => {
          const { left = -1 } = u.cursor;
          onCursor(left < 0 ? null : u.posToVal(left, "x"));
        },
      ],
      setSelect: [
        (u) => {
          const { left, width: wide } = u.select;
          if (wide > 4) now.current.onRange([u.posToVal(left, "x"), u.posToVal(left + wide, "x")]);
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** Steps between ticks of counts. */
const wholeSteps = Array.from({ length: 10 }, (_, i) => [1, 2, 5].map((step) => step * 10 ** i)).flat();

/** Pixels of an axis, so that the longest of its texts has room; uPlot asks before there are any, too. */
const axisWidth = (texts: readonly string[] | null): number =>
  Math.max(58, ...(texts ?? []).map((text) => 12 + 7 * text.length));

const directions: Readonly<Record<string, number>> = { ArrowLeft: -1, ArrowRight: 1 };

/** Most lines whose values are listed while the pointer moves. */
const mostListed = 12;

/** The width of an element, and a number that grows whenever colours change: with the mode, and on paper. */
function useSize(host: { readonly current: HTMLElement | null }): { readonly width: number; readonly mode: number } {
  const [size, setSize] = useState({ width: 0, mode: 0 });
  useLayoutEffect(() => {
    const element = host.current;
    if (element === null) return;
    const root = document.documentElement;
    const measure = (): void => {
      const width = root.dataset["print"] === undefined ? element.clientWidth : paperWidth;
      setSize((old) => (old.width === width ? old : { ...old, width }));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const change = (): void => {
      measure();
      setSize((old) => ({ ...old, mode: old.mode + 1 }));
    };
    // Paper is light whatever the screen is: the style sheet looks at the attribute.
    const print = (): void => {
      root.dataset["print"] = "yes";
      change();
    };
    const leave = (): void => {
      delete root.dataset["print"];
      change();
    };
    dark.addEventListener("change", change);
    addEventListener("beforeprint", print);
    addEventListener("afterprint", leave);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", change);
      removeEventListener("beforeprint", print);
      removeEventListener("afterprint", leave);
    };
  }, []);
  return size;
}

/** A chart with its legend, its values as a table, and its files. */
export function Chart(props: ChartProps): JSX.Element {
  const { title, caption = title, note, lines, format, logY = false, xLog = false, xLabel } = props;
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [cursor, setCursor] = useState<number | null>(null);
  const [own, setOwn] = useState<readonly [number, number] | null>(null);
  const [range, onRange] = props.onRange === undefined ? [own, setOwn] : [props.range ?? null, props.onRange];
  const size = useSize(host);
  const height = props.height ?? usualHeight;
  const { isCount, yRange, level, dots } = props;
  const extent = useMemo(
    () => extentOf(lines, range, { xLog, logY, isCount, yRange, level, dots }),
    [lines, range?.[0], range?.[1], xLog, logY, yRange?.[0], yRange?.[1], level?.value, dots],
  );
  const isEmpty = extent === null;
  const now = useRef<Drawn | null>(null);
  now.current = extent === null ? null : { props, extent, onRange };
  const hasRoom = size.width > 0;
  const Plot = usePlots();
  useLayoutEffect(() => {
    const element = host.current;
    if (element === null || !hasRoom || now.current === null || Plot === null) return;
    const drawn = now as { readonly current: Drawn };
    const made = new Plot(options(drawn, size.width, setCursor), [[...drawn.current.extent.x], [null, null]], element);
    plot.current = made;
    return () => {
      made.destroy();
      plot.current = null;
    };
  }, [Plot, hasRoom, size.mode, logY, xLog, title, isEmpty]);
  useLayoutEffect(() => {
    plot.current?.setSize({ width: size.width, height });
  }, [size.width, height]);
  useLayoutEffect(() => {
    if (now.current !== null) plot.current?.setData([[...now.current.extent.x], [null, null]]);
  }, [lines, range?.[0], range?.[1], props.yRange?.[0], props.yRange?.[1]]);
  const name = `${title} over ${xLabel}`;
  const named = lines.filter((line) => isLine(line) || !lines.some((one) => isLine(one) && one.label === line.label));
  const shown = named.slice(0, mostListed);
  const onKey = (event: TargetedKeyboardEvent<HTMLDivElement>): void => {
    if (extent === null || plot.current === null) return;
    const [from, to] = extent.x;
    const direction = directions[event.key];
    if (direction !== undefined) {
      event.preventDefault();
      const at = Math.min(to, Math.max(from, (cursor ?? to) + (direction * (to - from)) / 50));
      plot.current.setCursor({ left: plot.current.valToPos(at, "x"), top: 1 });
    } else if (event.key === "+") {
      const middle = cursor ?? (from + to) / 2;
      onRange([Math.max(from, middle - (to - from) / 4), Math.min(to, middle + (to - from) / 4)]);
    } else if ((event.key === "-" || event.key === "Escape") && range !== null) onRange(null);
  };
  const more = named.length > mostListed ? ` and ${named.length - mostListed} more` : "";
  const summary = shown.map((line) => `${line.label} ${words(lastValue(line), format)}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>
        <span>
          <b>{caption}</b> {note}
        </span>
        <span class="files">
          {range !== null && (
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
        onDblClick={() => onRange(null)}
        onBlur={() => setCursor(null)}
      />
      <ul class="readout">
        <li>{cursor === null ? `at the end, over ${xLabel}` : `at ${(props.xFormat ?? compact)(cursor)} ${xLabel}`}</li>
        {shown.map((line) => (
          <li key={line.label}>
            <i class="swatch" style={{ background: line.colour }} />
            {line.label}
            {isLine(line) && <b>{words(cursor === null ? lastValue(line) : valueAt(line, cursor), format)}</b>}
          </li>
        ))}
        {named.length > mostListed && <li>and {named.length - mostListed} more</li>}
      </ul>
    </figure>
  );
}

const words = (value: number | null, format: (value: number) => string): string =>
  value === null ? "–" : format(value);

function csvOfLines(lines: readonly ChartLine[], xLabel: string): string {
  const rows = lines.flatMap((line) =>
    line.x.map((x, i) => [
      line.name ?? line.label,
      x,
      line.y[i] ?? null,
      line.low?.[i] ?? null,
      line.high?.[i] ?? null,
    ]),
  );
  const hasBands = lines.some(({ low }) => low !== undefined);
  const head = ["line", xLabel, "value", ...(hasBands ? ["low", "high"] : [])];
  return csvOf(
    head,
    rows.map((row) => row.slice(0, head.length)),
  );
}

function saveSvg(props: ChartProps, extent: Extent | null, name: string): void {
  if (extent === null) return;
  const { title, xLabel, lines, format, logY = false, xLog = false, level, verticals = [], fitted, dots = [] } = props;
  const svg = svgChart({
    description: name,
    x: {
      low: extent.x[0],
      high: extent.x[1],
      log: xLog,
      label: xLabel,
      format: (value) => withoutZeros(compact(value)),
    },
    y: { low: extent.y[0], high: extent.y[1], log: logY, label: title, format },
    lines: [
      ...lines.map((line) => ({ ...line, dash: line.dash !== undefined })),
      ...dots.map(({ label, colour, x, y }) => ({ label, colour, x: [x], y: [y], kind: "mark" as const })),
    ],
    marks: verticals.map(({ value, label }) => ({ x: value, label })),
    ...(level !== undefined && { level }),
    fitted: fitted ?? null,
  });
  downloadSvg(name, svg);
}
