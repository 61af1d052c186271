/** Files that the page gives: made in the page, and sent nowhere. */

import { csvOf } from "../../report/page/csv.js";

/** Saves text or bytes under a name. */
export function download(name: string, content: string | Blob, type = "text/plain"): void {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replace(/[^\w.-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Saves a table as CSV, with the words that stand in it. */
export function downloadTable(name: string, table: HTMLTableElement): void {
  const words = (cell: Element): string => (cell.textContent ?? "").trim().replace(/\s+/g, " ");
  const [head = [], ...rows] = [...table.rows].map((row) => [...row.cells].map(words));
  download(`${name}.csv`, csvOf(head, rows), "text/csv");
}

/** Saves a canvas as PNG, on the colour of the page. */
export function downloadCanvas(name: string, canvas: HTMLCanvasElement): void {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d");
  if (context === null) return;
  context.fillStyle = variable("--page");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  copy.toBlob((blob) => blob !== null && download(`${name}.png`, blob), "image/png");
}

/** Saves SVG markup as a file of its own: with a name space, and with the colours of now, on the colour of the page. */
export function downloadSvg(name: string, svg: string): void {
  const whole = svg
    .replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    .replace("<svg ", `<svg style="background:${variable("--page")}" `);
  download(`${name}.svg`, plainColours(whole), "image/svg+xml");
}

/** A colour of the style sheet as it is now. */
export const variable = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const channels = (hex: string): number[] => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** Text with all colours written out: variables as they are now, mixtures as the colour that they give. */
export function plainColours(text: string): string {
  const known = new Map<string, string>();
  const named = text.replace(/var\((--[\w-]+)\)/g, (_, name: string) => {
    const colour = known.get(name) ?? variable(name);
    known.set(name, colour);
    return colour;
  });
  const mixture = /color-mix\(in srgb, (#[0-9a-f]{6}) ([\d.]+)%, (#[0-9a-f]{6})\)/gi;
  return named.replace(mixture, (_, first: string, share: string, second: string) => {
    const part = Number(share) / 100;
    const other = channels(second);
    const mixed = channels(first).map((value, i) => Math.round(part * value + (1 - part) * other[i]!));
    return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
  });
}

/** A mixture of two colours that may name variables; `part` of the first, 0 to 1. */
export const mixed = (first: string, second: string, part: number): string =>
  `color-mix(in srgb, ${first} ${Number((100 * part).toFixed(1))}%, ${second})`;
