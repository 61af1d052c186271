/** The table of all reports; the studio's `Table` (studio/page/parts.tsx) has the same classes, with links in cells. */
import { escapeHtml } from "./escape.js";

/**
 * A table that scrolls inside its own frame. Cells are markup: callers escape. The first cell of a row is its heading.
 * `label`, plain text, names the frame, which takes the focus so that the arrow keys scroll it; `isCaption` shows it.
 */
export function framedTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  isNumber: (column: number) => boolean,
  label = "table",
  isCaption = false,
): string {
  const align = (column: number): string => (isNumber(column) ? ' class="number"' : "");
  const cell = (text: string, i: number): string =>
    i === 0 ? `<th scope="row">${text}</th>` : `<td${align(i)}>${text}</td>`;
  const names = head.map((text, i) => `<th scope="col"${align(i)}>${text}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("");
  const name = escapeHtml(label);
  const caption = isCaption ? `<caption>${name}</caption>` : "";
  const table = `<table>${caption}<thead><tr>${names}</tr></thead><tbody>${body}</tbody></table>`;
  return `<div class="frame" role="region" tabindex="0" aria-label="${name}">${table}</div>`;
}
