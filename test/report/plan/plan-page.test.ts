import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { makePlan, type Plan } from "../../../src/laws/planner/plan.js";
import { changedRequest, controlsOf, render, type Rendered } from "../../../src/report/plan/plan-live.js";
import { renderPlanHtml } from "../../../src/report/plan/plan-page.js";
import { changedCommand, type Changes } from "../../../src/report/plan/plan-command.js";
import { planTables } from "../../../src/report/plan/plan-tables.js";
import { svgChart, svgMap, tickWords, ticksOf } from "../../../src/report/page/svg-chart.js";
import { randomStream } from "../../../src/base/random.js";
import { curvesOf } from "../../../src/laws/planner/coefficients.js";
import { catchUp } from "../../../src/laws/planner/crossing.js";
import { planViews } from "../../../src/laws/planner/views.js";
import { present } from "../../support/present.js";
import { planCommand } from "../../../src/cli/plan.js";
import { jsonInProcess } from "../../cli/in-process.js";
import { upcycle } from "../../cli/upcycle.js";
import { planText } from "../../../src/report/plan/plan-terminal.js";
import { planChart } from "../../../src/report/plan/plan-view.js";
import { answerWords, capital, planAnswer } from "../../../src/report/plan/plan-words.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { presetSpec, requestFor } from "../../laws/planner/request.js";
import { chromium, openPage } from "../../support/browser.js";

const asset = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8");
const liveJs = asset("dist/report/plan/plan-live.bundle.js");
const assets = {
  script: asset("dist/studio/page/report.js"),
  style: asset("dist/studio/page/report.css"),
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
const words = ["plan", "<b>", "--d1", "100B", "--gpus", "8", "--money", "500", "--html", "plan.html"];
const html = renderPlanHtml({ request, words, version: "0.0.0" }, assets);

describe("the page of a plan", () => {
  it("refers to nothing outside of itself and escapes what users gave", () => {
    expect(html).not.toMatch(/(src|href|action|poster|data)\s*=\s*["']?\s*(https?:)?\/\//i);
    expect(html).not.toMatch(/@import|<iframe|<img|fetch\(|XMLHttpRequest|require\(|node:/i);
    expect(html).toContain("default-src 'none'");
    expect(html).not.toMatch(/<b>mine<\/b>|'?<b>'? --d1/);
    expect(html.length).toBeLessThan(400_000);
  });

  it("has scripts that parse, and closes every element", () => {
    expect(() => new Function(liveJs)).not.toThrow();
    expect(assets.script + liveJs).not.toMatch(/<\/(script|style)/i);
    const body = html.replace(/<script[\s\S]*?<\/script>/g, "").replace(/<style[\s\S]*?<\/style>/g, "");
    const open: string[] = [];
    for (const [, slash, name = ""] of body.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (["meta", "link", "input", "br", "path", "line", "rect", "circle"].includes(name)) continue;
      if (slash === "") open.push(name);
      else expect(open.pop()).toBe(name);
    }
    expect(open).toEqual([]);
  });

  it("shows everything without a script", () => {
    const plan = makePlan(request);
    const { headline, sentences } = answerWords(plan);
    expect(html).toContain(`<h1 data-live="headline">${headline}</h1>`);
    for (const text of [capital(at(sentences, 0)), ...sentences.slice(1)])
      expect(html).toContain(text.replaceAll("'", "&#39;"));
    for (const words of [
      "What the budget buys",
      "Parallel layout",
      "GB on the fullest GPU",
      "What others have measured",
      "Nemotron-4 15B E8G1T2",
      "arXiv 2410.07524",
      "Times beside published trainings",
      "Who is ahead at equal FLOPs",
      "auxiliary loss",
      "alpha3 = 0.000798",
      "weights 2 x",
    ])
      expect(html).toContain(words);
    const [, json = ""] = /<script type="application\/json" id="report-data">([^<]*)</.exec(html) ?? [];
    const { data } = JSON.parse(json) as { data: { controls: { key: string }[] } };
    expect(data.controls.map(({ key }) => key)).toEqual(controlsOf(request).map(({ key }) => key));
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
    expect(render(request, changes, words)).toMatchObject({ ok: false, error: expect.stringContaining(line) });
  });

  it("compute in the bundle what Node computes", () => {
    // What Node has and a browser has not is hidden. (A context of its own would be several times slower.)
    const ofNode = ["process", "Buffer", "require", "module", "exports", "global", "setImmediate", "globalThis"];
    const open = new Function(...ofNode, `${liveJs};return upcyclePlan`) as () => {
      render(request: unknown, changes: unknown, words: unknown): Rendered;
    };
    const upcyclePlan = open();
    for (const changes of [
      {},
      { tokens: 3e10, gpus: 64 },
      { size: 7e9, expansion: 4, price: 1.5 },
      { granularity: 4 },
    ]) {
      // The page gets the request as JSON.
      expect(
        JSON.parse(JSON.stringify(upcyclePlan.render(JSON.parse(JSON.stringify(request)), changes, words))),
      ).toEqual(JSON.parse(JSON.stringify(render(request, changes, words))));
    }
  });

  it.skipIf(chromium === undefined)("move the whole page in a browser (skipped where none is installed)", async () => {
    const file = join(temporaryFolder(), "plan.html");
    writeFileSync(file, html);
    const [firstAnswer, movedAnswer] = [{}, { tokens: 1e12, gpus: 64 }].map((changes) =>
      capital(at(answerWords(makePlan(changedRequest(request, changes))).sentences, 0)),
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
    expect(dom).toMatch(/<input[^>]*data-key="gpus"[^>]*aria-valuetext="64"/);
    // The address keeps the sliders: the same page, opened again, comes back to them.
    const address = page.url();
    expect(address).toMatch(/#tokens=1000000000000&gpus=64$/);
    const again = await openPage(address);
    await again.page.waitForFunction(`document.body.textContent.includes(${JSON.stringify(movedAnswer)})`, {
      timeout: 50_000,
    });
    expect(await again.page.evaluate('document.getElementById("again-command").textContent')).toBe(
      "upcycle plan '<b>' --d1 100B --tokens 1000000000000 --gpus 64",
    );
    expect(dom).toMatch(/<div class="plot"[^>]*><div[^>]*class="uplot/);
  });
});

describe("the command of a changed page", () => {
  it.each<[string, readonly string[], Changes, string]>([
    ["nothing moved", ["plan", "m", "--tokens=1T", "--html", "a.html"], {}, "upcycle plan m --tokens=1T"],
    [
      "other tokens instead of any budget",
      ["plan", "m", "--days", "3", "--money=5", "--full"],
      { tokens: 3e10 },
      "upcycle plan m --full --tokens 30000000000",
    ],
    [
      "another size instead of a folder, with its D1",
      ["plan", "models/my-dense", "--d1", "2T", "--tokens", "1B"],
      { size: 7.08e9 },
      "upcycle plan --tokens 1B --size 7080000000 --d1 100000000000",
    ],
    [
      "another size instead of a preset",
      ["plan", "--preset", "llama-2-7b", "--tokens", "1B"],
      { size: 1e9, gpus: 64 },
      "upcycle plan --tokens 1B --size 1000000000 --d1 100000000000 --gpus 64",
    ],
    [
      "another recipe and price",
      ["plan", "--preset", "llama-2-7b", "--recipe", "E8G1T2,E8G8T8", "--tokens", "1B"],
      { topK: 4, price: 1.25 },
      "upcycle plan --preset llama-2-7b --tokens 1B --recipe E8G1T4 --price 1.25",
    ],
  ])("with %s", (_, own, changes, command) => {
    expect(changedCommand(own, changedRequest(request, changes), changes)).toBe(command);
  });

  it.skipIf(chromium === undefined)(
    "plans what the page shows, for ten random settings (skipped where no browser is installed)",
    async () => {
      const folder = temporaryFolder();
      const file = join(folder, "random.html");
      const first = ["plan", "--preset", "llama-3.2-1b", "--d1", "100B", "--tokens", "30B", "--draws", "60"];
      expect((await upcycle(...first, "--html", file)).code).toBe(0);
      const { page, errors } = await openPage(`file://${file}`);
      const stream = randomStream(15, "slider settings");
      let drawn = 0;
      const uniform = (low: number, high: number): number => low + (high - low) * stream.uniformAt(drawn++);
      const settings = Array.from({ length: 10 }, () => {
        const parts = Math.floor(uniform(0, 3));
        return {
          size: uniform(8.3, 10.5),
          seen: uniform(10, 13),
          tokens: uniform(9.5, 12),
          expansion: Math.floor(uniform(2, 6)),
          granularity: parts,
          topK: parts + Math.floor(uniform(0, 2)),
          price: uniform(-0.5, 1),
          gpus: Math.floor(uniform(5, 11)),
        };
      });
      const text = (selector: string): string => `document.querySelector("${selector}").textContent`;
      const shown: { command: string; answer: string[]; rows: string[][] }[] = [];
      for (const setting of settings) {
        const before = (await page.evaluate(text("#again-command"))) as string;
        await page.evaluate(`for (const [key, value] of Object.entries(${JSON.stringify(setting)})) {
          const slider = document.querySelector("input[data-key=" + key + "]");
          slider.value = value;
          slider.dispatchEvent(new Event("input"));
        }`);
        await page.waitForFunction(
          `document.getElementById("again-command").textContent !== ${JSON.stringify(before)}`,
          { timeout: 50_000 },
        );
        expect(await page.evaluate(text("#problem"))).toBe("");
        shown.push({
          command: (await page.evaluate(text("#again-command"))) as string,
          answer: (await page.evaluate(
            `[...document.querySelectorAll("[data-live=headline], [data-live=answer], [data-live=because] li")]` +
              ".map((part) => part.textContent)",
          )) as string[],
          rows: (await page.evaluate(
            `[...document.querySelectorAll("[data-live=arms] tbody tr, [data-live=crossings] tbody tr, " +
              "[data-live=models] tbody tr")].map((row) => [...row.children].map((cell) => cell.textContent))`,
          )) as string[][],
        });
      }
      expect(errors).toEqual([]);
      expect(new Set(shown.map(({ command }) => command)).size).toBe(10);
      for (const { command, answer, rows } of shown) {
        const plan = (await jsonInProcess(planCommand(), ...command.split(" ").slice(1))) as unknown as Plan;
        const { headline, sentences } = answerWords(plan);
        expect([headline, capital(at(sentences, 0)), ...sentences.slice(1)], command).toEqual(answer);
        const tables = planTables(plan).filter(({ id }) => ["arms", "crossings", "models"].includes(id));
        expect(
          tables.flatMap(({ rows: cells }) => cells.map((row) => [...row])),
          command,
        ).toEqual(rows);
      }
    },
    240_000,
  );
});

describe("the chart of losses", () => {
  it.each([
    ["within the fit", { spec: presetSpec("llama-3.2-1b"), seen: 1e11 }],
    ["far beyond it, where the laws are wide and the beginning is far above", { seen: 1.5e13 }],
  ])("shows every arm of the table and the bands of those that start as the parent (%s)", (_, changes) => {
    const one = requestFor({ ...changes, budget: { tokens: 2e10, gpuHours: null, money: null, days: null } });
    const plan = makePlan(one);
    const { low, high, lines, dots } = present(planChart(one, plan));
    const losses = new Set(plan.arms.flatMap(({ id, loss }) => (loss === null ? [] : [`${id} ${loss.toFixed(5)}`])));
    expect(dots).toHaveLength(losses.size);
    for (const { y } of dots) expect(y > low && y < high).toBe(true);
    for (const { label, low: lows, high: highs } of lines) {
      if (label === "from scratch") continue;
      expect(Math.min(...present(lows))).toBeGreaterThanOrEqual(low);
      expect(Math.max(...present(highs))).toBeLessThanOrEqual(high);
    }
  });
});

describe("charts without a script", () => {
  it("have round ticks with all their decimals", () => {
    const axis = { low: 2.21, high: 2.34, log: false, label: "" };
    expect(tickWords(axis, ticksOf(axis))).toEqual(["2.22", "2.24", "2.26", "2.28", "2.30", "2.32", "2.34"]);
    const quarter = { low: 2, high: 3.2, log: false, label: "" };
    expect(tickWords(quarter, [2.25, 2.5, 2.75])).toEqual(["2.25", "2.50", "2.75"]);
    const tokens = { low: 2e9, high: 3e11, log: true, label: "" };
    expect(tickWords(tokens, ticksOf(tokens))).toEqual(["10B", "100B"]);
  });

  it("keep lines inside of their axes, and names apart", () => {
    const svg = svgChart({
      description: "two lines",
      x: { low: 1, high: 100, log: true, label: "x" },
      y: { low: 0, high: 1, log: false, label: "y" },
      lines: [
        { label: "one", colour: "red", x: [1, 10, 100], y: [0.2, null, 0.5] },
        { label: "two", colour: "blue", x: [1, 10, 100], y: [0.2, 5, 0.5] },
      ],
      fitted: [2, 50],
    });
    // Gaps and points outside begin a new stroke.
    expect(
      [...svg.matchAll(/<path fill="none"[^>]* d="([^"]*)"/g)].map(([, d]) => (d ?? "").match(/M/g)?.length),
    ).toEqual([2, 2]);
    expect(svg.match(/fill="var\(--beyond\)"/g)).toHaveLength(2);
    const ys = [...svg.matchAll(/<text x="[\d.]+" y="([\d.]+)" dy="4" fill=/g)].map(([, y]) => Number(y));
    expect(Math.abs(at(ys, 0) - at(ys, 1))).toBeGreaterThanOrEqual(12);
  });

  it("merge equal cells of a map", () => {
    const svg = svgMap({
      description: "a map",
      x: { low: 1, high: 100, log: true, label: "x" },
      y: { low: 1, high: 100, log: true, label: "y" },
      cells: [
        ["a", "a", "b"],
        ["b", "b", "b"],
      ],
      colours: { a: "red", b: "blue" },
      here: { x: 10, y: 10, label: "here" },
      fittedX: [2, 50],
      fittedY: null,
    });
    expect(svg.match(/<rect/g)).toHaveLength(3);
    expect(svg.match(/fill="red"/g)).toHaveLength(1);
    expect(svg.match(/stroke-dasharray="2 3"/g)).toHaveLength(2);
  });

  it("draw bands with their gaps, dots of each kind, and a level", () => {
    const svg = svgChart({
      description: "bands",
      x: { low: 0, high: 4, log: false, label: "x" },
      y: { low: 0, high: 1, log: false, label: "y" },
      lines: [
        {
          label: "band",
          colour: "red",
          x: [0, 1, 2, 3, 4],
          y: [0.5, 0.5, null, 0.5, 0.5],
          low: [0.4, 0.4, null, 0.4, 0.4],
          high: [0.6, 0.6, null, 0.6, 2],
        },
        { label: "dots", colour: "blue", kind: "cloud", x: [1, 2, 9], y: [0.1, 0.2, 0.3] },
      ],
      level: { value: 0.5, label: "level <b>" },
    });
    const bands = [...svg.matchAll(/fill-opacity="0\.17" d="([^"]*)"/g)].map(([, d = ""]) => d);
    expect(bands).toHaveLength(2);
    // What lies above the picture ends at its edge.
    expect(bands[1]).toContain("290 12");
    expect(svg.match(/<circle/g)).toHaveLength(2);
    expect(svg).toContain("level &lt;b&gt;");
    expect(svg).not.toContain("style=");
  });
});

describe("the views of a plan", () => {
  const views = present(planViews(request, makePlan(request)));

  it("have D* for several sizes, which falls from one size to the next at a D1", () => {
    const { seen, lines } = views.stars;
    expect(lines.length).toBeGreaterThanOrEqual(4);
    const curves = curvesOf(request.coefficients.arms);
    for (const { size, tokens } of lines) {
      const place = 8;
      const star = catchUp(curves, { size, seen: at(seen, place), credit: 0, largestFitted: 3.68e11 }).tokens;
      expect(at(tokens, place)).toBe(star);
    }
  });

  it("map who is ahead like the plan's own answer, and nobody where no law answers", () => {
    for (const { seen, tokens, cells } of views.winners) {
      expect(cells.map((row) => row.length)).toEqual(seen.map(() => tokens.length));
      const lastRow = at(cells, cells.length - 1);
      expect(new Set(lastRow)).toEqual(new Set(["open"]));
      // Many further tokens on a small D1: an MoE from scratch is ahead.
      const [row, column] = [2, tokens.findLastIndex((count) => count < 3.6e11)];
      expect(at(at(cells, row), column)).toBe("scratch");
    }
  });

  it("spend every compute best, with a loss that falls, and exponents that fall with ln D1", () => {
    const { points, ratio, seen } = present(views.frontier);
    points.forEach(({ compute, size, tokens, loss }, i) => {
      expect((6 * ratio * size * tokens) / compute).toBeCloseTo(1, 9);
      if (i > 0) expect(loss).toBeLessThan(at(points, i - 1).loss);
    });
    expect(seen).toBe(1e11);
    const { seen: parents, exponent } = present(views.exponents);
    parents.forEach((count, i) => expect(at(exponent, i)).toBeCloseTo(0.085 - 7.98e-4 * Math.log(count), 12));
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
    expect(first({ ...small, ...tokens(3e10) })).toMatch(
      /^Upcycle or start from scratch, too close to call: after 30\.0B tokens .*at equal tokens.*at equal FLOPs/,
    );
    expect(first({ ...small, seen: 1e10, ...tokens(3e11) })).toMatch(/^Start from scratch: .*at equal FLOPs/);
    expect(first({ ...small, ...tokens(1e9) })).toMatch(
      /^No verdict: upcycling may win or lose against dense training\. Published comparisons put the loss of upcycled E8G1T2/,
    );
    expect(first({ gpus: 1, budget: { tokens: null, gpuHours: 10, money: null, days: null } })).toMatch(
      /^No answer: .*cannot be trained/,
    );
  });
});
