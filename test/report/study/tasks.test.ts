import { describe, expect, it } from "vitest";
import type { TaskScore } from "../../../src/model/results/result.js";
import { latexTable, markdownTable, resultTables } from "../../../src/report/study/result-tables.js";
import { tasksSection } from "../../../src/report/study/tasks-section.js";
import { terminalTable } from "../../../src/report/study/terminal.js";
import { study } from "../fixture.js";

const tasks: readonly TaskScore[] = [
  {
    task: "offline_pairs",
    samples: 800,
    chance: 0.5,
    parent: 0.6512,
    arms: [
      { id: "dense", value: 0.7, interval: [0.02, 0.08] },
      { id: "coarse", value: 0.61, interval: [-0.06, -0.02] },
      { id: "fine", value: 0.66, interval: [-0.01, 0.03] },
    ],
  },
];
const result = study({ tasks });

describe("a study whose models were asked tasks", () => {
  it("shows the parent and the arms in the terminal, with what is surely better or worse", () => {
    const text = terminalTable(result, 100);
    expect(text).toMatch(/offline_pairs +800 +0\.50 +0\.651 +0\.700 ↑ +0\.610 ↓ +0\.660/);
    expect(text.replace(/\s+/g, " ")).toContain("Chance is what a model has");
  });

  it("shows them on the page, in Markdown and in LaTeX", () => {
    const [table] = resultTables(result).filter(({ id }) => id === "tasks");
    expect(tasksSection(result)).toContain("0.700 ↑");
    expect(markdownTable(table!)).toContain("| 0.700 ↑ | 0.610 ↓ | 0.660 |");
    expect(latexTable(table!)).toContain("0.700 $\\uparrow$ & 0.610 $\\downarrow$ & 0.660");
  });

  it("says nothing where there are none", () => {
    expect(tasksSection(study())).toBe("");
    expect(terminalTable(study())).not.toContain("Chance");
    expect(resultTables(study()).map(({ id }) => id)).not.toContain("tasks");
  });
});
