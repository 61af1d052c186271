/** The studio as one HTML file: the same page, with the answers to what its views ask for in it. */
import type { CoactivationHistory } from "../data/expert-types.js";
import type { CompareAnswer, EvaluationRow, Metric, Overview, RunDetail, RunList } from "../data/types.js";
import { answerAddress, curveAddress, queryOf, viewMetrics } from "../data/addresses.js";
import { toolVersion } from "../../surgery/convert/version.js";
import { filePage, type PageAssets } from "./page.js";
import type { Studio } from "./studio.js";

/** Runs whose views are in the file, those changed last; the list has all. */
const mostRuns = 60;
/** Characters of the file that pairs of experts chosen together may take; the page says which layers it lacks. */
const coactivationBytes = 8e6;
/** Runs of a study whose comparison is in the file. */
const mostCompared = 200;
/** Columns of pixels of the curves. */
const columns = 150;

/** The text of the file. `day` is shown as when it was made; `room`: characters for pairs of experts. */
export async function exportPage(
  studio: Studio,
  assets: PageAssets,
  day: string,
  room = coactivationBytes,
): Promise<string> {
  const answers: Record<string, unknown> = {};
  const ask = async <T>(path: string, settings: readonly (readonly [string, string])[] = []): Promise<T> => {
    const address = answerAddress(path, settings);
    const answer = await studio.answer(path, queryOf(settings));
    answers[address] = answer;
    return answer as T;
  };
  const overview = await ask<Overview>("/api/overview");
  const { runs } = await ask<RunList>("/api/runs");
  for (const path of ["/api/models", "/api/conversions", "/api/jobs", "/api/alerts"]) await ask(path);
  const lists = await ask<{ readonly evaluations: readonly EvaluationRow[] }>("/api/reports");
  for (const { name } of overview.models) await ask("/api/model", [["name", name]]);
  for (const { name } of overview.expertFiles) await ask("/api/expert-file", [["name", name]]);
  // A study that has begun nothing has no report.
  for (const { name } of overview.studies) await ask("/api/study", [["name", name]]).catch(() => null);
  for (const { name } of overview.reports) await ask("/api/report", [["name", name]]);
  for (const { name } of lists.evaluations) await ask("/api/evaluation", [["name", name]]);
  for (const [one, other] of evaluationPairs(lists.evaluations))
    await ask("/api/evaluation", [
      ["name", one],
      ["with", other],
    ]);
  const shown = [...runs].sort((a, b) => b.changed - a.changed).slice(0, mostRuns);
  for (const { name } of shown) {
    const { metrics } = await ask<RunDetail>("/api/run", [["name", name]]);
    await ask("/api/experts", [["name", name]]);
    for (const metric of metrics) await curves([name], metric);
  }
  await coactivations(shown.map(({ name }) => name));
  for (const names of comparisons(overview)) {
    await ask<CompareAnswer>(
      "/api/compare",
      names.map((name) => ["run", name] as const),
    );
    for (const metric of viewMetrics) await curves(names, metric);
  }
  const hasPlan = overview.reports.some(({ kind }) => kind === "plan");
  const libraries = hasPlan ? [await assets.planner()] : [];
  return filePage(studio.options.dir, assets, { answers, version: toolVersion, made: day, libraries });

  /** The first layer of every run, the second of every run, and so on, as far as there is room. */
  async function coactivations(names: readonly string[]): Promise<void> {
    let [left, free] = [names, room];
    for (let layer = 0; left.length > 0; layer++) {
      const deeper: string[] = [];
      for (const name of left) {
        const settings = [["name", name] as const, ["layer", String(layer)] as const];
        const answer = (await studio.answer("/api/coactivation", queryOf(settings))) as CoactivationHistory | null;
        free -= answer === null ? 0 : JSON.stringify(answer).length;
        if (free < 0) return;
        // A run without pairs has null, so that the page knows that nothing was left out.
        answers[answerAddress("/api/coactivation", settings)] = answer;
        if (answer !== null && layer + 1 < answer.layers) deeper.push(name);
      }
      left = deeper;
    }
  }

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

/** Evaluations of which all pairs are in the file; of more, each is there alone. */
const mostPaired = 6;

/** All ordered pairs of a few evaluations. */
function evaluationPairs(rows: readonly EvaluationRow[]): (readonly [string, string])[] {
  const names = rows.slice(0, mostPaired).map(({ name }) => name);
  return names.flatMap((one) => names.filter((other) => other !== one).map((other) => [one, other] as const));
}

/** Runs of every study, without its parents: what the page compares at first. */
function comparisons({ studies }: Overview): string[][] {
  const all = studies.map(({ arms }) => arms.flatMap(({ runs }) => runs.map(({ run }) => run)).sort());
  return all.filter(({ length }) => length > 1 && length <= mostCompared);
}
