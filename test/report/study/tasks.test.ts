import { describe, expect, it } from "vitest";
import type { TaskScore } from "../../../src/model/results/result.js";
import { latexTable, markdownTable, resultTables } from "../../../src/report/study/result-tables.js";
import { tasksSection } from "../../../src/report/study/tasks-section.js";
import { terminalTable } from "../../../src/report/study/terminal.js";
import { study } from "../fixture.js";

const scored = (
  task: string,
  level: number,
  [dense, coarse, fine]: readonly [dense: number, coarse: number, fine: number],
): TaskScore => ({
  task,
  level,
  isGroup: level === 0,
  samples: 800,
  chance: 0.5,
  parent: 0.6512,
  arms: [
    { id: "dense", value: 0.7, interval: [0.02, 0.08], p: dense },
    { id: "coarse", value: 0.61, interval: [-0.06, -0.02], p: coarse },
    { id: "fine", value: 0.66, interval: [-0.01, 0.03], p: fine },
  ],
});
// Holm over six: 0.0001 and 0.004 hold out against 0.05 / 6 and 0.05 / 5, 0.02 does not against 0.05 / 4.
const tasks: readonly TaskScore[] = [
  scored("offline_pairs", 0, [0.0001, 0.004, 0.3]),
  scored("offline_plurals", 1, [0.02, 0.02, 0.6]),
];
const result = study({ tasks });

describe("a study whose models were asked tasks", () => {
  it("shows the parent and the arms in the terminal, with what is surely better or worse", () => {
    const text = terminalTable(result, 100);
    expect(text).toMatch(/offline_pairs +0\.50 +0\.651 +↑ 0\.700 +↓ 0\.610 +0\.660 +800/);
    expect(text.replace(/\s+/g, " ")).toContain("Chance is what a model has");
  });

  it("shows them on the page, in Markdown and in LaTeX", () => {
    const [table] = resultTables(result).filter(({ id }) => id === "tasks");
    expect(tasksSection(result)).toContain("↑ 0.700");
    expect(markdownTable(table!)).toContain("| ↑ 0.700 | ↓ 0.610 | 0.660 |");
    expect(latexTable(table!)).toContain("$\\uparrow$ 0.700 & $\\downarrow$ 0.610 & 0.660");
  });

  it("marks what is surely better or worse over all comparisons of the table, those of groups and of their tasks", () => {
    const [table] = resultTables(result).filter(({ id }) => id === "tasks");
    expect(table?.rows.map((row) => row.slice(3, -1))).toEqual([
      ["↑ 0.700", "↓ 0.610", "0.660"],
      ["0.700", "0.610", "0.660"],
    ]);
    expect(table?.caption).toContain("5 % over all 6 comparisons (Holm)");
  });

  it("shows tasks below their group, without style attributes, which the studio's policy forbids", () => {
    const [table] = resultTables(result).filter(({ id }) => id === "tasks");
    expect(table?.rows.map(([name]) => name)).toEqual(["offline_pairs", "– offline_plurals"]);
    expect(tasksSection(result)).toMatch(/<b>offline_pairs<\/b>.*class="level-1">offline_plurals</s);
    expect(tasksSection(result)).not.toContain("style=");
  });

  it("marks nothing in results of earlier versions, which have no p-values", () => {
    const earlier = tasks.map(({ arms, ...task }) => ({
      ...task,
      arms: arms.map((arm) => ({ ...arm, p: undefined })),
    }));
    const [table] = resultTables(study({ tasks: earlier })).filter(({ id }) => id === "tasks");
    expect(table?.rows.flat().join(" ")).not.toMatch(/[↑↓]/);
  });

  it("says nothing where there are none", () => {
    expect(tasksSection(study())).toBe("");
    expect(terminalTable(study())).not.toContain("Chance");
    expect(resultTables(study()).map(({ id }) => id)).not.toContain("tasks");
  });
});
