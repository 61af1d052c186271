/** What a study's models answer to evaluation tasks, as a section of its page. */
import { escapeHtml } from "../page/escape.js";
import { pageSection } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import { resultTables } from "./result-tables.js";
import type { ShownStudy } from "./shown.js";

/** The section; empty for a study without tasks. */
export function tasksSection(result: ShownStudy): string {
  const table = resultTables(result).find(({ id }) => id === "tasks");
  if (table === undefined) return "";
  const rows = table.rows.map((row) => row.map(escapeHtml));
  return pageSection(
    "tasks",
    "Before and after, in right answers",
    framedTable(table.headings.map(escapeHtml), rows, (column) => column >= table.texts, "Tasks") +
      `<p class="note">${escapeHtml(table.caption)}</p>`,
  );
}
