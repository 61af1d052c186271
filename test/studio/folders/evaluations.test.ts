/** Evaluations by the files that `upcycle eval` writes, in the layout of the LM Evaluation Harness. */
import { readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { evaluationBody, evaluationSource } from "../../../src/report/evals/eval-page.js";
import type { EvaluationRow, ReportAnswer } from "../../../src/studio/data/types.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { studioCommand } from "../../../src/cli/studio.js";
import { jsonInProcess } from "../../cli/in-process.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { child, parent, selection } from "../../report/evals/models.js";
import { evaluationDate, writeEvaluations } from "../evaluations.js";

const dir = temporaryFolder();
const [parentResults, childResults] = await writeEvaluations(dir);
let studio: Studio;
const ask = async <T>(path: string, settings: Record<string, string> = {}): Promise<T> =>
  (await studio.answer(path, new URLSearchParams(settings))) as T;

beforeAll(async () => {
  writeFileSync(join(dir, "results_none.json"), "{}");
  studio = await Studio.open({ dir, actions: false });
});

describe("evaluations in a folder", () => {
  it("are listed with their models and tasks", async () => {
    const { evaluations } = await ask<{ evaluations: readonly EvaluationRow[] }>("/api/reports");
    expect(evaluations.map(({ name, model, date: day, tasks }) => [name, model, day, tasks.length])).toEqual([
      [childResults, "child", evaluationDate.getTime(), 12],
      [parentResults, "parent", evaluationDate.getTime(), 12],
    ]);
  });

  it("side by side say what the report of the evaluation itself says", async () => {
    const shown = await ask<ReportAnswer>("/api/evaluation", { name: parentResults, with: childResults });
    const own = evaluationSource({
      models: Object.entries({ parent, child }).map(([name, outcome]) => {
        return { name: `${name} (${name})`, maxLength: 512, device: "onnxruntime", outcome };
      }),
      groups: selection.groups,
      command: "upcycle eval parent child",
      date: "2026-11-30",
      version: "0",
    });
    // Differences of whole groups are not in the files.
    const [comparison] = own.comparisons;
    const differences = comparison!.differences.filter(({ task }) => task !== "mmlu_social_sciences");
    const wanted = evaluationBody({ ...own, comparisons: [{ ...comparison!, differences }] });
    expect(shown.sections).toEqual(wanted.sections.filter((section) => section !== ""));
  });

  it("are printed by a command as the page has them", async () => {
    const settings = { name: parentResults, with: childResults };
    const address = `/api/evaluation?${String(new URLSearchParams(settings))}`;
    const printed = await jsonInProcess(studioCommand(), "studio", dir, "--print", address);
    expect(printed).toEqual(JSON.parse(JSON.stringify(await ask("/api/evaluation", settings))));
  });

  it("alone have their scores", async () => {
    const { sections } = await ask<ReportAnswer>("/api/evaluation", { name: childResults });
    expect(sections.join("")).toMatch(/<h1>child \(child\)<\/h1>[\s\S]*sociology[\s\S]*0\.0000/);
    expect(sections.join("")).not.toContain("learnt and forgotten");
  });

  it.each(["results_none.json", "../results.json", "parent", ""])("of no such name are none: %s", async (name) => {
    expect(await ask("/api/evaluation", { name })).toBeNull();
    expect(await ask("/api/evaluation", { name: parentResults, with: name === "" ? "x" : name })).toBeNull();
  });

  it("read samples beside their results alone, and follow no link", async () => {
    const samples = readdirSync(join(dir, "child")).find((name) => name.startsWith("samples_mmlu_sociology"))!;
    renameSync(join(dir, "child", samples), join(dir, "elsewhere.jsonl"));
    symlinkSync(join(dir, "elsewhere.jsonl"), join(dir, "child", samples));
    const names = { name: parentResults, with: childResults };
    expect((await ask<ReportAnswer>("/api/evaluation", names)).sections.join("")).not.toContain(
      "<summary>mmlu_sociology</summary>",
    );
    // A task's name is no path.
    const text = readFileSync(join(dir, childResults), "utf8");
    writeFileSync(join(dir, childResults), text.replaceAll("mmlu_sociology", "../../elsewhere"));
    expect(await ask("/api/evaluation", names)).not.toBeNull();
  });
});
