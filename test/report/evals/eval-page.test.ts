/** The page of an evaluation: subjects within their groups, what a model has learnt and forgotten, hostile texts. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { differencesOf } from "../../../src/evals/suite/differences.js";
import { renderEvaluationHtml, type EvaluationPage } from "../../../src/report/evals/eval-page.js";
import { chromium, openPage } from "../../support/browser.js";
import { child, folder, parent, selection } from "./models.js";

const page: EvaluationPage = {
  models: [
    { name: "parent", maxLength: 512, device: "onnxruntime", outcome: parent },
    { name: "child <b>", maxLength: 512, device: "onnxruntime", outcome: child },
  ],
  groups: selection.groups,
  command: "upcycle eval parent child --tasks mmlu_social_sciences",
  date: "2026-11-30",
  version: "1.0.0",
};
const html = renderEvaluationHtml(page, { script: "", style: "" });

/** Rows of the table in a section, as texts. */
function rowsOf(section: string): readonly string[][] {
  const [, part = ""] = html.split(`id="${section}"`);
  const [body = ""] = part.split("</section>");
  return [...body.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row = ""]) =>
    [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell = ""]) => cell.replace(/<[^>]*>/g, "").trim()),
  );
}

describe("the page of an evaluation", () => {
  it("shows a group, then its subjects, with the scores of both models", () => {
    const [heads, group, ...others] = rowsOf("scores");
    expect(heads).toEqual(["task", "metric", "parent", "child &lt;b&gt;", "samples"]);
    expect(group!.slice(0, 2)).toEqual(["social sciences", "acc ↑"]);
    expect(group!.at(-1)).toBe("192");
    expect(others).toHaveLength(12);
    const sociology = others.find(([name]) => name === "sociology");
    expect(sociology!.slice(2)).toEqual(["0.5000", "0.0000", "16"]);
    expect(html.match(/class="level-1"/g)).toHaveLength(12);
  });

  it("says what was learnt and forgotten, and by how much, for the group and for each subject", () => {
    expect(html).toMatch(/<dt>better on<\/dt><dd>mmlu_econometrics<\/dd>/);
    expect(html).toMatch(/<dt>worse on \(forgotten\)<\/dt><dd>mmlu_sociology<\/dd>/);
    const rows = rowsOf("differences-0");
    const [, group] = rows;
    expect(group).toEqual(expect.arrayContaining(["mmlu_social_sciences", "acc", "8 : 8", "not distinguishable"]));
    const sociology = rows.find(([name]) => name === "mmlu_sociology")!;
    expect(sociology.at(-1)).toBe("worse");
    expect(sociology).toContain("0 : 8");
    // Its picture ends left of the middle, that of what was learnt begins right of it.
    const pictures = [...html.matchAll(/<svg class="interval changed".*?x1="([\d.]+)" x2="([\d.]+)" y1="10"/g)];
    expect(pictures.map(([, from, to]) => [Number(from) > 100, Number(to) > 100])).toEqual([
      [true, true],
      [false, false],
    ]);
  });

  it("counts differences of a group over the samples of all its tasks", () => {
    const [group] = differencesOf(parent, child, selection.groups);
    expect(group).toMatchObject({ task: "mmlu_social_sciences", differences: [{ samples: 192, better: 8, worse: 8 }] });
  });

  it("shows the samples on which the models differ, with what each says of every answer", () => {
    const [, samples = ""] = html.split('id="samples-0"');
    expect(samples.match(/: learnt<\/h3>/g)).toHaveLength(8);
    expect(samples.match(/: forgotten<\/h3>/g)).toHaveLength(8);
    expect(samples).toContain("<summary>mmlu_sociology</summary>");
    expect(samples).not.toContain("<summary>mmlu_security_studies</summary>");
    expect(samples).toContain("sociology, number 0?");
  });

  it("escapes names and documents", () => {
    expect(html).not.toContain("<img src=x");
    expect(html).not.toContain("child <b>");
  });

  it.skipIf(chromium === undefined)("fits narrow and wide windows, light and dark", { timeout: 60_000 }, async () => {
    const file = join(folder, "page.html");
    writeFileSync(file, html);
    const { page: opened, errors } = await openPage(pathToFileURL(file).href);
    for (const scheme of ["light", "dark"] as const) {
      await opened.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      for (const width of [390, 1280]) {
        await opened.setViewport({ width, height: 900 });
        const overflow = await opened.evaluate("document.documentElement.scrollWidth - window.innerWidth");
        expect(overflow, `${width} ${scheme}`).toBeLessThanOrEqual(0);
      }
    }
    await opened.evaluate('document.querySelectorAll("details").forEach((one) => (one.open = true))');
    expect(await opened.evaluate("document.documentElement.scrollWidth - window.innerWidth")).toBeLessThanOrEqual(0);
    expect(errors).toEqual([]);
  });
});
