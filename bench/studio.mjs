/**
 * How fast the studio is and what it costs, beside what it must hold:
 *
 *   npm run build && node bench/studio.mjs [--short] [--only PART,PART] [--repeats N] [--seconds N] [--out FILE]
 *
 *   list         1,000 runs: the index from nothing, the list over HTTP and on the screen, the first paint
 *   curves       100 curves of 10,000 points: over HTTP, drawn, drawn from raw points of a part; a new point of a run
 *   day          a day of one training among 1,000 runs, looked at all the time: memory of the server
 *   training     what a training on all cores loses while a page of it is open: 20 pairs of --seconds in short pieces
 *   thread       the same of a training with one thread
 *   tensorboard  TensorBoard on the event files of the same 100 runs, where TENSORBOARD names the program
 *
 * All parts are measured unless --only names some. The server is `upcycle studio` as a process of its own. The browser
 * is Chromium (CHROMIUM names one), which draws without a GPU; without it, what it measures is left out and said so.
 * Results are written to bench/results/DATE-studio.json, after each part; with --only, those of other parts stay in it.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { firstPaint, openBrowser, until } from "./studio/browser.mjs";
import { Notes } from "./studio/notes.mjs";
import { endAll, openStudio, sleep, untilTrue, used } from "./studio/process.mjs";
import { addRecords, records, step, writeRun, writeStudies } from "./studio/runs.mjs";
import { measureTensorBoard } from "./studio/tensorboard.mjs";
import { measureTraining } from "./studio/training.mjs";

const parts = ["list", "curves", "day", "training", "thread", "tensorboard"];
const { values: flags } = parseArgs({
  options: {
    short: { type: "boolean", default: false },
    repeats: { type: "string" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: parts.join(",") },
    out: { type: "string", default: `bench/results/${new Date().toISOString().slice(0, 10)}-studio.json` },
  },
});
const chosen = flags.only.split(",");
const wrong = chosen.find((part) => !parts.includes(part));
if (wrong !== undefined) throw new Error(`--only: "${wrong}" is none of ${parts.join(", ")}`);

const [manyRuns, longRuns, points] = [1000, flags.short ? 20 : 100, 10_000];
const repeats = Number(flags.repeats ?? (flags.short ? 5 : 20));
const pieces = { pairs: flags.short ? 6 : 20, seconds: Number(flags.seconds) };
const root = mkdtempSync(join(tmpdir(), "upcycle-studio-bench-"));
process.on("exit", () => rmSync(root, { recursive: true, force: true }));
// Parts that are measured alone leave the others' results in the file.
const notes = new Notes({ isPartial: parts.some((part) => !chosen.includes(part)) });
const browser = await openBrowser();
if (browser !== null) notes.versions.browser = await browser.version();
if (browser === null) console.log("no Chromium: what a browser shows is not measured");

async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
async function times(work, count = repeats) {
  const all = [];
  for (let i = 0; i < count; i++) all.push(await timed(work));
  return all;
}

/** The index from nothing, each time in a process of its own: until the list knows all, and until all logs are read. */
function measureIndex(dir, what, below) {
  const found = Array.from({ length: Math.min(5, repeats) }, () =>
    JSON.parse(execFileSync(process.execPath, ["bench/studio/index-time.mjs", dir], { encoding: "utf8" })),
  );
  const add = (name, of, must) => notes.add(`${what}: index from nothing, ${name}`, found.map(of), must);
  add("how far each is", ({ known }) => known, { below });
  add("all logs read", ({ read }) => read);
}

async function measureList() {
  const dir = join(root, "many");
  writeStudies(dir, manyRuns);
  measureIndex(dir, `${manyRuns} runs`, 2000);
  const studio = await openStudio(dir);
  await studio.isRead();
  notes.add(`${manyRuns} runs: list over HTTP`, await times(() => studio.ask("/api/runs")));
  notes.add(`${manyRuns} runs: start page over HTTP`, await times(() => studio.ask("/api/overview")));
  if (browser !== null) {
    // Rows are on the screen, and the page knows all others.
    const isListed = `document.querySelectorAll(".list-body .list-row").length > 10 &&
      document.querySelector("#filter-says").textContent.startsWith("${manyRuns} of ${manyRuns} runs")`;
    const [shown, paints] = [[], []];
    for (let i = 0; i < repeats; i++) {
      const page = await browser.newPage();
      await page.goto(studio.url);
      paints.push(await firstPaint(page));
      await page.goto("about:blank");
      await page.goto(`http://127.0.0.1:${studio.port}/#/runs`, { waitUntil: "domcontentloaded" });
      shown.push(await until(page, null, isListed));
      await page.close();
    }
    notes.add("first paint of the start page", paints, { below: 200 });
    notes.add(`${manyRuns} runs: rows on the screen, from the navigation`, shown, { below: 300 });
  }
  notes.add(`${manyRuns} runs: memory of the server, highest`, used(studio.pid).peakMb, { unit: "MB", below: 200 });
  const before = used(studio.pid).cpuMs;
  const close = studio.listen(() => undefined);
  await sleep(10_000);
  close();
  notes.add(`${manyRuns} runs at rest, a page open: processor time`, (used(studio.pid).cpuMs - before) / 100, {
    unit: "% of a core",
  });
  await studio.close();
}

async function measureCurves() {
  const dir = join(root, "long");
  for (let i = 0; i < longRuns; i++)
    writeRun(join(dir, `run-${i}`), { steps: points, seed: i, every: 500, planned: 2 * points });
  const what = `${longRuns} curves of ${points} points`;
  measureIndex(dir, `${longRuns} logs of ${points} steps`);
  const studio = await openStudio(dir);
  await studio.isRead();
  const names = Array.from({ length: longRuns }, (_, i) => `run-${i}`);
  const query = names.map((name) => `run=${name}`).join("&");
  const path = `/api/curves?${query}&metric=train/loss&axis=tokens&columns=256`;
  notes.add(`${what}: first answer, logs read`, await timed(() => studio.ask(path)));
  notes.add(`${what}: answer`, await times(() => studio.ask(path)));
  if (browser !== null) await measureDrawing(studio, { dir, names, what });
  notes.add(`${what}: memory of the server, highest`, used(studio.pid).peakMb, { unit: "MB", below: 200 });
  await studio.close();
}

async function measureDrawing(studio, { dir, names, what }) {
  const page = await browser.newPage();
  await page.goto(studio.url);
  await until(page, null, `document.querySelector("h1") !== null`);
  const hash = `#/compare?runs=${encodeURIComponent(names.join(" "))}&bands=off`;
  const canvases = `document.querySelectorAll(".chart canvas").length`;
  const [first, all, raw] = [[], [], []];
  for (let i = 0; i < repeats; i++) {
    await until(page, "#/jobs", `document.querySelectorAll(".chart").length === 0`);
    // The second chart is the training loss, of which all points are asked for.
    first.push(await until(page, hash, `document.querySelectorAll(".chart")[1]?.querySelector("canvas") != null`));
    await until(page, "#/jobs", `document.querySelectorAll(".chart").length === 0`);
    all.push(await until(page, hash, `${canvases} === 4`));
    await until(page, "#/jobs", `document.querySelectorAll(".chart").length === 0`);
    // A hundredth of the range is shown by its raw points.
    raw.push(await until(page, `${hash}&zoom=tokens:4000000:4200000`, `${canvases} === 4`));
  }
  const fresh = [];
  for (let i = 0; i < Math.min(5, repeats); i++) {
    await page.goto("about:blank");
    await page.goto(`http://127.0.0.1:${studio.port}/${hash}`, { waitUntil: "domcontentloaded" });
    fresh.push(await until(page, null, `document.querySelectorAll(".chart")[1]?.querySelector("canvas") != null`));
  }
  notes.add(`${what}: drawn, from the navigation`, fresh);
  notes.add(`${what}: drawn, a link followed`, first, { below: 500 });
  notes.add(`${what}: drawn, all four charts of the view`, all);
  notes.add(`${what}: a hundredth of them raw, all four charts`, raw, { below: 500 });
  await until(page, "#/run/run-0", `/${points} of ${2 * points}/.test(document.body.innerText)`);
  const seen = [];
  for (let i = 0; i < 2 * repeats; i++) {
    const at = points + 1 + i;
    await page.evaluate(
      `window.seen = new Promise((done) => {
        const isThere = () => document.querySelector("main").textContent.includes("${at} of ${2 * points}");
        const look = () => (isThere() ? done(Date.now()) : setTimeout(look, 5));
        look();
      }); 0`,
    );
    // Looks come at fixed times: points come at all times between them.
    await sleep(97 * (i % 10));
    const written = Date.now();
    addRecords(join(dir, "run-0"), [step(at, 2 * points, 0)]);
    seen.push(Number(await page.evaluate("window.seen")) - written);
  }
  notes.add("a new point: from its writing to the page", seen, { below: 1000, of: "highest" });
  await page.close();
}

/**
 * A day of one training: a step a second, a measurement every ten minutes, a minute of it at once. After each minute
 * its page is asked for, and now and then the curves of other runs and the list.
 */
async function measureDay() {
  const dir = join(root, "day");
  writeStudies(dir, manyRuns);
  const seconds = flags.short ? 14_400 : 86_400;
  const run = writeRun(join(dir, "run"), { steps: 60, seed: 0, every: 600, planned: seconds });
  const studio = await openStudio(dir);
  const close = studio.listen(() => undefined);
  await studio.isRead();
  const names = (await studio.json("/api/runs")).runs.map(({ name }) => name);
  notes.add("memory of the server before the day", used(studio.pid).peakMb, { unit: "MB" });
  const curves = (of, metric, columns) =>
    studio.ask(`/api/curves?${of.map((name) => `run=${name}`).join("&")}&metric=${metric}&columns=${columns}`);
  for (let from = 61, minute = 1; from < seconds; from += 60, minute++) {
    addRecords(run, records(from, from + 59, { steps: seconds, seed: 0, every: 600 }));
    for (const metric of ["train/loss", "eval/loss", "train/tokens_per_second", "train/router_entropy"])
      await curves(["run"], metric, 1200);
    await studio.ask("/api/run?name=run");
    await studio.ask("/api/experts?name=run");
    if (minute % 5 === 0) await studio.ask("/api/overview");
    if (minute % 10 === 0) await studio.ask("/api/runs");
    if (minute % 10 === 5) await curves(names.slice(minute % 900, (minute % 900) + 100), "train/loss", 256);
  }
  // It reads a log that grows all the time now and then: the day is over when it has read all of it.
  const readSteps = async () => (await studio.json("/api/run?name=run")).row.step;
  await untilTrue("the studio has read the day", studio.child, async () => (await readSteps()) >= seconds);
  const last = await readSteps();
  close();
  notes.add(`memory of the server over a day of ${last} steps, highest`, used(studio.pid).peakMb, {
    unit: "MB",
    below: 200,
  });
  await studio.close();
}

const measures = {
  list: measureList,
  curves: measureCurves,
  day: measureDay,
  training: () => measureTraining(notes, join(root, "training"), { ...pieces, threads: availableParallelism() }),
  thread: () => measureTraining(notes, join(root, "thread"), { ...pieces, threads: 1 }),
  tensorboard: () =>
    measureTensorBoard(notes, { root: join(root, "events"), runs: longRuns, points, repeats, browser }),
};
for (const part of parts.filter((one) => chosen.includes(one))) {
  mkdirSync(root, { recursive: true });
  const started = performance.now();
  try {
    await measures[part]();
  } catch (cause) {
    // The other parts are measured, and what this one has measured is kept.
    console.error(`bench: ${part} has failed: ${cause instanceof Error ? cause.stack : String(cause)}`);
    process.exitCode = 1;
  }
  // What a part that has failed has left at work would disturb the next one, and so would files still to be written.
  endAll();
  for (const page of (await browser?.pages()) ?? []) await page.goto("about:blank").catch(() => undefined);
  rmSync(root, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  notes.write(flags.out);
  console.log(`${part}: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}
await browser?.close();
process.exit();
