/** The studio as one HTML file: the same page, with the answers to what its views ask for in it. */
import type { CompareAnswer, Metric, RunDetail, RunRow } from "../data/types.js";
import { answerAddress, curveAddress, queryOf, viewMetrics } from "../data/addresses.js";
import { toolVersion } from "../../surgery/convert/version.js";
import { filePage, type PageAssets } from "./page.js";
import type { Studio } from "./studio.js";

/** Runs whose views are in the file, those changed last; the list has all. */
const mostRuns = 60;
/** Columns of pixels of the curves. */
const columns = 150;

/** The text of the file. `day` is shown as when it was made. */
export async function exportPage(studio: Studio, assets: PageAssets, day: string): Promise<string> {
  const answers: Record<string, unknown> = {};
  const ask = async <T>(path: string, settings: readonly (readonly [string, string])[] = []): Promise<T> => {
    const address = answerAddress(path, settings);
    const answer = await studio.answer(path, queryOf(settings));
    answers[address] = answer;
    return answer as T;
  };
  const overview = await ask<{ expertFiles: readonly { name: string }[]; models: readonly { name: string }[] }>(
    "/api/overview",
  );
  const { runs } = await ask<{ runs: readonly RunRow[] }>("/api/runs");
  for (const path of ["/api/models", "/api/reports", "/api/jobs", "/api/alerts"]) await ask(path);
  for (const { name } of overview.models) await ask("/api/model", [["name", name]]);
  for (const { name } of overview.expertFiles) await ask("/api/expert-file", [["name", name]]);
  const shown = [...runs].sort((a, b) => b.changed - a.changed).slice(0, mostRuns);
  for (const { name } of shown) {
    const { metrics } = await ask<RunDetail>("/api/run", [["name", name]]);
    await ask("/api/experts", [["name", name]]);
    // The layer that the view begins with: all layers of all runs would be more than the rest of the file.
    await ask("/api/coactivation", [
      ["name", name],
      ["layer", "0"],
    ]);
    for (const metric of metrics) await curves([name], metric);
  }
  for (const names of studiesOf(shown)) {
    await ask<CompareAnswer>(
      "/api/compare",
      names.map((name) => ["run", name] as const),
    );
    for (const metric of viewMetrics) await curves(names, metric);
  }
  return filePage(studio.options.dir, assets, { answers, version: toolVersion, made: day });

  async function curves(names: readonly string[], metric: Metric): Promise<void> {
    const query = queryOf([
      ...names.map((name) => ["run", name] as const),
      ["metric", metric],
      ["axis", "tokens"],
      ["columns", String(columns)],
    ]);
    answers[curveAddress(names, metric)] = await studio.answer("/api/curves", query);
  }
}

/** The runs of every study, without its parents: what the page compares at first. */
function studiesOf(rows: readonly RunRow[]): string[][] {
  const studies = new Map<string, string[]>();
  for (const { name, study, arm } of rows) {
    if (study === null || arm.startsWith("parent ")) continue;
    studies.set(study, [...(studies.get(study) ?? []), name]);
  }
  return [...studies.values()].map((names) => names.sort());
}
