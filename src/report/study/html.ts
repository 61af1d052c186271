/** The study as one HTML file that opens without a network. */
import type { StudyResult } from "../../model/results/result.js";
import { renderPage, type ReportAssets } from "../page/shell.js";
import { loadMapStyle } from "./load-map-style.js";
import { pageScript } from "./script-page.js";
import {
  armsSection,
  expertsSection,
  findingsSection,
  header,
  lossSection,
  preservationSection,
  questionsSection,
  reproduceSection,
  setupSection,
  tiles,
} from "./sections.js";
import { tasksSection } from "./tasks-section.js";
import { reportData } from "./view.js";

/** The page of a study as the text of an HTML file; `assets` are the texts of the chart library, which stand in it. */
export function renderHtml(result: StudyResult, assets: ReportAssets): string {
  const data = reportData(result);
  const page = {
    title: `${result.name} · Upcycle study`,
    version: result.environment.upcycle,
    footer: " from <code>result.json</code>. Nothing on this page is loaded from a network.",
    body: [
      header(result),
      tiles(result, data),
      findingsSection(result),
      questionsSection(result),
      lossSection(result),
      preservationSection(result),
      expertsSection(data),
      armsSection(result),
      tasksSection(result),
      setupSection(result),
      reproduceSection(result),
    ],
    data,
    style: loadMapStyle,
    script: pageScript,
  };
  return renderPage(page, assets);
}
