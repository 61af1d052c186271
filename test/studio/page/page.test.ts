/** The page in a browser: every view, on a server and as one file. Skipped where no Chromium is installed. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import type { Page } from "puppeteer-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { placeHash } from "../../../src/studio/data/place.js";
import { exportPage } from "../../../src/studio/server/export.js";
import { pageAssets } from "../../../src/studio/server/page.js";
import { startServer, type StudioServer } from "../../../src/studio/server/server.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { chromium, openPage } from "../../support/browser.js";
import { addLines, generateProgram, stepRecord, writeConversion, writeModels, writeStudy } from "../folder.js";

const dir = temporaryFolder();
const moe = "study/arms/coarse/seed-0-0123456789abcdef";
const arms = ["coarse", "dense"].flatMap((arm) =>
  [0, 1, 2].map((seed) => `study/arms/${arm}/seed-${seed}-0123456789abcdef`),
);
writeStudy(dir);
writeModels(dir);
writeConversion(join(dir, "models"), "new");
const program = join(temporaryFolder(), "generate.mjs");
writeFileSync(program, generateProgram);

describe("the page's script and style", () => {
  it("have at most 120 KB together when they are compressed", async () => {
    const { script, style } = await pageAssets();
    expect(gzipSync(script).length + gzipSync(style).length).toBeLessThan(120_000);
  });

  it("refer to nothing outside", async () => {
    const { script, style } = await pageAssets();
    expect(style).not.toMatch(/url\(|@import/);
    expect(script.match(/https?:\/\/[\w.]+/g)?.filter((address) => !/w3\.org/.test(address)) ?? []).toEqual([]);
  });
});

/** Views with what a reader finds there. */
const charts: Readonly<Record<string, number>> = { run: 12, compare: 4, experts: 4 };
const views: readonly (readonly [hash: string, text: RegExp])[] = [
  [
    placeHash({ view: "" }),
    /coarse leads dense by 0\.19\d nats after 640 tokens:[\s\S]*more than chance explains[\s\S]*1 of 8 dead/,
  ],
  [placeHash({ view: "runs", settings: { filter: "dense|alone" } }), /5 of 8 runs|4 of 8 runs/],
  [
    placeHash({ view: "run", name: moe }),
    /Held-out loss[\s\S]*upcycle study 'my study\.yaml'[\s\S]*training\.lr\.peak/,
  ],
  [
    placeHash({ view: "compare", settings: { runs: arms.map(encodeURIComponent).join(" ") } }),
    /training\.lr\.peak[\s\S]*coarse leads dense/,
  ],
  [
    placeHash({ view: "experts", name: moe }),
    /1 of 8 experts are dead at step 20[\s\S]*layer 1: 3[\s\S]*Similarity of each expert[\s\S]*Experts chosen together[\s\S]*Strongest in layer 0 at step 20: 0 and 1/,
  ],
  [placeHash({ view: "experts" }), /Dead experts/],
  [
    placeHash({ view: "models" }),
    /models\/new[\s\S]*at work[\s\S]*E8G1T2 from dense: writing weights[\s\S]*25\.0 %, 1\.5 GB of 6\.0 GB[\s\S]*150 MB\/s[\s\S]*30 s[\s\S]*experts\.5\.up_proj[\s\S]*upcycle convert dense[\s\S]*upcycle convert makes one/,
  ],
  [
    placeHash({ view: "playground", settings: { left: "models/dense", right: "models/moe", prompt: "a 'b" } }),
    /--allow-actions[\s\S]*upcycle generate \S*models\/dense --prompt 'a '\\''b'[\s\S]*models\/moe/,
  ],
  [placeHash({ view: "reports" }), /study <b> · Upcycle study/],
  [placeHash({ view: "jobs" }), /upcycle launch/],
  [placeHash({ view: "actions" }), /--allow-actions/],
];

describe.skipIf(chromium === undefined)("the page in a browser (skipped: no Chromium)", () => {
  let server: StudioServer;
  let page: Page;
  const wrong: string[] = [];
  const hosts = new Set<string>();
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

  beforeAll(async () => {
    const studio = await Studio.open({ dir, actions: false });
    server = await startServer({ studio, assets: await pageAssets(), port: null, folder: dir });
    const opened = await openPage("about:blank");
    page = opened.page;
    page.on("console", (message) => {
      if (["error", "warn"].includes(message.type())) wrong.push(message.text());
    });
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (!["data:", "blob:", "about:", "file:"].includes(protocol) && !hosts.has(host))
        wrong.push(`request to ${request.url()}`);
    });
    hosts.add(`127.0.0.1:${server.port}`);
    await page.goto(server.url);
  }, 60_000);
  afterAll(async () => {
    await page?.close();
    await server?.close();
  });

  const text = (): Promise<string> =>
    page.$eval("#studio", (element) => (element as unknown as { innerText: string }).innerText);
  const shows = async (wanted: RegExp): Promise<void> => {
    const end = Date.now() + 8000;
    while (!wanted.test(await text())) {
      if (Date.now() > end) expect(await text()).toMatch(wanted);
      await new Promise((done) => setTimeout(done, 30));
    }
  };
  const go = async (hash: string): Promise<void> => {
    await page.evaluate(
      (to) => void Object.assign((globalThis as unknown as { location: object }).location, { hash: to }),
      hash,
    );
  };
  /** Serious faults of the page for people who do not see, or use no pointer. */
  const faults = async (): Promise<unknown[]> => {
    await page.evaluate(`if (window.axe === undefined) { const define = undefined; const module = undefined; ${axe} }`);
    return page.evaluate(`axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }).then(({ violations }) =>
      violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html)]))`) as Promise<
      unknown[]
    >;
  };

  it("takes the token out of the address", () => {
    expect(page.url()).toBe(`http://127.0.0.1:${server.port}/`);
  });

  it.each(views)(
    "%s shows what is to be found there, fits on 390 px, and has no serious fault",
    async (hash, wanted) => {
      await go(hash);
      await shows(wanted);
      expect(await faults()).toEqual([]);
      // Every chart is drawn, and stays when the window changes.
      const drawn = charts[/^#\/(\w+)/.exec(hash)?.[1] ?? ""] ?? 0;
      const allDrawn = `document.querySelectorAll(".chart canvas").length >= ${drawn}`;
      if (wanted.source.includes("Dead experts")) expect(drawn).toBe(4);
      else await page.waitForFunction(allDrawn);
      await page.setViewport({ width: 390, height: 844 });
      await page.emulateMediaFeatures([
        { name: "prefers-color-scheme", value: "dark" },
        { name: "prefers-reduced-motion", value: "reduce" },
      ]);
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(390);
      if (!wanted.source.includes("Dead experts")) await page.waitForFunction(allDrawn);
      await page.setViewport({ width: 1280, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
      expect(wrong).toEqual([]);
    },
  );

  it("has no serious fault in the dark either", async () => {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    for (const [hash, wanted] of views.slice(0, 5)) {
      await go(hash);
      await shows(wanted);
      expect(await faults(), hash).toEqual([]);
    }
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  });

  it("is driven by keys, and the back button works", async () => {
    await go(placeHash({ view: "" }));
    await shows(/Which arm leads/);
    await page.keyboard.type("gr");
    await shows(/8 of 8 runs/);
    await page.keyboard.type("jxjxc");
    await shows(/Compare 2 runs/);
    await page.goBack();
    await shows(/8 of 8 runs/);
    await page.keyboard.press("/");
    await page.keyboard.type("seed-2");
    await shows(/2 of 8 runs/);
    expect(page.url()).toContain("filter=seed-2");
    await page.keyboard.press("Escape");
  });

  it("shows a new point while it happens", async () => {
    await go(placeHash({ view: "run", name: "alone" }));
    await shows(/12 of 40/);
    const written = Date.now();
    addLines(join(dir, "alone"), stepRecord(13, { steps: 40 }));
    await shows(/13 of 40/);
    expect(Date.now() - written).toBeLessThan(2000);
  });

  it("keeps the scripts of a report away from the studio", async () => {
    await go(placeHash({ view: "report", name: "study/report.html" }));
    await shows(/Open it alone/);
    // The report tries to read the list of runs, and says so where it was refused, which is what is wanted here.
    const end = Date.now() + 8000;
    while (!wrong.some((line) => /violates the following Content Security Policy/.test(line)) && Date.now() < end)
      await new Promise((done) => setTimeout(done, 30));
    expect(wrong.filter((line) => !/Content Security Policy/.test(line))).toEqual([]);
    expect(wrong.length).toBeGreaterThan(0);
    await go(placeHash({ view: "" }));
    await shows(/Which arm leads/);
    wrong.length = 0;
  });

  it("shows a conversion's next bytes while it writes them, and what stopped it", async () => {
    await go(placeHash({ view: "models" }));
    await shows(/25\.0 %/);
    writeConversion(join(dir, "models"), "new", { done: 3e9, tensor: "lm_head.weight" });
    await shows(/50\.0 %, 3\.0 GB[\s\S]*lm_head/);
    mkdirSync(join(dir, "models", ".new.unfinished"));
    writeConversion(join(dir, "models"), "new", { done: 3e9, ended: "stopped with 50 % written <b>" });
    await shows(/stopped with 50 % written <b>[\s\S]*The command that goes on with it/);
    writeConversion(join(dir, "models"), "new", { done: 3e9, pid: 2 ** 22 + 1 });
    await shows(/killed: its process is gone/);
    writeConversion(join(dir, "models"), "new");
    await shows(/at work/);
    expect(wrong).toEqual([]);
  });

  describe("with commands allowed", () => {
    let acting: StudioServer;
    const sides = { left: "models/dense", right: "models/moe" };
    const press = (label: string): Promise<unknown> =>
      page.evaluate(
        `[...document.querySelectorAll("main button")].find((button) => button.textContent === ${JSON.stringify(label)}).click()`,
      );
    beforeAll(async () => {
      const studio = await Studio.open({ dir, actions: true });
      const options = { studio, assets: await pageAssets(), port: null, folder: dir };
      acting = await startServer({ ...options, program: [process.execPath, program] });
      hosts.add(`127.0.0.1:${acting.port}`);
      await page.goto(acting.url);
    });
    afterAll(async () => {
      await page.goto(server.url);
      await acting.close();
    });

    it("shows two texts token by token, where they part, and the experts of the token that is chosen", async () => {
      await go(placeHash({ view: "playground", settings: { ...sides, prompt: "The" } }));
      await shows(/Generate/);
      await press("Generate");
      await shows(
        /The texts part after 2 new tokens: the first goes on with “ ship” \(49\.7 %\), the second with “ sea”[\s\S]*differ by 0\.0050 nats at most/,
      );
      await shows(/Token 5[\s\S]*number 12 of the vocabulary: 49\.7 %[\s\S]*layer 1\s+1 \(0\.750\), 3 \(0\.250\)/);
      expect(await text()).toContain("<img src=x onerror=alert(1)>");
      expect(await page.$$eval("main img, main .tokens b", (found) => found.length)).toBe(0);
      // The keyboard goes from token to token, and the address holds where it stands.
      await page.focus(".tokens .token[aria-pressed=true]");
      await page.keyboard.press("ArrowLeft");
      await shows(/Token 4[\s\S]*⏎<img/);
      expect(page.url()).toContain("at=3");
      await shows(/Weights of experts by token, layer 0/);
      expect(await faults()).toEqual([]);
      await page.setViewport({ width: 390, height: 844 });
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBeLessThanOrEqual(390);
      await page.setViewport({ width: 1280, height: 900 });
      expect(wrong).toEqual([]);
    });

    it("ends a text that is stopped, and says why one failed", async () => {
      await go(placeHash({ view: "playground", settings: { ...sides, prompt: "slow" } }));
      await page.reload();
      await shows(/Generate/);
      await press("Generate");
      await shows(/ on on on/);
      await press("Stop");
      await page.waitForFunction("document.querySelector('button[type=submit]').textContent === 'Generate'");
      await go(placeHash({ view: "playground", settings: { ...sides, prompt: "fail" } }));
      await page.reload();
      await shows(/Generate/);
      await press("Generate");
      await shows(/models\/moe: the weights are not there/);
      expect(wrong).toEqual([]);
    });
  });

  it("is one file too, with the same views and no request", async () => {
    const file = join(dir, "exported.html");
    const studio = await Studio.open({ dir, actions: false });
    await studio.look();
    writeFileSync(file, await exportPage(studio, await pageAssets(), "2026-01-01"));
    await page.goto(pathToFileURL(file).href);
    for (const [hash, wanted] of views.slice(0, 5)) {
      await go(hash);
      await shows(wanted);
    }
    expect(
      await page.evaluate(
        "performance.getEntriesByType('resource').filter(({ name }) => !name.startsWith('blob:') && !name.startsWith('data:')).length",
      ),
    ).toBe(0);
    expect(wrong).toEqual([]);
  });
});
