import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { makePlan } from "../../../src/laws/planner/plan.js";
import { changedRequest, controlsOf, render, type Changes, type Rendered } from "../../../src/report/plan/plan-live.js";
import { renderPlanHtml } from "../../../src/report/plan/plan-page.js";
import { planScript } from "../../../src/report/plan/plan-script.js";
import { planText } from "../../../src/report/plan/plan-terminal.js";
import { planAnswer } from "../../../src/report/plan/plan-words.js";
import { chartScript } from "../../../src/report/page/script-chart.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { presetSpec, requestFor } from "../../laws/planner/request.js";
import { chromium, openPage } from "../../support/browser.js";

const asset = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
const liveJs = asset("dist/report/plan/plan-live.bundle.js");
const assets = {
  uplotJs: asset("node_modules/uplot/dist/uPlot.iife.min.js"),
  uplotCss: asset("node_modules/uplot/dist/uPlot.min.css"),
  liveJs,
};
const request = requestFor({
  name: "<b>mine</b>",
  spec: presetSpec("llama-3.2-1b"),
  seen: 1e11,
  gpus: 8,
  draws: 60,
  recipes: ["E8G1T2", "E8G8T8"].map(parseRecipeName),
  budget: { tokens: null, gpuHours: null, money: 500, days: null },
});
const html = renderPlanHtml({ request, command: "upcycle plan '<b>'", version: "0.0.0" }, assets);

describe("the page of a plan", () => {
  it("refers to nothing outside of itself and escapes what users gave", () => {
    expect(html).not.toMatch(/(src|href|action|poster|data)\s*=\s*["']?\s*(https?:)?\/\//i);
    expect(html).not.toMatch(/@import|<iframe|<img|fetch\(|XMLHttpRequest|require\(|node:/i);
    expect(html).toContain("default-src 'none'");
    expect(html).not.toMatch(/<b>mine<\/b>|'<b>'/);
    expect(html.length).toBeLessThan(400_000);
  });

  it("has scripts that parse, and closes every element", () => {
    expect(() => new Function(chartScript + planScript)).not.toThrow();
    expect(() => new Function(liveJs)).not.toThrow();
    expect(chartScript + planScript + liveJs).not.toMatch(/<\/(script|style)/i);
    const body = html.replace(/<script[\s\S]*?<\/script>/g, "").replace(/<style[\s\S]*?<\/style>/g, "");
    const open: string[] = [];
    for (const [, slash, name = ""] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (["meta", "link", "input", "br"].includes(name)) continue;
      if (slash === "") open.push(name);
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
  });

  it("shows everything without a script", () => {
    const plan = makePlan(request);
    for (const text of planAnswer(plan)) expect(html).toContain(text.replaceAll("'", "&#39;"));
    for (const words of [
      "What the budget buys",
      "Parallel layout",
      "GB on the fullest GPU",
      "What the answer hangs on",
      "auxiliary loss",
      "alpha3 = 0.000798",
      "weights 2 x",
    ])
      expect(html).toContain(words);
    expect([...html.matchAll(/data-key="(\w+)"/g)].map(([, key]) => key)).toEqual(
      controlsOf(request).map(({ key }) => key),
    );
  });
});

describe("the sliders of a plan's page", () => {
  it("change the request that is planned for", () => {
    const changes: Changes = {
      size: 7e9,
      seen: 2e12,
      tokens: 1e11,
      expansion: 16,
      granularity: 2,
      topK: 4,
      price: 1,
      gpus: 256,
    };
    const newRequest = changedRequest(request, changes);
    expect(newRequest).toMatchObject({
      seen: 2e12,
      budget: { tokens: 1e11, money: null },
      recipes: [{ expansion: 16, granularity: 2, topK: 4 }],
      gpu: { price: 1 },
      gpus: 256,
    });
    expect(Math.abs(makePlan(newRequest).size / 7e9 - 1)).toBeLessThan(0.05);
    expect(changedRequest(request, {})).toEqual(request);
  });

  it("start at the numbers of the plan", () => {
    const plan = makePlan(request);
    const starts = Object.fromEntries(
      controlsOf(request).map(({ key, base, start, min, max }) => {
        expect(start >= Math.min(min, start) && start <= Math.max(max, start)).toBe(true);
        return [key, base ** start];
      }),
    );
    expect((starts.size ?? NaN) / plan.size).toBeCloseTo(1, 9);
    expect(starts).toMatchObject({ expansion: 8, granularity: 1, gpus: 8 });
    expect(starts.topK).toBeCloseTo(2, 9);
  });

  it.each<[string, Changes, string]>([
    ["T no multiple of G", { granularity: 4 }, "T = 2 is not a multiple of G = 4"],
    ["one expert", { expansion: 1, topK: 1 }, "one expert is the dense model again"],
    ["more experts chosen than there are", { expansion: 2, topK: 8 }, "there are only E*G = 2 experts"],
  ])("say what is wrong with %s", (_, changes, line) => {
    expect(render(request, changes)).toMatchObject({ ok: false, error: expect.stringContaining(line) });
  });

  it("compute in the bundle what Node computes", () => {
    const context: { upcyclePlan?: { render(request: unknown, changes: unknown): Rendered } } = {};
    // A browser's globals, as far as the planner needs them.
    runInNewContext(`${liveJs};this.upcyclePlan = upcyclePlan`, Object.assign(context, { TextEncoder }));
    for (const changes of [
      {},
      { tokens: 3e10, gpus: 64 },
      { size: 7e9, expansion: 4, price: 1.5 },
      { granularity: 4 },
    ]) {
      // The page gets the request as JSON.
      expect(
        JSON.parse(JSON.stringify(context.upcyclePlan?.render(JSON.parse(JSON.stringify(request)), changes))),
      ).toEqual(JSON.parse(JSON.stringify(render(request, changes))));
    }
  });

  it.skipIf(chromium === undefined)("move the whole page in a browser (skipped where none is installed)", async () => {
    const file = join(temporaryFolder(), "plan.html");
    writeFileSync(file, html);
    const [firstAnswer, movedAnswer] = [{}, { tokens: 1e12, gpus: 64 }].map((changes) =>
      at(planAnswer(makePlan(changedRequest(request, changes))), 0),
    );
    const { page, errors } = await openPage(`file://${file}`);
    const isShown = (text: string | undefined): Promise<unknown> =>
      page.waitForFunction(`document.body.textContent.includes(${JSON.stringify(text)})`, { timeout: 50_000 });
    await isShown(firstAnswer);
    // The browser runs these lines, so they are text here.
    await page.evaluate(`for (const [key, value] of [["tokens", "12"], ["gpus", "6"]]) {
      const slider = document.querySelector("input[data-key=" + key + "]");
      slider.value = value;
      slider.dispatchEvent(new Event("input"));
    }`);
    await isShown(movedAnswer);
    const dom = await page.content();
    expect(errors).toEqual([]);
    expect(dom).not.toContain(firstAnswer);
    expect(dom).toMatch(/<output data-for="tokens">1\.00T<\/output>/);
    expect(dom).toMatch(/<output data-for="gpus">64<\/output>/);
    expect(dom).toMatch(/<div class="plot"[^>]*><div[^>]*class="uplot/);
  });
});

describe("the plan as text", () => {
  it("fits 80 columns, short and full, whatever the model", () => {
    for (const one of [
      request,
      requestFor(),
      requestFor({ gpus: 1, budget: { tokens: null, gpuHours: 10, money: null, days: null } }),
      requestFor({ spec: presetSpec("llama-3.1-70b"), gpus: 1024, seen: 1.5e13 }),
    ]) {
      for (const full of [true, false]) {
        const text = planText(makePlan(one), "a shape", full);
        expect(Math.max(...text.split("\n").map((line) => line.length))).toBeLessThanOrEqual(80);
        expect(text).not.toMatch(/undefined|NaN|null|Infinity/);
      }
    }
  });

  it("says first to upcycle, to train on, to start from scratch, or that nothing fits", () => {
    const first = (changes: Parameters<typeof requestFor>[0]): string =>
      at(planAnswer(makePlan(requestFor(changes))), 0);
    const tokens = (count: number): { budget: { tokens: number; gpuHours: null; money: null; days: null } } => ({
      budget: { tokens: count, gpuHours: null, money: null, days: null },
    });
    const small = { spec: presetSpec("llama-3.2-1b"), seen: 1e11, gpus: 8 };
    expect(first({ ...small, ...tokens(3e10) })).toMatch(/^Upcycle: /);
    expect(first({ ...small, ...tokens(1e12) })).toMatch(/^By the laws a mixture from scratch gets furthest/);
    expect(first({ ...small, ...tokens(1e9) })).toMatch(
      /^Train the dense model on: .* At equal tokens upcycling moves ahead at/,
    );
    expect(first({ gpus: 1, budget: { tokens: null, gpuHours: 10, money: null, days: null } })).toMatch(
      /^No answer: .*cannot be trained/,
    );
  });
});
