/** Writes the report of a finished study: the page, Markdown and LaTeX, figures. */
import { join } from "node:path";
import { writeFileAtomic } from "../files/io/atomic.js";
import { makeFolders } from "../files/io/folders.js";
import { withFsErrors } from "../files/io/fs-errors.js";
import { pngBytes } from "../files/io/png.js";
import type { StudyResult } from "../model/results/result.js";
import { rasterOf } from "../report/page/raster.js";
import { lossFigure, svgText } from "../report/study/figure.js";
import { renderHtml } from "../report/study/html.js";
import { latexTable, markdownReport, resultTables } from "../report/study/result-tables.js";
import { chartAssets } from "./chart-assets.js";

/** Names of what a report is made of, in the study's folder. */
export const reportFiles = ["report.html", "report.md", "tables.tex", "figures"] as const;

/**
 * Writes `report.html`, a page that opens without a network, `report.md`, `tables.tex` and `figures/` into the run
 * folder and returns the page's path. Throws inputError or stopError where a file cannot be written.
 */
export async function writeReport(dir: string, result: StudyResult): Promise<string> {
  const [page, markdown, latex, figures] = reportFiles.map((name) => join(dir, name)) as [
    string,
    string,
    string,
    string,
  ];
  const drawn: { file: string; title: string }[] = [];
  await withFsErrors(figures, "create folder", () => makeFolders(figures));
  for (const axis of ["tokens", "flops"] as const) {
    const figure = lossFigure(result, axis);
    if (figure === null) continue;
    await writeFileAtomic(join(figures, `loss-${axis}.svg`), svgText(figure));
    await writeFileAtomic(join(figures, `loss-${axis}.png`), pngBytes(rasterOf(figure)));
    drawn.push({ file: `figures/loss-${axis}.svg`, title: figure.title });
  }
  await writeFileAtomic(markdown, markdownReport(result, drawn));
  await writeFileAtomic(latex, resultTables(result).map(latexTable).join("\n"));
  await writeFileAtomic(page, renderHtml(result, await chartAssets()));
  return page;
}
