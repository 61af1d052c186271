/** What pages are made of beside their numbers. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { shellWord } from "../base/shell.js";
import { readText } from "../files/io/ranges.js";
import type { ReportAssets } from "../report/page/shell.js";

/** The chart library, from the package it comes in. */
export async function chartAssets(): Promise<ReportAssets> {
  const folder = join(dirname(createRequire(import.meta.url).resolve("uplot/package.json")), "dist");
  const [uplotJs, uplotCss] = await Promise.all([
    readText(join(folder, "uPlot.iife.min.js")),
    readText(join(folder, "uPlot.min.css")),
  ]);
  return { uplotJs, uplotCss };
}

/** The planner as one script, made by the build. */
export async function plannerBundle(): Promise<string> {
  return readText(fileURLToPath(new URL("../report/plan/plan-live.bundle.js", import.meta.url)));
}

/** The running command, as one would type it again. */
export function commandLine(): string {
  return `upcycle ${process.argv.slice(2).map(shellWord).join(" ")}`;
}
