import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runFit } from "../../../src/laws/points/fit.js";
import { renderLawHtml } from "../../../src/report/laws/law-page.js";
import { fitAnswer } from "../../../src/report/laws/law-answer.js";
import { lawSource } from "../../../src/report/laws/law-source.js";
import { lawCharts, type Chart, type LawResult } from "../../../src/report/laws/law-view.js";
import { gridOf, law, lossFunction, publishedParams, simulated, spaced, together, upcyclingGrid } from "../data.js";
import { at, valueAt } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

const asset = (name: string): string =>
  readFileSync(new URL(`../../../dist/studio/page/${name}`, import.meta.url), "utf8");
const assets = { script: asset("report.js"), style: asset("report.css") };

async function resultOf(
  id: string,
  published: string,
  places: ReturnType<typeof gridOf>,
  predict: Record<string, number>[],
): Promise<LawResult> {
  const points = simulated(law(id), publishedParams(published), places, 0.005, 1);
  const report = await runFit({
    law: { id },
    points,
    loss: { name: "mse", delta: 0 },
    starts: "projection",
    bootstrap: 60,
    profile: true,
    level: 0.9,
    seed: 0,
    threads: 1,
    compare: [{ id: id === "chinchilla" ? "kaplan" : "upcycling-total" }],
    predict: predict.map((columns) => ({ columns })),
  });
  return {
    ...report,
    points,
    active: null,
    warnings: report.warnings.map(({ text }) => text),
    file: "<b>runs</b>.csv",
    rows: 70,
    leftOut: "N is missing (line 3)",
    columns: { N: "params" },
    version: "0.0.0",
    command: "upcycle fit '<b>'",
  };
}

async function sharedResult(): Promise<LawResult> {
  const points = together(0.003);
  const report = await runFit({
    law: { id: "upcycling-shared" },
    points,
    loss: { name: "mse", delta: 0 },
    starts: "projection",
    bootstrap: 0,
    profile: false,
    level: 0.9,
    seed: 0,
    threads: 1,
    compare: [],
    predict: [{ columns: { N: 1e10, D: 1e12 }, group: "moe" }],
  });
  return {
    ...report,
    points,
    active: null,
    warnings: [],
    file: "runs",
    rows: points.n,
    leftOut: "",
    columns: {},
    version: "0.0.0",
    command: "upcycle fit runs",
  };
}

describe("the page of a fit", async () => {
  const upcycling = await resultOf("upcycling", "liew-upcycled", upcyclingGrid, []);
  const chinchilla = await resultOf(
    "chinchilla",
    "hoffmann",
    gridOf({ N: spaced(1e8, 1e10, 9), D: spaced(1e9, 1e11, 9) }),
    [{ N: 1e11, D: 1e12 }],
  );
  const sharedLaw = await sharedResult();
  const html = renderLawHtml(chinchilla, assets);

  it("refers to nothing outside of itself and escapes what users gave", () => {
    expect(html).not.toMatch(/(src|href|action|poster|data)\s*=\s*["']?\s*(https?:)?\/\//i);
    expect(html).not.toMatch(/@import|<iframe|<img|fetch\(|XMLHttpRequest/i);
    expect(html).toContain("default-src 'none'");
    expect(html).not.toContain("<b>runs</b>");
    expect(html.length).toBeLessThan(400_000);
  });

  it("says at its head how well the law fits, what was asked, and what is in doubt", async () => {
    const head = at(html.split("</header>"), 0);
    expect(head).toMatch(/<h1>Describes 81 points within 0\.\d+ %<\/h1>/);
    expect(head).toMatch(
      /Predicted at N = 100B, D = 1\.00T: \d\.\d{4} nats \(90 % intervals: the law .* to .*, a new run .* to .*\)\. /,
    );
    expect(head).toContain("In doubt: a prediction extrapolates.");
    const { headline, prediction, doubts } = fitAnswer(lawSource(upcycling));
    expect(headline).toMatch(/^Describes 64 points/);
    expect(prediction).toBe("");
    expect(doubts).toMatch(/^In doubt: .*they cannot tell it from upcycling-no-interaction.*E is not bounded by them/);
    const flat = { ...chinchilla, fit: { ...chinchilla.fit, status: "no-better-than-constant" as const } };
    expect(fitAnswer(lawSource(flat)).headline).toBe("No fit: one number for all losses does as well");
    const clean = await sharedResult();
    expect(fitAnswer(lawSource({ ...clean, predictions: [], rivals: [], misfit: null, outliers: [] })).doubts).toBe(
      "No check of the form, of rivals or of outliers speaks against it.",
    );
  });

  it("has scripts that parse, and closes every element", () => {
    for (const [, script = ""] of html.matchAll(/<script>([\s\S]*?)<\/script>/g))
      expect(() => new Function(script)).not.toThrow();
    const body = html.replace(/<script[\s\S]*?<\/script>/g, "").replace(/<style[\s\S]*?<\/style>/g, "");
    const open: string[] = [];
    for (const [, slash, name] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (["meta", "link", "input", "br"].includes(present(name))) continue;
      if (slash === "") open.push(present(name));
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
  });

  it("has a figure for every chart, and the numbers in tables", () => {
    const { data } = JSON.parse(at(present(/id="report-data">([^<]*)</.exec(html)), 1)) as {
      data: { charts: Chart[] };
    };
    const { charts } = data;
    for (const island of ["fit", "profiles", "clouds"]) expect(html).toContain(`data-island="${island}"`);
    expect(charts.map(({ id }) => id)).toEqual([
      "loss-0",
      "loss-1",
      "residuals",
      "contours",
      "isoflop",
      "profile-A",
      "profile-B",
      "profile-E",
      "profile-alpha",
      "profile-beta",
      "cloud-0",
      "cloud-1",
      "cloud-2",
    ]);
    for (const words of ["Held-out", "90 % bootstrap", "Predictions", "kaplan", "N = 100B, D = 1.00T"])
      expect(html).toContain(words);
  });

  it("draws loss against D2 by D1 for upcycled models", () => {
    const charts = lawCharts(upcycling);
    const [first] = charts;
    expect([present(first).title, present(first).series.map(({ label }) => label)]).toEqual([
      "Loss against D2, by D1",
      [
        "D1 2.00B",
        "D1 2.00B, fit",
        "D1 6.66B",
        "D1 6.66B, fit",
        "D1 22.2B",
        "D1 22.2B, fit",
        "D1 74.0B",
        "D1 74.0B, fit",
      ],
    ]);
    expect(present(charts.find(({ id }) => id === "profile-E")).note).toContain("It is open");
    for (const { series } of charts)
      for (const { x, y } of series) expect([x.length, [...x, ...y].every(Number.isFinite)]).toEqual([y.length, true]);
  });

  it("draws contours on which the loss is the same", () => {
    for (const [result, group] of [
      [upcycling, ""],
      [sharedLaw, "upcycled"],
      [sharedLaw, "moe"],
    ] as const) {
      const chart = present(
        lawCharts(result).find(({ id }) => id === (group === "" ? "contours" : `contours-${group}`)),
      );
      const { params, law: of } = result.fit;
      const lines = chart.series.filter(({ kind }) => kind === "line");
      const [moe, upcycled] = [
        lossFunction(of, params, ["N", "D"], group),
        lossFunction(of, params, ["N", "D1", "D2"], group),
      ];
      expect([chart.xLog, chart.yLog]).toEqual([true, true]);
      expect(lines.length).toBeGreaterThanOrEqual(5);
      const size = Number(/N = (\d+)M/.exec(chart.note)?.[1] ?? NaN) * 1e6;
      for (const { label, x, y } of lines) {
        x.forEach((value, i) => {
          // The size in the note has three digits, and lines are straight between the steps of a grid.
          expect(
            Math.abs((group === "moe" ? moe(value, y[i]) : upcycled(size, value, y[i])) - Number(label)),
          ).toBeLessThan(3e-3);
        });
      }
    }
  });

  it("draws lines of equal compute for upcycled models too", () => {
    const chart = present(lawCharts(upcycling).find(({ id }) => id === "isoflop"));
    expect(chart.note).toMatch(/^Fitted loss along lines of equal C = 6 N D2, which .*, with D1 = /);
    const parentTokens = 1e9 * Number(present(/D1 = ([\d.]+)B/.exec(chart.note))[1]);
    for (const { label, x, y } of chart.series) {
      const compute = Number(label.split(" ")[0]);
      x.forEach((size, i) => {
        const exact = lossFunction(upcycling.fit.law, upcycling.fit.params, ["N", "D1", "D2"])(
          size,
          parentTokens,
          compute / (6 * size),
        );
        // The compute in the label has two digits.
        expect(Math.abs(at(y, i) - exact)).toBeLessThan(0.02);
      });
    }
  });

  it("has charts of each law of several", () => {
    const ids = lawCharts(sharedLaw).map(({ id }) => id);
    for (const group of ["dense", "moe", "upcycled"])
      for (const id of ["loss-0", "contours", "isoflop"]) expect(ids).toContain(`${id}-${group}`);
    const page = renderLawHtml(sharedLaw, assets);
    expect(page).toContain("Loss against D2, by D1, upcycled");
    expect(page).toContain("moe, N = 10.0B, D = 1.00T");
    expect(page.replace(/<script>[\s\S]*?<\/script>/g, "")).not.toMatch(/NaN|undefined/);
    for (const { series } of lawCharts(sharedLaw))
      for (const { x, y } of series) expect([x.length, [...x, ...y].every(Number.isFinite)]).toEqual([y.length, true]);
  });

  it("has profiles that are smooth and lowest at the optimum", () => {
    const { series } = present(lawCharts(chinchilla).find(({ id }) => id === "profile-alpha"));
    const lowest = at(series, 0).y.indexOf(Math.min(...at(series, 0).y));
    expect(at(series, 0).x[lowest]).toBeCloseTo(valueAt(chinchilla.fit.params, "alpha"), 5);
    expect(at(series, 0).x.length).toBeGreaterThan(40);
  });
});
