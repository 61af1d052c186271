/**
 * Heat maps: how values become classes of colour, where cells lie, and a map as SVG, which needs no script. The
 * studio's canvas draws by the same scales and layout.
 */
import { escapeHtml } from "./escape.js";

/**
 * How values become colours: class 0 is a crossed frame, 1 to 7 are the page's colours `--l1` to `--l7` around a
 * middle, or `--s1` to `--s7` from little to much.
 */
export interface HeatScale {
  /** Ends of the classes, ascending: a value's class is the number of ends that it reaches, plus `first`. */
  readonly steps: readonly number[];
  readonly first: 0 | 1;
  readonly unit: string;
  /** Whether its colours go from little to much; left out, they go from a middle to both sides. */
  readonly isOrdered?: boolean;
  /** What the lowest class is called. */
  readonly least?: string;
}

const multiples = { steps: [0.01, 0.25, 0.5, 0.8, 1.25, 2, 4], first: 0 } as const;
/** Loads, as multiples of an equal share: less than a hundredth counts as dead. */
export const loadScale: HeatScale = { ...multiples, unit: "× an equal share", least: "dead" };
/** Cosines, finely near 1: experts that began as copies of one FFN stay near it. */
export const cosineScale: HeatScale = {
  steps: [0.2, 0.5, 0.8, 0.95, 0.99, 0.999],
  first: 1,
  unit: "cosine",
  isOrdered: true,
};
/** Weights of experts. */
export const shareScale: HeatScale = {
  steps: [0.1, 0.25, 0.4, 0.6, 0.8, 0.95],
  first: 1,
  unit: "weight",
  isOrdered: true,
};
/** A scale of multiples of something else. */
export const multiplesOf = (unit: string, least?: string): HeatScale => ({
  ...multiples,
  unit,
  ...(least !== undefined && { least }),
});

/** The class of a value, 0 to 7. */
export const classOf = (value: number, { steps, first }: HeatScale): number =>
  first + steps.filter((step) => value >= step).length;

/** The name of a class's colour: `l3`, `s3`. */
export const toneOf = (own: number, { isOrdered = false }: HeatScale): string => `${isOrdered ? "s" : "l"}${own}`;

/** The classes of a scale with their names, the lowest first. */
export function scaleClasses({ steps, first, least }: HeatScale): readonly { own: number; name: string }[] {
  const lowest = least === undefined ? `< ${steps[0]}` : `${least} (< ${steps[0]})`;
  const between = steps.slice(1).map((step, i) => `${steps[i]} to ${step}`);
  return [lowest, ...between, `≥ ${steps.at(-1)}`].map((name, i) => ({ own: i + first, name }));
}

/** The classes of a scale as markup. */
export function scaleMarkup(scale: HeatScale): string {
  const items = scaleClasses(scale).map(
    ({ own, name }) => `<li><i class="cell ${toneOf(own, scale)}"></i>${escapeHtml(name)}</li>`,
  );
  const unit = escapeHtml(scale.unit);
  return `<ul class="scale" aria-label="Colours: ${unit}">${items.join("")}<li>${unit}</li></ul>`;
}

/** A map: its values, and the names of its rows and columns. */
export interface HeatMapSpec {
  readonly title: string;
  /** Values [rows][columns]; null cells stay empty. */
  readonly values: readonly (readonly (number | null)[])[];
  readonly rowName: (row: number) => string;
  /** What stands above a column; its number if left out. */
  readonly columnTick?: (column: number) => string;
  readonly scale: HeatScale;
  /** A gap stands after every so many columns. */
  readonly group?: number;
  /** What stands behind a row. */
  readonly rowEnd?: (row: number) => string;
  readonly square?: boolean;
}

/** Where the cells of a map lie, in CSS pixels. */
export interface HeatLayout {
  readonly left: number;
  readonly cell: number;
  readonly height: number;
  readonly gap: number;
  readonly width: number;
  readonly tall: number;
}

/** Pixels above the first row, for the names of columns, and behind a row. */
export const headRoom = 18;
/** Pixels behind a row, for `rowEnd`. */
const endRoom = 48;

/** The layout of a map that is so many pixels wide. */
export function heatLayout({ values, group, square = false, rowEnd, rowName }: HeatMapSpec, width: number): HeatLayout {
  const columns = Math.max(1, ...values.map((row) => row.length));
  const left = 10 + 7 * Math.max(...values.map((_, row) => rowName(row).length), 2);
  const gaps = group === undefined ? 0 : Math.max(0, Math.ceil(columns / group) - 1);
  const gap = gaps === 0 ? 0 : Math.min(5, Math.max(1, (0.08 * width) / gaps));
  const room = width - left - (rowEnd === undefined ? 0 : endRoom) - gap * gaps;
  const cell = Math.max(1, Math.min(square ? 26 : 60, room / columns));
  const height = square ? cell : Math.max(10, Math.min(26, 420 / values.length));
  return { left, cell, height, gap, width, tall: headRoom + height * values.length + 2 };
}

/** The left end of a column. */
export const columnLeft = ({ left, cell, gap }: HeatLayout, column: number, group: number | undefined): number =>
  left + cell * column + (group === undefined ? 0 : gap * Math.floor(column / group));

/** Where what stands behind a row begins: behind its last cell. */
export const rowEndLeft = (layout: HeatLayout, columns: number, group: number | undefined): number =>
  columnLeft(layout, Math.max(0, columns - 1), group) + layout.cell + 6;

/** Columns whose names have room. */
export function columnTicks(columns: number, { cell }: HeatLayout): number[] {
  const every = [1, 2, 4, 8, 16, 32, 64, 128].find((count) => count * cell >= 26) ?? 256;
  return Array.from({ length: Math.ceil(columns / every) }, (_, i) => i * every);
}

/** Pixels between two cells. */
export const cellInset = ({ cell }: HeatLayout): number => (cell > 6 ? 1 : cell > 3 ? 0.5 : 0);

const round = (value: number): string => String(Number(value.toFixed(2)));

/** The map as SVG with colours as variables of the page; `width` in CSS pixels. */
export function heatSvg(spec: HeatMapSpec, width = 440): string {
  const { values, scale, group, rowName, rowEnd, title } = spec;
  const layout = heatLayout(spec, width);
  const paths = new Map<number, string[]>();
  const inset = cellInset(layout);
  values.forEach((row, y) =>
    row.forEach((value, column) => {
      if (value === null) return;
      const own = classOf(value, scale);
      const [left, top] = [columnLeft(layout, column, group), headRoom + 1 + y * layout.height];
      const [wide, tall] = [Math.max(0.5, layout.cell - inset), layout.height - 2];
      const box = `M${round(left)} ${round(top)}h${round(wide)}v${round(tall)}h${round(-wide)}z`;
      const cross = `m${round(wide)} 0l${round(-wide)} ${round(tall)}m0 ${round(-tall)}l${round(wide)} ${round(tall)}`;
      paths.set(own, [...(paths.get(own) ?? []), own === 0 ? box + cross : box]);
    }),
  );
  const text = (x: number, y: number, words: string): string =>
    `<text x="${round(x)}" y="${round(y)}" dy="0.35em">${escapeHtml(words)}</text>`;
  const names = [
    ...columnTicks(values[0]?.length ?? 0, layout).map((column) =>
      text(columnLeft(layout, column, group), 8, spec.columnTick?.(column) ?? String(column)),
    ),
    ...values.flatMap((_, y) => {
      const middle = headRoom + (y + 0.5) * layout.height;
      const end =
        rowEnd === undefined ? [] : [text(rowEndLeft(layout, values[0]?.length ?? 0, group), middle, rowEnd(y))];
      return [text(2, middle, rowName(y)), ...end];
    }),
  ];
  const cells = [...paths]
    .sort(([a], [b]) => a - b)
    .map(([own, parts]) => {
      const paint = own === 0 ? 'fill="none" stroke="var(--ink)"' : `fill="var(--${toneOf(own, scale)})"`;
      return `<path ${paint} d="${parts.join("")}"/>`;
    });
  return (
    `<svg class="heat-svg" viewBox="0 0 ${round(width)} ${round(layout.tall)}" role="img" ` +
    `aria-label="${escapeHtml(title)}" font-family="sans-serif" font-size="11" fill="var(--muted)">` +
    `${names.join("")}${cells.join("")}</svg>`
  );
}
