/** The study as one HTML file that opens without a network: markup, style, numbers, chart library and script in one. */
import { embedAsset, escapeHtml } from "../page/escape.js";
import type { StudyResult } from "../../model/results/result.js";
import { chartScript } from "../page/script-chart.js";
import { pageScript } from "./script-page.js";
import {
  armsSection,
  dataElement,
  expertsSection,
  findingsSection,
  header,
  lossSection,
  preservationSection,
  reproduceSection,
  setupSection,
  tiles,
} from "./sections.js";
import { pageStyle } from "../page/style.js";
import { reportData } from "./view.js";

/** Texts of `uPlot.iife.min.js` and `uPlot.min.css`: read by the caller, because this floor does no IO. */
export interface ReportAssets {
  readonly uplotJs: string;
  readonly uplotCss: string;
}

/** Forbids every load, also by mistake: the page can only use what is written in it. */
const contentPolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

export function renderHtml(result: StudyResult, assets: ReportAssets): string {
  const data = reportData(result);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${contentPolicy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="upcycle ${escapeHtml(result.environment.upcycle)}">
<title>${escapeHtml(result.name)} · Upcycle study</title>
<link rel="icon" href="data:,">
<style>${embedAsset(assets.uplotCss)}</style>
<style>${pageStyle()}</style>
<script>document.documentElement.classList.add("with-script");</script>
</head>
<body>
<main>
${header(result)}
${tiles(result, data)}
${findingsSection(result)}
${lossSection(result)}
${preservationSection(result)}
${expertsSection(data)}
${armsSection(result)}
${setupSection(result)}
${reproduceSection(result)}
</main>
<footer><p>Written by upcycle ${escapeHtml(result.environment.upcycle)} from <code>result.json</code>. Nothing on this page is loaded from a network.</p></footer>
${dataElement(data)}
<script>${embedAsset(assets.uplotJs)}</script>
<script>${chartScript}${pageScript}</script>
</body>
</html>
`;
}
