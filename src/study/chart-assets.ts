/** The chart library, whose texts stand in every page. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { readText } from "../files/io/ranges.js";
import type { ReportAssets } from "../report/page/shell.js";

/** The script and the style sheet of the chart library, read from its package. */
export async function chartAssets(): Promise<ReportAssets> {
  const folder = join(dirname(createRequire(import.meta.url).resolve("uplot/package.json")), "dist");
  const [uplotJs, uplotCss] = await Promise.all([
    readText(join(folder, "uPlot.iife.min.js")),
    readText(join(folder, "uPlot.min.css")),
  ]);
  return { uplotJs, uplotCss };
}
