/** The study as a report: its sections, and one HTML file that opens without a network. */
import { renderPage, type ReportAssets, type ReportBody } from "../page/shell.js";
import type { StudyResult } from "../../model/results/result.js";
import {
  armsSection,
  expertsSection,
  findingsSection,
  header,
  loadWithoutScript,
  lossSection,
  lossWithoutScript,
  preservationSection,
  questionsSection,
  reproduceSection,
  setupSection,
  tiles,
} from "./sections.js";
import type { ShownStudy } from "./shown.js";
import { tasksSection } from "./tasks-section.js";
import { reportData } from "./view.js";

/** The report of a study, finished or not. */
export function studyBody(result: ShownStudy): ReportBody {
  const data = reportData(result);
  return {
    kind: "study",
    title: `${result.name} · Upcycle study`,
    sections: [
      header(result),
      tiles(result, data),
      findingsSection(result),
      questionsSection(result),
      lossSection(),
      lossWithoutScript(result),
      preservationSection(result),
      expertsSection(data),
      loadWithoutScript(data),
      armsSection(result),
      tasksSection(result),
      setupSection(result),
      reproduceSection(result),
    ],
    data,
  };
}

/** The page of a study as the text of an HTML file. The studio reads `result.json`, which lies beside it. */
export function renderHtml(result: StudyResult, assets: ReportAssets): string {
  return renderPage({ body: studyBody(result), version: result.environment.upcycle, source: null }, assets);
}
