/** The page in a browser: every view, on a server and as one file. Skipped where no Chromium is installed. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import type { Page } from "puppeteer-core";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { placeHash } from "../../../src/studio/data/place.js";
import { exportPage } from "../../../src/studio/server/export.js";
import { pageAssets } from "../../../src/studio/server/page.js";
import { startServer, type StudioServer } from "../../../src/studio/server/server.js";
import { Studio } from "../../../src/studio/server/studio.js";
import { studioCommand } from "../../../src/cli/studio.js";
import { jsonInProcess } from "../../cli/in-process.js";
import { temporaryFolder } from "../../files/io/temporary.js";
import { chromium, openPage } from "../../support/browser.js";
import type { ExpertHistory } from "../../../src/studio/data/expert-types.js";
import type { CurveAnswer, RunRow } from "../../../src/studio/data/types.js";
import { writeEvaluations } from "../evaluations.js";
import {
  addLines,
  generateProgram,
  stepRecord,
  trainProgram,
  writeConversion,
  writeExpertFile,
  writeJob,
  writeModels,
  writeStudy,
  writeUpcycled,
} from "../folder.js";
import { writeReports } from "../reports.js";

const dir = temporaryFolder();
const moe = "study/arms/coarse/seed-0-0123456789abcdef";
const arms = ["coarse", "dense"].flatMap((arm) =>
  [0, 1, 2].map((seed) => `study/arms/${arm}/seed-${seed}-0123456789abcdef`),
);
writeStudy(dir);
await writeReports(dir);
writeModels(dir);
writeUpcycled(dir);
writeConversion(join(dir, "models"), "new");
writeExpertFile(dir);
writeJob(dir);
const [parentResults, childResults] = await writeEvaluations(dir);
/** What the page starts: each command by a program that says what it would say. */
const program = join(temporaryFolder(), "program.mjs");
for (const [name, text] of Object.entries({ generate: generateProgram, train: trainProgram }))
  writeFileSync(join(program, "..", `${name}.mjs`), text);
writeFileSync(program, 'await import(new URL(process.argv[2] + ".mjs", import.meta.url));');

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

/** An answer without what is another at every question: the disk, and how often a log was read on. */
const lasting = (answer: unknown): unknown =>
  JSON.parse(JSON.stringify(answer), (key, value: unknown) =>
    ["disk", "revision", "generation", "memory", "updated"].includes(key) ? undefined : value,
  );

/** Views with what a reader finds there, and how many charts. */
const views: readonly (readonly [hash: string, text: RegExp, charts?: number])[] = [
  [
    placeHash({ view: "" }),
    /coarse leads dense by 0\.19\d nats after 640 tokens:[\s\S]*more than chance explains[\s\S]*upcycle study 'my study\.yaml'[\s\S]*moe\s+equal up to rounding[\s\S]*E4G1T2 of dense: the recipe keeps the function exactly, and it was measured: on 256 tokens[\s\S]*1 of 8 dead/,
  ],
  [placeHash({ view: "runs", settings: { filter: "dense|alone" } }), /5 of 8 runs|4 of 8 runs/],
  [
    placeHash({ view: "run", name: moe }),
    /Held-out loss[\s\S]*coarse, seed 0[\s\S]*upcycle study 'my study\.yaml'[\s\S]*training\.lr\.peak/,
    12,
  ],
  [
    placeHash({ view: "compare", settings: { runs: arms.map(encodeURIComponent).join(" ") } }),
    /coarse \(3 seeds\)\s+dense \(3 seeds\)[\s\S]*training\.lr\.peak\s+0\.002\s+0\.001[\s\S]*coarse leads dense[\s\S]*coarse less dense\s+640\s+3\s+−0\.19[\s\S]*yes[\s\S]*dense, seed 2/,
    4,
  ],
  [
    placeHash({ view: "experts", name: moe }),
    /1 of 8 experts is dead at step 20[\s\S]*layer 1: expert 3[\s\S]*Similarity of each expert[\s\S]*Experts chosen together[\s\S]*Strongest in layer 0 at step 20: 0 and 1/,
    4,
  ],
  [
    placeHash({ view: "experts", settings: { file: "experts.json" } }),
    /1 expert is dead on 10 tokens of a\.txt: layer 3: expert 1[\s\S]*Similarity of the experts' weights, layer 3/,
  ],
  [placeHash({ view: "experts" }), /Dead experts/],
  [
    placeHash({ view: "models" }),
    /models\/new[\s\S]*at work[\s\S]*E8G1T2 from dense: writing weights[\s\S]*25\.0 %, 1\.5 GB of 6\.0 GB[\s\S]*150 MB\/s[\s\S]*30 s[\s\S]*experts\.5\.up_proj[\s\S]*upcycle convert dense[\s\S]*moe[\s\S]*E4G1T2[\s\S]*equal up to rounding[\s\S]*1\.00e-7 of the largest/,
  ],
  [
    placeHash({ view: "model", name: "models/moe" }),
    /equal up to rounding[\s\S]*By its recipe: [\s\S]*norm of the difference[\s\S]*upcycle convert \S*models\/dense --recipe E4G1T2[\s\S]*layers\.0\.router/,
    1,
  ],
  [
    placeHash({ view: "playground", settings: { left: "models/dense", right: "models/moe", prompt: "a 'b" } }),
    /--allow-actions[\s\S]*upcycle generate \S*models\/dense --prompt 'a '\\''b'[\s\S]*models\/moe/,
  ],
  [placeHash({ view: "reports" }), /coarse leads dense[\s\S]*6 of 6[\s\S]*evaluation[\s\S]*scaling law/],
  [
    placeHash({ view: "study", name: "study" }),
    /coarse did better than dense at equal tokens[\s\S]*All 6 runs have ended[\s\S]*Held-out loss against tokens[\s\S]*Load of coarse, seed 0, step 20[\s\S]*upcycle study 'my study\.yaml'/i,
    3,
  ],
  [
    placeHash({ view: "report", name: "law.html" }),
    /Describes 25 points within[\s\S]*Loss against D, by N[\s\S]*Residuals[\s\S]*Profile of alpha[\s\S]*Bootstrap draws/,
  ],
  [
    placeHash({ view: "report", name: "plan.html" }),
    /Upcycling plan for <b>mine<\/b>[\s\S]*What if[\s\S]*D2, further tokens[\s\S]*Loss by the laws[\s\S]*Who is ahead at equal tokens/i,
  ],
  [
    placeHash({ view: "report", name: "evaluation.html" }),
    /child <b>: better on 1, worse on 0 of 1[\s\S]*0\.4000 ± 0\.0490[\s\S]*\+0\.2200 \[\+0\.1100, \+0\.3300\]/,
  ],
  [
    placeHash({ view: "report", name: "experts.html" }),
    /2 experts were never chosen[\s\S]*Load by layer and expert[\s\S]*Point at a cell/,
  ],
  [
    placeHash({ view: "evaluation", name: parentResults, settings: { with: childResults } }),
    /child[\s\S]*sociology[\s\S]*learnt and forgotten/i,
  ],
  [placeHash({ view: "jobs" }), /Slurm: 4711[\s\S]*upcycle watch \S*job\/logs/],
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
      if (["error", "warn"].includes(message.type())) wrong.push(`${message.text()} ${message.location().url ?? ""}`);
    });
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (!["data:", "blob:", "about:", "file:"].includes(protocol) && !hosts.has(host))
        wrong.push(`request to ${request.url()}`);
    });
    page.on("response", (response) => {
      const { pathname, search } = new URL(response.url());
      if (!pathname.startsWith("/api/") || pathname === "/api/events" || response.status() !== 200) return;
      answers.set(
        `${pathname}${search}`,
        response.json().catch(() => undefined),
      );
    });
    hosts.add(`127.0.0.1:${server.port}`);
    await page.goto(server.url);
  }, 60_000);
  afterAll(async () => {
    await page?.close();
    await server?.close();
  });

  /** What the page was answered since it was last asked, by address. */
  const answers = new Map<string, Promise<unknown>>();
  /** Addresses that views name as commands. */
  const commands = (): Promise<string[]> =>
    page.$$eval(".as-command code", (found) =>
      found.flatMap((one) => {
        const { textContent } = one as unknown as { readonly textContent: string | null };
        return /--print '?(\/api\/[^\s']+)/.exec(textContent ?? "")?.[1] ?? [];
      }),
    );
  /** The command prints what the page was given, where the page asked anew for it. */
  const expectPrinted = async (address: string): Promise<void> => {
    const given = await answers.get(address);
    const printed = await jsonInProcess(studioCommand(), "studio", dir, "--print", address);
    if (given !== undefined) expect(lasting(printed)).toEqual(lasting(given));
    compared.add(address.split("?")[0]!);
  };
  const compared = new Set<string>();

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

  it.each(views.map(([hash, wanted, drawn = 0]) => [hash, wanted, drawn] as const))(
    "%s shows what is to be found there and what its command prints, fits on 390 px, and has no serious fault",
    async (hash, wanted, drawn) => {
      answers.clear();
      await go(hash);
      await shows(wanted);
      expect(await faults()).toEqual([]);
      // Every chart is drawn, and stays when the window changes.
      const allDrawn = `document.querySelectorAll(".chart canvas").length >= ${drawn}`;
      await page.waitForFunction(allDrawn);
      for (const command of await commands()) await expectPrinted(command);
      await page.setViewport({ width: 390, height: 844 });
      await page.emulateMediaFeatures([
        { name: "prefers-color-scheme", value: "dark" },
        { name: "prefers-reduced-motion", value: "reduce" },
      ]);
      // Charts and maps take their new width a frame later.
      await page.waitForFunction("document.documentElement.scrollWidth <= 390", { timeout: 8000 });
      await page.waitForFunction(allDrawn);
      // Lists have all of their values on the screen.
      const isWhole = "({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth";
      expect(await page.evaluate(`[...document.querySelectorAll(".frame:has(> .stacked)")].every(${isWhole})`)).toBe(
        true,
      );
      expect(await faults()).toEqual([]);
      await page.setViewport({ width: 1280, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
      expect(wrong).toEqual([]);
    },
  );

  it("compares what commands print with what is shown in every view that names one", () => {
    const named = [
      "overview",
      "runs",
      "run",
      "experts",
      "coactivation",
      "models",
      "checkpoints",
      "reports",
      "study",
      "curves",
      "model",
      "evaluation",
      "expert-file",
    ];
    const all = [...named, "report", "jobs", "compare", "conversions"].map((path) => `/api/${path}`);
    expect([...compared].sort()).toEqual(all.sort());
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
    // The chart asks for what is new of its curve, not for all of it again.
    // Charts ask together: each question stands in the address of one request.
    const wanted = /metric=train(?:%2F|\/)loss&[^?]*&have=\d+:1[23](?:&ask=|$)/;
    const asked = new Promise<void>((done) =>
      page.on("request", (request) => wanted.test(decodeURIComponent(request.url())) && done()),
    );
    addLines(join(dir, "alone"), stepRecord(14, { steps: 40 }));
    await asked;
  });

  it("listens no more while nobody sees it, and goes on behind what it has seen", async () => {
    await go(placeHash({ view: "run", name: "alone" }));
    await shows(/14 of 40/);
    const turn = (state: string): Promise<unknown> =>
      page.evaluate(`{
        Object.defineProperty(document, "visibilityState", { value: "${state}", configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }`);
    await turn("hidden");
    await new Promise((done) => setTimeout(done, 5500));
    addLines(join(dir, "alone"), stepRecord(15, { steps: 40 }));
    await new Promise((done) => setTimeout(done, 1500));
    expect(await text()).toContain("14 of 40");
    const again = page.waitForRequest((request) => /\/api\/events\?seen=\d+$/.test(request.url()));
    await turn("visible");
    await again;
    await shows(/15 of 40/);
  }, 30_000);

  it("tells of what goes wrong again and again once, with the number of times", async () => {
    await go(placeHash({ view: "run", name: "alone" }));
    const broken = (step: number): object => ({ ...stepRecord(step, { steps: 40 }), loss: null });
    addLines(join(dir, "alone"), broken(16));
    await shows(/1 new alert\n[\s\S]*the loss is not a number at step 16/);
    addLines(join(dir, "alone"), broken(17), broken(18));
    await shows(/1 new alert\n[\s\S]*the loss is not a number at step 18, 3 times/);
    await page.evaluate(`document.querySelector(".toast button").click()`);
    expect(await text()).not.toContain("new alert");
  });

  it("computes a plan again when a slider moves, keeps it in the address, and shows it there again", async () => {
    await go(placeHash({ view: "report", name: "plan.html" }));
    await shows(/Loss by the laws/);
    await moveSlider();
    await shows(/upcycle plan --preset llama-3\.2-1b --d1 100B --tokens 1000000000000/);
    expect(page.url()).toContain("tokens=1000000000000");
    const answer = await page.$eval(
      ".report header",
      (element) => (element as unknown as { textContent: string }).textContent,
    );
    // The command prints what the server answers for the same settings.
    const address = "/api/plan?name=plan.html&tokens=1000000000000";
    const given = await page.evaluate(`fetch("${address}").then((one) => one.json())`);
    expect(await jsonInProcess(studioCommand(), "studio", dir, "--print", address)).toEqual(given);
    await page.reload();
    await shows(/--tokens 1000000000000/);
    expect(
      await page.$eval(".report header", (element) => (element as unknown as { textContent: string }).textContent),
    ).toBe(answer);
  });

  const moveSlider = (): Promise<unknown> =>
    page.evaluate(`{
      const slider = document.querySelector("input[data-key=tokens]");
      slider.value = "12";
      slider.dispatchEvent(new Event("input"));
    }`);

  it("follows a study under way without losing what is chosen in its charts", async () => {
    await go(placeHash({ view: "study", name: "study" }));
    await shows(/Held-out loss against tokens/);
    await page.click("input[name=x-scale][value=log]");
    const log = join(dir, "study", "arms", "dense", "seed-2-0123456789abcdef");
    const before = readFileSync(join(log, "metrics.jsonl"), "utf8");
    // The run goes on from its last step, so that the study is not finished any more.
    addLines(log, { type: "resume", step: 15 }, stepRecord(16, { steps: 20 }));
    await shows(/seed 2 is at step 16 of 20/);
    expect(
      await page.$eval("input[name=x-scale][value=log]", (one) => (one as unknown as { checked: boolean }).checked),
    ).toBe(true);
    writeFileSync(join(log, "metrics.jsonl"), before);
  }, 30_000);

  describe("files", () => {
    const folder = temporaryFolder();
    beforeAll(async () => {
      const session = await page.createCDPSession();
      await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder });
    });
    // Chromium saves ten files of a page in a row, and asks before the next.
    beforeEach(() => page.reload());
    /** Clicks a button and gives the file that is saved. */
    const saved = async (label: string, name: string): Promise<Buffer> => {
      const path = join(folder, name);
      rmSync(path, { force: true });
      const buttons = await page.$$("button");
      const labels = await Promise.all(
        buttons.map((one) =>
          one.evaluate((element) => {
            const button = element as unknown as { ariaLabel: string | null; textContent: string };
            return button.ariaLabel ?? button.textContent;
          }),
        ),
      );
      await buttons[labels.indexOf(label)]!.evaluate((element) => (element as unknown as { click(): void }).click());
      const end = Date.now() + 8000;
      while (!existsSync(path) && Date.now() < end) await new Promise((done) => setTimeout(done, 20));
      return readFileSync(path);
    };
    const ask = <T>(address: string): Promise<T> =>
      page.evaluate(`fetch(${JSON.stringify(address)}).then((answer) => answer.json())`) as Promise<T>;
    /** What an SVG file holds, as a browser reads it; throws for one that is none. */
    const svgTexts = async (file: Buffer): Promise<string[]> =>
      (await page.evaluate(`{
        const root = new DOMParser().parseFromString(${JSON.stringify(file.toString("utf8"))}, "image/svg+xml").documentElement;
        if (root.tagName !== "svg" || root.namespaceURI !== "http://www.w3.org/2000/svg") throw new Error(root.outerHTML);
        [...root.querySelectorAll("text")].map((text) => text.textContent);
      }`)) as string[];
    const pngSize = (file: Buffer): readonly [number, number] => {
      expect(file.subarray(0, 8)).toEqual(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]));
      return [file.readUInt32BE(16), file.readUInt32BE(20)];
    };

    it("of a chart hold its lines: SVG with their names, PNG of its size, CSV with its numbers", async () => {
      await go(
        placeHash({ view: "compare", settings: { runs: arms.map(encodeURIComponent).join(" "), bands: "off" } }),
      );
      await shows(/Training loss/);
      await page.waitForFunction("document.querySelectorAll('.chart canvas').length >= 4");
      const title = "Held-out loss (nats per token)";
      const name = "Held-out-loss-nats-per-token-over-training-tokens";
      const svg = await saved(`${title} as SVG`, `${name}.svg`);
      // Lines have short names in the picture, whole ones in the numbers.
      const labels = ["coarse", "dense"].flatMap((arm) => [0, 1, 2].map((seed) => `${arm}, seed ${seed}`));
      expect(await svgTexts(svg)).toEqual(expect.arrayContaining([...labels, "training tokens", title]));
      // Colours are written out: a file has no style sheet to ask.
      expect(svg.toString("utf8")).not.toContain("var(");
      const [width, height] = pngSize(await saved(`${title} as PNG`, `${name}.png`));
      expect([width > 300, height]).toEqual([true, 250]);
      const query = arms.map((run) => `run=${encodeURIComponent(run)}`).join("&");
      const { curves } = await ask<CurveAnswer>(`/api/curves?${query}&metric=eval/loss&axis=tokens&columns=4000`);
      const csv = (await saved(`${title} as CSV`, `${name}.csv`)).toString("utf8");
      const rows = curves.flatMap(({ run, x, y }) => x.map((value, i) => `${run},${value},${y[i]}\n`));
      expect(csv).toBe(`line,training tokens,value\n${rows.join("")}`);
    });

    it("of a map hold its cells", async () => {
      await go(placeHash({ view: "experts", name: moe }));
      await shows(/Load by MoE layer and expert at step 20/);
      const title = "Load by MoE layer and expert at step 20";
      const name = title.replaceAll(" ", "-");
      const svg = await saved(`${title} as SVG`, `${name}.svg`);
      expect(await svgTexts(svg)).toEqual(expect.arrayContaining(["layer 0", "layer 1"]));
      expect(svg.toString("utf8").match(/M[\d.]+ [\d.]+h/g)).toHaveLength(8);
      expect(pngSize(await saved(`${title} as PNG`, `${name}.png`))[0]).toBeGreaterThan(300);
      const { load } = await ask<ExpertHistory>(`/api/experts?name=${encodeURIComponent(moe)}`);
      const cells = load.at(-1)!.flatMap((layer, l) => layer.map((share, e) => `layer ${l},expert ${e},${share}\n`));
      const csv = (await saved(`${title} as CSV`, `${name}.csv`)).toString("utf8");
      expect(csv).toBe(`row,column,value\n${cells.join("")}`);
    });

    it("of a list hold its rows, filtered and sorted as they are shown", async () => {
      await go(placeHash({ view: "runs", settings: { filter: "dense", sort: "loss" } }));
      await shows(/5 of 8 runs/);
      const csv = (await saved("CSV", "runs.csv")).toString("utf8").trim().split("\n");
      const { runs } = await ask<{ runs: readonly RunRow[] }>("/api/runs");
      const wanted = runs
        .filter((row) => /dense/.test(`${row.name} ${row.arm} ${row.kind} ${row.state}`))
        .sort((a, b) => a.loss! - b.loss!)
        .map(({ name, study, arm, seed, state, kind }) => [name, study ?? "", arm, seed, state, kind].join(","));
      expect(csv[0]).toMatch(/^name,study,arm,seed,state,kind,/);
      expect(csv.slice(1).map((line) => line.split(",").slice(0, 6).join(","))).toEqual(wanted);
    });

    it("of a table hold its words, in views and in reports", async () => {
      await go(placeHash({ view: "experts" }));
      await shows(/Dead experts/);
      const runs = (await saved("Runs with experts as CSV", "Runs-with-experts.csv")).toString("utf8").split("\n");
      expect([runs[0], runs.length]).toEqual(["Run,Dead experts,Experts,Held-out loss", 5]);
      await go(placeHash({ view: "report", name: "evaluation.html" }));
      await shows(/better on 1/);
      const tables = await page.$$eval(".report table", (found) => found.length);
      const buttons = await page.$$eval(".report .files button", (found) =>
        found.map((one) => (one as unknown as { ariaLabel: string }).ariaLabel),
      );
      expect([tables > 0, buttons.length]).toEqual([true, tables]);
      const [label = ""] = buttons;
      const name = `${label.replace(/ as CSV$/, "")}.csv`.replace(/[^\w.-]+/g, "-");
      expect((await saved(label, name)).toString("utf8")).toContain("0.4000 ± 0.0490");
    });

    it("of the charts and maps of a study's report hold what they show", async () => {
      await go(placeHash({ view: "study", name: "study" }));
      await shows(/Held-out loss against tokens/);
      const svg = await saved(
        "Held-out loss against tokens as SVG",
        "Held-out-loss-against-tokens-over-training-tokens-after-the-parent.svg",
      );
      expect(await svgTexts(svg)).toEqual(expect.arrayContaining(["coarse", "dense", "parent"]));
      const csv = await saved("Load of coarse, seed 0, step 20 as CSV", "Load-of-coarse-seed-0-step-20.csv");
      expect(csv.toString("utf8")).toMatch(/^row,column,value\nlayer 0,expert 0,1\.2\n/);
    });
  });

  it("keeps the scripts of a report away from the studio", async () => {
    wrong.length = 0;
    await go(placeHash({ view: "report", name: "study/report.html" }));
    await shows(/Open its file alone/);
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

    it("goes on with a stopped run by its noted command, saves and stops it, and goes on to its end", async () => {
      const command = { version: 1, words: ["upcycle", "train", "train.yaml"], folder: dir };
      writeFileSync(join(dir, "alone", "command.json"), JSON.stringify(command));
      await go(placeHash({ view: "run", name: "alone" }));
      await shows(/stopped[\s\S]*upcycle train train\.yaml[\s\S]*Go on with it/);
      await page.waitForFunction("document.querySelector('main button.main')?.disabled === false");
      await press("Go on with it");
      // Where it is told what was started, and what that says.
      await shows(/Start and stop[\s\S]*upcycle train train\.yaml --out \S*alone[\s\S]*goes on behind step 18/);
      await go(placeHash({ view: "run", name: "alone" }));
      await shows(/30 of 40/);
      await go(placeHash({ view: "actions" }));
      await shows(/Save and stop/);
      await press("Save and stop");
      await shows(/saved and stopped/);
      await press("Give it again, to go on where it stopped");
      await shows(/ended with exit code 0[\s\S]*goes on behind step 30/);
      await go(placeHash({ view: "run", name: "alone" }));
      await shows(/finished[\s\S]*40 of 40/);
      expect(await text()).not.toContain("Go on with it");
      expect(wrong).toEqual([]);
    });
  });

  it("is one file too, with the same views and no request", async () => {
    const file = join(dir, "exported.html");
    const studio = await Studio.open({ dir, actions: false });
    await studio.look();
    writeFileSync(file, await exportPage(studio, await pageAssets(), "2026-01-01"));
    await page.goto(pathToFileURL(file).href);
    // What starts something needs a server.
    const starting = [placeHash({ view: "actions" }), placeHash({ view: "playground" })];
    for (const [hash, wanted] of views.filter(([one]) => !starting.some((start) => one.startsWith(start)))) {
      await go(hash);
      await shows(wanted);
    }
    // The planner is in the file: what a slider says is computed without a server.
    await go(placeHash({ view: "report", name: "plan.html" }));
    await moveSlider();
    await shows(/upcycle plan --preset llama-3\.2-1b --d1 100B --tokens 1000000000000/);
    expect(
      await page.evaluate(
        "performance.getEntriesByType('resource').filter(({ name }) => !name.startsWith('blob:') && !name.startsWith('data:')).length",
      ),
    ).toBe(0);
    expect(wrong).toEqual([]);
  });

  it("has experts chosen together of every layer in the file, and says so where there was no room", async () => {
    const studio = await Studio.open({ dir, actions: false });
    await studio.look();
    const assets = await pageAssets();
    const layers = (text: string): string[] =>
      [...text.matchAll(/"\/api\/coactivation\?name=([^"]*)&layer=(\d+)":\{/g)]
        .filter(([, name]) => decodeURIComponent(name!) === moe)
        .map(([, , layer]) => layer!);
    expect(layers(await exportPage(studio, assets, "2026-01-01"))).toEqual(["0", "1"]);
    const small = await exportPage(studio, assets, "2026-01-01", 1000);
    expect(layers(small)).toEqual([]);
    const file = join(dir, "small.html");
    writeFileSync(file, small);
    await page.goto(pathToFileURL(file).href + placeHash({ view: "experts", name: moe, settings: { layer: "1" } }));
    await shows(/Experts chosen together in layer 1 are not in this file/);
    expect(wrong).toEqual([]);
  });
});
