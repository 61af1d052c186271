/** Heat maps on a canvas: a cell for each value, in classes of colour that follow the page's mode. */
import type { JSX, TargetedKeyboardEvent, TargetedPointerEvent } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { significant } from "../../base/format.js";
import { csvOf } from "../../report/page/csv.js";
import {
  cellInset,
  classOf,
  columnLeft,
  columnTicks,
  headRoom,
  heatLayout,
  heatSvg,
  loadScale,
  rowEndLeft,
  scaleClasses,
  toneOf,
  type HeatLayout,
  type HeatMapSpec,
  type HeatScale,
} from "../../report/page/heat-map.js";
import { download, downloadCanvas, downloadSvg, variable } from "./download.js";

interface HeatProps extends HeatMapSpec {
  readonly columnName: (column: number) => string;
  readonly format: (value: number) => string;
}

interface Cell {
  readonly row: number;
  readonly column: number;
}

/** Keys that move from cell to cell, as rows and columns. */
const moves: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
};

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
  const layout = heatLayout(props, width);
  useEffect(() => {
    if (canvas.current !== null && width > 0) paint(canvas.current, props, layout, cell);
  }, [values, width, mode, cell]);
  const at = (event: TargetedPointerEvent<HTMLCanvasElement>): void => {
    const column = values[0]?.findIndex((_, i) => {
      const x = columnLeft(layout, i, group);
      return event.offsetX >= x && event.offsetX < x + layout.cell;
    });
    const row = Math.floor((event.offsetY - headRoom) / layout.height);
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
          <button type="button" onClick={() => downloadSvg(title, heatSvg(props, 720))} aria-label={`${title} as SVG`}>
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

/** Loads of experts [layers][experts], with the busiest one's behind each layer. */
export function LoadMap(props: {
  readonly title: string;
  readonly shares: readonly (readonly number[])[];
  /** A gap stands after every so many experts, where there are more. */
  readonly group: number;
}): JSX.Element {
  const { title, shares, group } = props;
  return (
    <HeatMap
      title={title}
      values={shares}
      rowName={(row) => `layer ${row}`}
      columnName={(column) => `expert ${column}`}
      scale={loadScale}
      format={(value) => significant(value, 3)}
      rowEnd={(row) => `${significant(Math.max(...(shares[row] ?? [0])), 2)}×`}
      {...(group < (shares[0]?.length ?? 0) && { group })}
    />
  );
}

function paint(canvas: HTMLCanvasElement, props: HeatProps, layout: HeatLayout, chosen: Cell | null): void {
  const ratio = devicePixelRatio;
  canvas.width = Math.round(layout.width * ratio);
  canvas.height = Math.round(layout.tall * ratio);
  canvas.style.width = `${layout.width}px`;
  canvas.style.height = `${layout.tall}px`;
  const context = canvas.getContext("2d");
  if (context === null) return;
  context.scale(ratio, ratio);
  const colours = [0, 1, 2, 3, 4, 5, 6, 7].map((own) =>
    variable(own === 0 ? "--ink" : `--${toneOf(own, props.scale)}`),
  );
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.fillStyle = variable("--muted");
  context.textBaseline = "middle";
  const { values, group, scale, rowEnd } = props;
  columnTicks(values[0]?.length ?? 0, layout).forEach((column) =>
    context.fillText(props.columnTick?.(column) ?? String(column), columnLeft(layout, column, group), 8),
  );
  values.forEach((row, y) => {
    const top = headRoom + y * layout.height;
    context.fillStyle = variable("--muted");
    context.fillText(props.rowName(y), 2, top + layout.height / 2);
    const end = rowEnd?.(y);
    if (end !== undefined)
      context.fillText(end, rowEndLeft(layout, values[0]?.length ?? 0, group), top + layout.height / 2);
    row.forEach((value, column) => {
      if (value === null) return;
      const own = classOf(value, scale);
      const x = columnLeft(layout, column, group);
      const inset = cellInset(layout);
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

function csvOfCells({ values, rowName, columnName }: HeatProps): string {
  return csvOf(
    ["row", "column", "value"],
    values.flatMap((row, y) => row.map((value, x) => [rowName(y), columnName(x), value])),
  );
}

/** The classes of a scale in words. */
export function HeatLegend({ scale }: { readonly scale: HeatScale }): JSX.Element {
  return (
    <ul class="scale" aria-label={`Colours: ${scale.unit}`}>
      {scaleClasses(scale).map(({ own, name }) => (
        <li key={name}>
          <i class={`cell ${toneOf(own, scale)}`} />
          {name}
        </li>
      ))}
      <li>{scale.unit}</li>
    </ul>
  );
}
