/** Writes the report of a finished study. */
import { join } from "node:path";
import { writeFileAtomic } from "../files/io/atomic.js";
import type { StudyResult } from "../model/results/result.js";
import { renderHtml } from "../report/study/html.js";
import { chartAssets } from "./chart-assets.js";

/**
 * Writes `report.html`, a page that opens without a network, into the run folder and returns its path. Throws
 * inputError or stopError where the file cannot be written.
 */
export async function writeReport(dir: string, result: StudyResult): Promise<string> {
  const path = join(dir, "report.html");
  await writeFileAtomic(path, renderHtml(result, await chartAssets()));
  return path;
}
