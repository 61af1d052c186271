/** Reports made again from the data in their files, and from what `--json` has printed. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { makePlan } from "../../../src/laws/planner/plan.js";
import { planViews } from "../../../src/laws/planner/views.js";
import { planBody, type PlanSource } from "../../../src/report/plan/plan-page.js";
import type { Rendered } from "../../../src/report/plan/plan-live.js";
import { fitCommand } from "../../../src/cli/fit.js";
import { jsonInProcess } from "../../cli/in-process.js";
import { bodyOf, documentKind, planOf, sourceOf } from "../../../src/studio/folders/report-body.js";
import type { ReportAnswer, ReportRow } from "../../../src/studio/data/types.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { present } from "../../support/present.js";
import { requestFor, presetSpec } from "../../laws/planner/request.js";
import { evaluation, evaluationPage, expertsPage, lawPage, planPage } from "../reports.js";

/** The sections of a file, one after the other. */
const sectionsIn = (page: string): string => present(/<main[^>]*>\n([\s\S]*)\n<\/main>/.exec(page))[1]!;
const sectionsOf = (page: string): string =>
  present(bodyOf(present(sourceOf(page))))
    .sections.filter((section) => section !== "")
    .join("\n");

describe("a report's file", async () => {
  const pages = { law: await lawPage(), plan: planPage(), evaluation: evaluationPage(), experts: expertsPage() };

  it.each(Object.keys(pages) as (keyof typeof pages)[])(
    "of a %s is made again from its data, word for word",
    (kind) => {
      expect(sectionsOf(pages[kind])).toBe(sectionsIn(pages[kind]));
    },
  );

  it("has no style attributes, which the studio's policy forbids, and shows hostile names as they are", () => {
    for (const page of Object.values(pages)) {
      expect(sectionsIn(page)).not.toMatch(/<[^>]* style=/);
      expect(sectionsIn(page)).not.toMatch(/<b>(mine|runs)|child <b>|moe <b>|<img|<i>why/);
    }
  });

  it.each([
    ["no page of ours", "<html></html>"],
    ["data that are no JSON", '<script type="application/json" id="report-data">{</script>'],
  ])("without data is shown in another way: %s", (_, text) => {
    expect(sourceOf(text)).toBeNull();
  });

  it.each([
    ["law", {}, {}],
    ["law", null, null],
    ["plan", { request: {} }, null],
    ["plan", { request: { recipes: [] }, words: [] }, null],
    ["evaluation", null, { models: [] }],
    ["evaluation", null, { ...evaluation, comparisons: [{}] }],
    ["experts", null, null],
    ["experts", null, { report: { layers: [{}] }, page: {} }],
    ["study", {}, null],
    ["toString", {}, {}],
  ])("with damaged data of a %s is none", (kind, data, source) => {
    expect(bodyOf({ kind, data, source })).toBeNull();
  });

  it("of a plan gives what sliders change", () => {
    const source = present(sourceOf(pages.plan));
    const moved = present(planOf(source, new URLSearchParams("tokens=1e12&nothing=3&gpus=-1")));
    expect(moved.command).toContain("--tokens 1000000000000");
    expect(moved.command).not.toContain("--gpus -1");
    expect((moved as Extract<Rendered, { ok: true }>).sections["headline"]).toMatch(/\w/);
  });
});

describe("what --json has printed", () => {
  it("is a report: a fit with its profiles, a plan with its sliders", async () => {
    const dir = temporaryFolder();
    const rows = [1e8, 3e8, 1e9, 3e9].flatMap((size) =>
      [1e9, 1e10, 1e11, 1e12].map((tokens) => `${size},${tokens},${1.7 + 400 * size ** -0.34 + 410 * tokens ** -0.28}`),
    );
    writeFileSync(join(dir, "runs.csv"), `N,D,loss\n${rows.join("\n")}\n`);
    const fit = await jsonInProcess(fitCommand(), "fit", join(dir, "runs.csv"), "--law", "chinchilla", "--profile");
    writeFileSync(join(dir, "fit.json"), JSON.stringify(fit));
    const request = requestFor({ spec: presetSpec("llama-3.2-1b"), draws: 0 });
    const plan = makePlan(request);
    const words = ["plan", "--preset", "llama-3.2-1b"];
    const printed = { upcycle: "0", words, request, ...plan, views: planViews(request, plan) };
    writeFileSync(join(dir, "plan.json"), JSON.stringify(printed));
    writeFileSync(join(dir, "other.json"), '{"law":1}');
    const studio = await Studio.open({ dir, actions: false });
    const ask = (path: string, name = ""): Promise<unknown> => studio.answer(path, new URLSearchParams({ name }));
    const { reports } = (await ask("/api/reports")) as { reports: readonly ReportRow[] };
    expect(reports.map(({ name, kind }) => [name, kind]).sort()).toEqual([
      ["fit.json", "law"],
      ["plan.json", "plan"],
    ]);
    const law = (await ask("/api/report", "fit.json")) as ReportAnswer;
    expect(law.sections.join("\n")).toMatch(/Describes 16 points within[\s\S]*data-island="profiles"/);
    expect((law.data as { charts: { id: string }[] }).charts.map(({ id }) => id)).toContain("profile-alpha");
    const shown = (await ask("/api/report", "plan.json")) as ReportAnswer;
    expect(shown.sections).toEqual(planBody(JSON.parse(JSON.stringify({ request, words })) as PlanSource).sections);
    expect(await ask("/api/report", "other.json")).toBeNull();
    expect(await ask("/api/report", "../fit.json")).toBeNull();
  }, 30_000);

  it("is told by how it begins", () => {
    expect(documentKind('{"upcycle":"1","version":1,"model":"a"}')).toBeNull();
    expect(documentKind(' {"law":"a\\"b","formula":"x","source":"y"')).toBe("law");
    expect(documentKind("[]")).toBeNull();
  });
});
