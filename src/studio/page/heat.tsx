/** Heat maps on a canvas: a cell for each value, in classes of colour that follow the page's mode. */
import type { JSX, TargetedKeyboardEvent, TargetedPointerEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { escapeHtml } from "../../report/page/escape.js";
import { csvOf } from "../data/rows.js";
import { download, downloadCanvas, variable } from "./download.js";

/** How values become colours: class 0 is an empty frame, 1 to 7 are the page's scale. */
export interface HeatScale {
  /** Ends of the classes, ascending: a value's class is the number of ends that it reaches, plus `first`. */
  readonly steps: readonly number[];
  readonly first: 0 | 1;
  readonly unit: string;
  /** What class 0 is called; `dead` if left out. */
  readonly least?: string;
}

/** Loads, as multiples of an equal share. */
export const loadScale: HeatScale = { steps: [0.01, 0.25, 0.5, 0.8, 1.25, 2, 4], first: 0, unit: "× an equal share" };
/** Cosines. */
export const cosineScale: HeatScale = { steps: [0, 0.2, 0.4, 0.6, 0.8, 0.95], first: 1, unit: "cosine" };

/** Weights of experts. */
export const shareScale: HeatScale = { steps: [0.1, 0.25, 0.4, 0.6, 0.8, 0.95], first: 1, unit: "weight" };

const classOf = (value: number, { steps, first }: HeatScale): number =>
  first + steps.filter((step) => value >= step).length;

interface HeatProps {
  readonly title: string;
  /** Values [rows][columns]; null cells stay empty. */
  readonly values: readonly (readonly (number | null)[])[];
  readonly rowName: (row: number) => string;
  readonly columnName: (column: number) => string;
  /** What stands above a column; its number if left out. */
  readonly columnTick?: (column: number) => string;
  readonly scale: HeatScale;
  readonly format: (value: number) => string;
  /** A gap stands after every so many columns. */
  readonly group?: number;
  /** What stands behind a row. */
  readonly rowEnd?: (row: number) => string;
  readonly square?: boolean;
}

interface Cell {
  readonly row: number;
  readonly column: number;
}

interface Layout {
  readonly left: number;
  readonly cell: number;
  readonly height: number;
  readonly gap: number;
  readonly width: number;
  readonly tall: number;
}

const endRoom = 48;

/** Keys that move from cell to cell, as rows and columns. */
const moves: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
};

function layoutOf({ values, group, square = false, rowEnd, rowName }: HeatProps, width: number): Layout {
  const columns = Math.max(1, ...values.map((row) => row.length));
  const left = 10 + 7 * Math.max(...values.map((_, row) => rowName(row).length), 2);
  const gaps = group === undefined ? 0 : Math.max(0, Math.ceil(columns / group) - 1);
  const gap = gaps === 0 ? 0 : Math.min(5, Math.max(1, (0.08 * width) / gaps));
  const room = width - left - (rowEnd === undefined ? 0 : endRoom) - gap * gaps;
  const cell = Math.max(1, Math.min(square ? 26 : 60, room / columns));
  const height = square ? cell : Math.max(10, Math.min(26, 420 / values.length));
  return { left, cell, height, gap, width, tall: 18 + height * values.length + 2 };
}

const xOf = ({ left, cell, gap }: Layout, column: number, group: number | undefined): number =>
  left + cell * column + (group === undefined ? 0 : gap * Math.floor(column / group));

/** A heat map with its scale, a reading of the cell under the pointer or the arrow keys, and its files. */
export function HeatMap(props: HeatProps): JSX.Element {
  const { title, values, scale, format, rowName, columnName, group } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const frame = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [mode, setMode] = useState(0);
  const [cell, setCell] = useState<Cell | null>(null);
  useEffect(() => {
    const element = frame.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    setWidth(element.clientWidth);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const change = (): void => setMode((old) => old + 1);
    dark.addEventListener("change", change);
    return () => {
      observer.disconnect();
      dark.removeEventListener("change", change);
    };
  }, []);
  const layout = layoutOf(props, width);
  useEffect(() => {
    if (canvas.current !== null && width > 0) paint(canvas.current, props, layout, cell);
  }, [values, width, mode, cell]);
  const at = (event: TargetedPointerEvent<HTMLCanvasElement>): void => {
    const column = values[0]?.findIndex((_, i) => {
      const x = xOf(layout, i, group);
      return event.offsetX >= x && event.offsetX < x + layout.cell;
    });
    const row = Math.floor((event.offsetY - 18) / layout.height);
    setCell(column === undefined || column < 0 || row < 0 || row >= values.length ? null : { row, column });
  };
  const onKey = (event: TargetedKeyboardEvent<HTMLCanvasElement>): void => {
    const move = moves[event.key];
    if (move === undefined) return;
    event.preventDefault();
    const from = cell ?? { row: 0, column: -1 };
    const row = Math.min(values.length - 1, Math.max(0, from.row + move[0]));
    setCell({ row, column: Math.min((values[row]?.length ?? 1) - 1, Math.max(0, from.column + move[1])) });
  };
  const value = cell === null ? undefined : values[cell.row]?.[cell.column];
  const amount = value === null || value === undefined ? "none" : `${format(value)} ${scale.unit}`;
  const reading =
    cell === null
      ? "Point at a cell, or use the arrow keys, to read it."
      : `${rowName(cell.row)}, ${columnName(cell.column)}: ${amount}`;
  return (
    <figure class="heat">
      <figcaption>
        <b>{title}</b>
        <span class="files">
          <button
            type="button"
            onClick={() => download(`${title}.svg`, svgOf(props, layoutOf(props, 720)), "image/svg+xml")}
            aria-label={`${title} as SVG`}
          >
            SVG
          </button>
          <button
            type="button"
            onClick={() => canvas.current !== null && downloadCanvas(title, canvas.current)}
            aria-label={`${title} as PNG`}
          >
            PNG
          </button>
          <button
            type="button"
            onClick={() => download(`${title}.csv`, csvOfCells(props), "text/csv")}
            aria-label={`${title} as CSV`}
          >
            CSV
          </button>
        </span>
      </figcaption>
      <div ref={frame} class="heat-frame">
        <canvas
          ref={canvas}
          role="img"
          tabIndex={0}
          aria-label={`${title}: ${values.length} rows of ${values[0]?.length ?? 0} cells. ${reading}`}
          onPointerMove={at}
          onPointerLeave={() => setCell(null)}
          onKeyDown={onKey}
        />
      </div>
      <p class="small muted" aria-live="polite">
        {reading}
      </p>
    </figure>
  );
}

function paint(canvas: HTMLCanvasElement, props: HeatProps, layout: Layout, chosen: Cell | null): void {
  const ratio = devicePixelRatio;
  canvas.width = Math.round(layout.width * ratio);
  canvas.height = Math.round(layout.tall * ratio);
  canvas.style.width = `${layout.width}px`;
  canvas.style.height = `${layout.tall}px`;
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.scale(ratio, ratio);
  const colours = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => (i === 0 ? variable("--ink") : variable(`--l${i}`)));
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = variable("--muted");
  context.textBaseline = "middle";
  const { values, group, scale, rowEnd } = props;
  columnTicks(values[0]?.length ?? 0, layout).forEach((column) =>
    context.fillText(props.columnTick?.(column) ?? String(column), xOf(layout, column, group), 8),
  );
  values.forEach((row, y) => {
    const top = 18 + y * layout.height;
    context.fillStyle = variable("--muted");
    context.fillText(props.rowName(y), 2, top + layout.height / 2);
    const end = rowEnd?.(y);
    if (end !== undefined) context.fillText(end, layout.width - endRoom + 6, top + layout.height / 2);
    row.forEach((value, column) => {
      if (value === null) return;
      const own = classOf(value, scale);
      const x = xOf(layout, column, group);
      const inset = layout.cell > 6 ? 1 : layout.cell > 3 ? 0.5 : 0;
      const box = [x, top + 1, layout.cell - inset, layout.height - 2] as const;
      context.fillStyle = context.strokeStyle = colours[own] ?? "";
      if (own > 0) context.fillRect(...box);
      else deadCell(context, box);
      if (chosen?.row !== y || chosen.column !== column) return;
      context.strokeStyle = variable("--ink");
      context.lineWidth = 2;
      context.strokeRect(box[0] - 1, box[1] - 1, box[2] + 2, box[3] + 2);
    });
  });
}

/** A dead expert is a cross in an empty cell, so that it differs from all others by more than its colour. */
function deadCell(
  context: CanvasRenderingContext2D,
  [x, y, width, height]: readonly [number, number, number, number],
): void {
  context.lineWidth = 1;
  context.strokeRect(x + 0.5, y + 0.5, Math.max(0, width - 1), height - 1);
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + width, y + height);
  context.moveTo(x + width, y);
  context.lineTo(x, y + height);
  context.stroke();
}

/** Columns whose numbers have room. */
function columnTicks(columns: number, { cell }: Layout): number[] {
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find((count) => count * cell >= 26) ?? 256;
  return Array.from({ length: Math.ceil(columns / every) }, (_, i) => i * every);
}

function csvOfCells({ values, rowName, columnName }: HeatProps): string {
  return csvOf(
    ["row", "column", "value"],
    values.flatMap((row, y) => row.map((value, x) => [rowName(y), columnName(x), value])),
  );
}

function svgOf(props: HeatProps, layout: Layout): string {
  const { values, scale, group, rowName, title } = props;
  const cells = values.flatMap((row, y) =>
    row.map((value, column) => {
      if (value === null) return "";
      const own = classOf(value, scale);
      const paint = own === 0 ? `fill="none" stroke="${variable("--ink")}"` : `fill="${variable(`--l${own}`)}"`;
      const place = `x="${xOf(layout, column, group).toFixed(1)}" y="${(19 + y * layout.height).toFixed(1)}"`;
      const [width, height] = [Math.max(0.5, layout.cell - 1), layout.height - 2];
      return `<rect ${place} width="${width.toFixed(1)}" height="${height.toFixed(1)}" ${paint}/>`;
    }),
  );
  const names = values.map(
    (_, y) => `<text x="2" y="${18 + (y + 0.7) * layout.height}">${escapeHtml(rowName(y))}</text>`,
  );
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${layout.width} ${layout.tall}" role="img" ` +
    `aria-label="${escapeHtml(title)}">` +
    `<style>text{font:11px sans-serif;fill:${variable("--ink")}}</style>${names.join("")}${cells.join("")}</svg>`
  );
}

/** The classes of a scale in words. */
export function HeatLegend({ scale }: { readonly scale: HeatScale }): JSX.Element {
  const { steps, first, unit, least = "dead" } = scale;
  const names = [
    first === 0 ? `${least} (< ${steps[0]})` : `< ${steps[0]}`,
    ...steps.slice(1).map((step, i) => `${steps[i]} to ${step}`),
    `≥ ${steps.at(-1)}`,
  ];
  return (
    <ul class="scale" aria-label={`Colours: ${unit}`}>
      {names.map((name, i) => (
        <li key={name}>
          <i class={`cell l${i + first}`} />
          {name}
        </li>
      ))}
      <li>{unit}</li>
    </ul>
  );
}
