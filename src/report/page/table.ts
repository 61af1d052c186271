/**
 * A table that scrolls inside its own frame. Cells are markup: callers escape. The first cell of a row is its heading.
 * `label` names the frame, which takes the focus so that the arrow keys scroll it.
 */
export function framedTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  isNumber: (column: number) => boolean,
  label = "table",
): string {
  const align = (column: number): string => (isNumber(column) ? ' class="number"' : "");
  const cell = (text: string, i: number): string =>
    i === 0 ? `<th scope="row">${text}</th>` : `<td${align(i)}>${text}</td>`;
  const names = head.map((text, i) => `<th scope="col"${align(i)}>${text}</th>`).join("");
  const body = rows.map((row) => `<tr>${row.map(cell).join("")}</tr>`).join("");
  const table = `<table><thead><tr>${names}</tr></thead><tbody>${body}</tbody></table>`;
  return `<div class="frame" role="region" tabindex="0" aria-label="${label}">${table}</div>`;
}
