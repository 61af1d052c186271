import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { embedJson, escapeHtml } from "../../../src/report/page/escape.js";
import { renderHtml } from "../../../src/report/study/html.js";
import type { StudyResult } from "../../../src/model/results/result.js";
import type { ReportData } from "../../../src/report/study/view.js";
import { plainArm, study } from "../fixture.js";

const assets = {
  script: readFileSync(new URL("../../../dist/studio/page/report.js", import.meta.url), "utf8"),
  style: readFileSync(new URL("../../../dist/studio/page/report.css", import.meta.url), "utf8"),
};

const render = (result: StudyResult): string => renderHtml(result, assets);

function embedded(html: string): ReportData {
  const [, json = ""] = /<script type="application\/json" id="report-data">([^<]*)<\/script>/.exec(html) ?? [];
  return (JSON.parse(json) as { data: ReportData }).data;
}

describe("one file that needs no network", () => {
  const html = render(study());

  it("refers to nothing outside of itself", () => {
    expect(html).not.toMatch(/(src|href|action|poster|data)\s*=\s*["']?\s*(https?:)?\/\//i);
    // Scripts may make addresses of files that are saved; style sheets and markup name none.
    expect(html.replace(/<script>[\s\S]*?<\/script>/g, "")).not.toMatch(/url\(\s*["']?(?!data:)/i);
    expect(html).not.toMatch(/@import|<iframe|<object|<embed|<img|fetch\(|XMLHttpRequest|import\(/i);
    expect(html).toContain("default-src 'none'");
  });

  it("stays small, also with many measurements", () => {
    expect(html.length).toBeLessThan(300_000);
    const long = study();
    const arms = long.arms.map((arm) => ({
      ...arm,
      runs: arm.runs.map((run) => ({
        ...run,
        load: Array.from({ length: 400 }, (_, i) => ({ step: i, layers: run.load[0]?.layers ?? [] })),
      })),
    }));
    expect(render({ ...long, arms }).length).toBeLessThan(1_500_000);
  });

  it("has scripts that parse and cannot close their element", () => {
    const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, text = ""]) => text);
    expect(scripts).toHaveLength(2);
    for (const script of scripts) expect(() => new Function(script)).not.toThrow();
  });

  it("closes every element that it opens", () => {
    const body = html.replace(/<script[\s\S]*?<\/script>/g, "").replace(/<style[\s\S]*?<\/style>/g, "");
    const open: string[] = [];
    for (const [, slash, name = ""] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (["meta", "link", "input", "br", "path"].includes(name)) continue;
      if (slash === "") open.push(name);
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
  });

  it("keeps a p-value and the name of its test on one line", () => {
    const [header = ""] = /<header>[\s\S]*<\/header>/.exec(html) ?? [];
    expect(header).toMatch(/paired t\u2011test over 2 seeds, p\u00a0=\u00a00\.\d+, corrected/);
  });

  it("has one title, labelled charts and a table of losses without scripts", () => {
    expect(html.match(/<h1/g)).toHaveLength(1);
    for (const part of ["loss", "load", "imbalance", "similarity"]) expect(html).toContain(`data-island="${part}"`);
    expect(html).toMatch(/<noscript>[\s\S]*<svg class="heat-svg"[^>]*aria-label="Load of [\s\S]*<\/noscript>/);
    expect(html).toMatch(/<noscript>[\s\S]*4\.92M tokens[\s\S]*<\/noscript>/);
    const ids = [...html.matchAll(/ id="([^"]+)"/g)].map((match) => match[1]);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("has what was found as its headline and the numbers below it, also where arms have long names", () => {
    const base = study();
    const arms = base.arms.map((arm) => ({ ...arm, label: `${arm.label} on a text of its own` }));
    const [, headline = ""] = /<h1[^>]*>([^<]*)<\/h1>/.exec(render(study({ arms }))) ?? [];
    expect(headline).toMatch(/^Coarse upcycled .* came out below .* at equal FLOPs \(.*\); both may be chance$/);
  });

  it("carries the numbers that the charts draw", () => {
    const data = embedded(html);
    const ends = at(study().arms, 1).runs.map((run) => run.finalLoss);
    const { curve } = at(data.arms, 1);
    expect(curve.tokens.at(-1)).toBe(600 * 8192);
    expect(curve.mean.at(-1)).toBeCloseTo((at(ends, 0) + at(ends, 1)) / 2, 3);
    expect(curve.low.at(-1)).toBeCloseTo(Math.min(...ends), 3);
    expect(curve.high.at(-1)).toBeCloseTo(Math.max(...ends), 3);
  });
});

describe("text that came from users", () => {
  const nasty = `</script><script>alert(1)</script><b title="x" a='y'>&`;

  it("is escaped wherever it stands in the page", () => {
    const base = study();
    const html = render({
      ...study({
        name: nasty,
        startedAt: nasty,
        parents: [{ ...at(base.parents, 0), label: nasty, path: nasty }],
        arms: base.arms.map((arm) => ({ ...arm, id: nasty, label: nasty, recipe: nasty, router: nasty })),
        commands: [nasty],
        text: { ...base.text, sources: [{ name: nasty, documents: 1, bytes: 1 }] },
        environment: {
          ...base.environment,
          cpu: nasty,
          upcycle: nasty,
          node: nasty,
          platform: nasty,
          onnxruntime: nasty,
        },
      }),
    });
    expect(html).not.toContain("<script>alert");
    expect(html).not.toContain("<b title");
    expect(embedded(html).arms[0]?.label).toBe(nasty);
  });

  it("cannot leave the embedded JSON", () => {
    expect(embedJson({ a: "</script><!--\u2028" })).toBe('{"a":"\\u003c/script>\\u003c!--\\u2028"}');
    expect(escapeHtml(`<a href="x" b='y'>&`)).toBe("&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;");
  });
});

describe("studies that lack something", () => {
  const base = study();
  it.each([
    ["no arms", study({ arms: [] })],
    ["one seed", study({ arms: base.arms.map((arm) => ({ ...arm, runs: arm.runs.slice(0, 1) })), seeds: [1] })],
    ["dense only", study({ arms: base.arms.slice(0, 1) })],
    ["an arm without runs", study({ arms: [plainArm("up", "upcycled", [])] })],
    [
      "a diverged arm",
      study({ arms: [plainArm("dense", "dense", [[4, 3]]), plainArm("up", "upcycled", [[4, Number.NaN]])] }),
    ],
    ["a parent that the user brought", study({ parents: [{ ...at(base.parents, 0), tokens: null, points: [] }] })],
    ["no findings and no text", { ...base, findings: [], text: { ...base.text, sources: [] } }],
  ])("renders %s", (_, result) => {
    const html = render(result);
    embedded(html);
    const words = html.replace(/<(script|style)[\s\S]*?<\/\1>/g, "");
    expect(words).not.toMatch(/NaN|undefined|Infinity|\[object/);
  });

  it("survives a trip through JSON, where a diverged loss becomes null", () => {
    const result = study({
      arms: [plainArm("dense", "dense", [[4, 3]]), plainArm("up", "upcycled", [[4, Number.NaN]])],
    });
    expect(() => render(JSON.parse(JSON.stringify(result)) as StudyResult)).not.toThrow();
  });
});
