/** The maps of a report of experts, each with a reading of its cells and its files. */
import { significant } from "../../base/format.js";
import type { ExpertsData } from "../../report/experts/experts-page.js";
import { HeatMap } from "./heat.js";
import type { Islands } from "./report-parts.js";

/** The parts of a report of experts that need a script. */
export function expertsIslands({ maps }: ExpertsData): Islands {
  return Object.fromEntries(
    Object.entries(maps).map(([name, { rows, ends, ...map }]) => [
      name,
      <HeatMap
        key={name}
        {...map}
        rowName={(row) => rows[row] ?? ""}
        columnName={(column) => `expert ${column}`}
        format={(value) => significant(value, 4)}
        {...(ends !== null && { rowEnd: (row: number) => ends[row] ?? "" })}
      />,
    ]),
  );
}
