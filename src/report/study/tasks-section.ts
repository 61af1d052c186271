/** What a study's models answer to evaluation tasks, as a section of its page. */
import type { TaskScore } from "../../model/results/result.js";
import { escapeHtml } from "../page/escape.js";
import { pageSection } from "../page/shell.js";
import { framedTable } from "../page/table.js";
import { resultTables, taskIndent } from "./result-tables.js";
import type { ShownStudy } from "./shown.js";

/** The name of a task, as far in as it stands in groups; groups are bold. */
function nameCell(name: string, { level = 0, isGroup = false }: Partial<TaskScore> = {}): string {
  const text = escapeHtml(name.slice(level * taskIndent.length));
  return `<span class="level-${Math.min(level, 3)}">${isGroup ? `<b>${text}</b>` : text}</span>`;
}

/** The section; empty for a study without tasks. */
export function tasksSection(result: ShownStudy): string {
  const table = resultTables(result).find(({ id }) => id === "tasks");
  if (table === undefined) return "";
  const { tasks = [] } = result;
  const rows = table.rows.map(([name = "", ...cells], row) => [
    nameCell(name, tasks[row]),
    ...cells.map((cell) => escapeHtml(cell)),
  ]);
  return pageSection(
    "tasks",
    "Before and after, in right answers",
    framedTable(table.headings.map(escapeHtml), rows, (column) => column >= table.texts, "Tasks") +
      `<p class="note">${escapeHtml(table.caption)}</p>`,
  );
}
