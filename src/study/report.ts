/** Writes the report of a finished study. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../files/io/atomic.js";
import { readText } from "../files/io/ranges.js";
import { renderHtml } from "../report/study/html.js";
import type { StudyResult } from "../model/results/result.js";

/** Writes `report.html` into the run folder and returns its path. */
export async function writeReport(dir: string, result: StudyResult): Promise<string> {
  const uplot = join(dirname(createRequire(import.meta.url).resolve("uplot/package.json")), "dist");
  const path = join(dir, "report.html");
  const [uplotJs, uplotCss] = await Promise.all([
    readText(join(uplot, "uPlot.iife.min.js")),
    readText(join(uplot, "uPlot.min.css")),
  ]);
  await writeFileAtomic(path, renderHtml(result, { uplotJs, uplotCss }));
  return path;
}
