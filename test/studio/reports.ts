/** Reports of all kinds as the commands write them, small, for the folder of a studio. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runFit } from "../../src/laws/points/fit.js";
import { renderExpertsPage } from "../../src/report/experts/experts-page.js";
import { renderPage } from "../../src/report/page/shell.js";
import { evaluationBody, type EvaluationSource } from "../../src/report/evals/eval-page.js";
import { renderLawHtml } from "../../src/report/laws/law-page.js";
import { renderPlanHtml } from "../../src/report/plan/plan-page.js";
import { renderHtml } from "../../src/report/study/html.js";
import { parseRecipeName } from "../../src/surgery/planning/recipe.js";
import { gridOf, law, publishedParams, simulated, spaced } from "../laws/data.js";
import { presetSpec, requestFor } from "../laws/planner/request.js";
import { expertsReport } from "../report/experts/fixture.js";
import { study } from "../report/fixture.js";

const asset = (name: string): string => readFileSync(new URL(`../../dist/${name}`, import.meta.url), "utf8");
const assets = { script: asset("studio/page/report.js"), style: asset("studio/page/report.css") };

/** The page of a fit of Chinchilla's law to points that were drawn from it. */
export async function lawPage(): Promise<string> {
  const places = gridOf({ N: spaced(1e8, 1e10, 5), D: spaced(1e9, 1e11, 5) });
  const points = simulated(law("chinchilla"), publishedParams("hoffmann"), places, 0.005, 1);
  const report = await runFit({
    law: { id: "chinchilla" },
    points,
    loss: { name: "mse", delta: 0 },
    starts: "projection",
    bootstrap: 20,
    profile: true,
    level: 0.9,
    seed: 0,
    threads: 1,
    compare: [],
    predict: [{ columns: { N: 1e11, D: 1e12 } }],
  });
  return renderLawHtml(
    {
      ...report,
      points,
      active: null,
      warnings: report.warnings.map(({ text }) => text),
      file: "<b>runs</b>.csv",
      rows: 25,
      leftOut: "",
      columns: { N: "params", D: "tokens" },
      version: "0.0.0",
      command: "upcycle fit runs.csv",
    },
    assets,
  );
}

/** The page of a plan of a small model. */
export function planPage(): string {
  const request = requestFor({
    name: "<b>mine</b>",
    spec: presetSpec("llama-3.2-1b"),
    seen: 1e11,
    gpus: 8,
    draws: 20,
    recipes: [parseRecipeName("E8G1T2")],
    budget: { tokens: 3e10, gpuHours: null, money: null, days: null },
  });
  const words = ["plan", "--preset", "llama-3.2-1b", "--d1", "100B", "--tokens", "30B"];
  return renderPlanHtml(
    { request, words, version: "0.0.0" },
    { ...assets, liveJs: asset("report/plan/plan-live.bundle.js") },
  );
}

/** An evaluation of two models on a task, with a sample that the second has learnt. */
export const evaluation: EvaluationSource = {
  models: ["parent", "child <b>"].map((name) => ({
    name,
    maxLength: 512,
    device: "onnxruntime",
    seconds: 3,
    warnings: [],
  })),
  tasks: 1,
  samples: 100,
  scores: [
    {
      task: "arc_easy",
      level: 0,
      metric: { name: "acc", higherIsBetter: true, samples: 100 },
      values: [
        { value: 0.4, stderr: 0.049 },
        { value: 0.62, stderr: 0.048 },
      ],
    },
  ],
  comparisons: [
    {
      name: "child <b>",
      differences: [
        {
          task: "arc_easy",
          differences: [
            {
              metric: "acc",
              filter: "none",
              unit: "share of samples",
              higherIsBetter: true,
              samples: 100,
              difference: 0.22,
              interval: [0.11, 0.33],
              better: 25,
              worse: 3,
              p: 0.00003,
            },
          ],
        },
      ],
      samples: [
        {
          task: "arc_easy",
          shown: [
            {
              id: 4,
              isLearnt: true,
              prompt: "Question: <i>why</i> is the sky blue?",
              target: null,
              answers: [
                {
                  text: " scattering",
                  isRight: true,
                  first: { words: "-3.100", isChosen: false },
                  second: { words: "-1.200", isChosen: true },
                },
                {
                  text: " paint",
                  isRight: false,
                  first: { words: "-2.000", isChosen: true },
                  second: { words: "-2.500", isChosen: false },
                },
              ],
            },
          ],
          more: 27,
        },
      ],
    },
  ],
  command: "upcycle eval parent child --tasks arc_easy",
  date: "2026-11-30",
};

/** The page of that evaluation. */
export const evaluationPage = (): string =>
  renderPage({ body: evaluationBody(evaluation), version: "0.0.0", source: evaluation }, assets);

/** The page of an MoE's experts. */
export const expertsPage = (): string =>
  renderExpertsPage(
    expertsReport(8),
    { model: "moe <b>", parent: null, command: "upcycle experts moe", version: "0.0.0" },
    assets,
  );

/** Writes a page of every kind, and a finished study with its result. */
export async function writeReports(dir: string): Promise<void> {
  writeFileSync(join(dir, "law.html"), await lawPage());
  writeFileSync(join(dir, "plan.html"), planPage());
  writeFileSync(join(dir, "evaluation.html"), evaluationPage());
  writeFileSync(join(dir, "experts.html"), expertsPage());
  writeFileSync(join(dir, "study-page.html"), renderHtml(study(), assets));
}
