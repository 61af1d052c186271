// How fast the studio is, and how much memory its server takes: `npm run build && node bench/studio.mjs [--short]`.
//
//   1 1,000 runs: the index from nothing, the list over HTTP, the list in the browser
//   2 100 curves of 10,000 points: over HTTP, and drawn in the browser
//   3 first paint of the start page
//   4 a new point: from the end of the write to the page
//   5 a day of one training: memory of the server
//   6 what a training loses while a page of it is open: pieces with and without the studio in turn (`--training` alone)
//   7 TensorBoard on the event files of the same runs, where `TENSORBOARD` names a program
//
// The browser is Chromium (CHROMIUM names one); without it, what it measures is left out and said so.
import { execFileSync, spawn } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";
import { eventFile, timedRecords } from "../dist/train/exported-logs.js";
import { specFromConfig } from "../dist/model/decoder/config.js";
import { pageAssets } from "../dist/studio/server/page.js";
import { startServer } from "../dist/studio/server/server.js";
import { Studio } from "../dist/studio/server/studio.js";
import { toolVersion } from "../dist/surgery/convert/version.js";

const isShort = process.argv.includes("--short");
const [manyRuns, longRuns, points] = isShort ? [1000, 20, 10_000] : [1000, 100, 10_000];
const repeats = isShort ? 5 : 20;
const root = mkdtempSync(join(tmpdir(), "upcycle-studio-bench-"));
process.on("exit", () => rmSync(root, { recursive: true, force: true }));

const spec = specFromConfig(
  {
    model_type: "mixtral",
    vocab_size: 1024,
    hidden_size: 96,
    intermediate_size: 256,
    num_hidden_layers: 8,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  "config.json",
);
const perStep = 2048;

/** A step of a log, falling with noise. */
function step(i, steps, seed) {
  const noise = Math.sin(i * 12.9898 + seed * 78.233) * 0.05;
  const layers = Array.from({ length: 8 }, (_, layer) => layer);
  return {
    type: "step",
    step: i,
    tokens: i * perStep,
    loss: 2.5 + 4 * Math.exp((-5 * i) / steps) + noise,
    balanceLoss: 1.01,
    zLoss: 0.2,
    gradNorm: 1 + noise,
    learningRate: 1e-3,
    routing: {
      entropy: layers.map((layer) => 1.9 + layer / 100),
      maxViolation: layers.map(() => 0.4),
      dead: layers.map(() => []),
    },
    ms: 100,
  };
}
const evaluation = (i, steps, seed) => ({
  type: "eval",
  step: i,
  tokens: i * perStep,
  loss: step(i, steps, seed).loss + 0.1,
  load: Array.from({ length: 8 }, () => Array(8).fill(1 / 8)),
  routing: step(i, steps, seed).routing,
  similarity: Array(8).fill(0.98),
});
const lines = (records) => records.map((record) => `${JSON.stringify(record)}\n`).join("");

function writeRun(name, steps, seed, every) {
  const dir = join(root, name);
  mkdirSync(dir, { recursive: true });
  const training = { steps, batch: 16, sequence: 128, accumulate: 1, lr: { peak: 1e-3 + seed * 1e-6 } };
  writeFileSync(join(dir, "run.json"), JSON.stringify({ key: name, spec, training, seed, kind: "upcycled" }));
  const records = [evaluation(0, steps, seed)];
  for (let i = 1; i <= steps; i++) {
    records.push(step(i, steps, seed));
    if (i % every === 0) records.push(evaluation(i, steps, seed));
  }
  writeFileSync(join(dir, "metrics.jsonl"), lines(records));
  return { dir, records };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const results = {};
function note(name, values, unit = "ms") {
  const list = Array.isArray(values) ? values : [values];
  results[name] = { median: median(list), lowest: Math.min(...list), highest: Math.max(...list), n: list.length, unit };
  const { lowest, highest } = results[name];
  const shown = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
  const range = list.length > 1 ? ` (${shown(lowest)} to ${shown(highest)}, ${list.length} times)` : "";
  console.log(`${name.padEnd(58)} ${shown(median(list))} ${unit}${range}`);
}
async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
async function times(work) {
  const all = [];
  for (let i = 0; i < repeats; i++) all.push(await timed(work));
  return all;
}

const many = join(root, "many");
for (let i = 0; i < manyRuns; i++)
  writeRun(join("many", `study-${i % 20}`, "arms", `arm-${i % 10}`, `seed-${i}`), 200, i, 50);
const long = join(root, "long");
const longRecords = [];
for (let i = 0; i < longRuns; i++) {
  const { records } = writeRun(join("long", `run-${i}`), points, i, 500);
  longRecords.push(records);
}

function get(server, path, cookie) {
  return new Promise((done, failed) => {
    const asked = request({ host: "127.0.0.1", port: server.port, path, headers: { cookie } }, (response) => {
      let size = 0;
      response.on("data", (chunk) => (size += chunk.length));
      response.on("end", () => done({ status: response.statusCode, size, headers: response.headers }));
    });
    asked.on("error", failed);
    asked.end();
  });
}

async function serve(dir) {
  const studio = await Studio.open({ dir, actions: false });
  const first = await timed(() => studio.look());
  const server = await startServer({ studio, assets: await pageAssets(), port: null, folder: root });
  const welcome = await get(server, `/${new URL(server.url).search}`, "");
  return { studio, server, first, cookie: welcome.headers["set-cookie"][0].split(";")[0] };
}

const browserPath = [
  process.env.CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
].find((path) => path !== undefined && existsSync(path));
const browser =
  browserPath === undefined
    ? null
    : await puppeteer.launch({
        executablePath: browserPath,
        args: ["--headless", "--no-sandbox", "--disable-gpu"],
        defaultViewport: { width: 1280, height: 900 },
      });
if (browser === null) console.log("no Chromium: what a browser shows is not measured");

/** Milliseconds until a condition of the page holds, looked at in every frame; the page keeps the time. */
const until = (page, hash, condition) =>
  page.evaluate(
    `new Promise((done) => {
      const start = performance.now();
      ${hash === null ? "" : `location.hash = ${JSON.stringify(hash)};`}
      const look = () => (${condition}) ? done(performance.now() - start) : requestAnimationFrame(look);
      requestAnimationFrame(look);
    })`,
  );

{
  const { server, first, cookie } = await serve(many);
  note(`${manyRuns} runs: index from nothing`, first);
  note(`${manyRuns} runs: list over HTTP`, await times(() => get(server, "/api/runs", cookie)));
  note(`${manyRuns} runs: start page over HTTP`, await times(() => get(server, "/api/overview", cookie)));
  if (browser !== null) {
    const [shown, paints] = [[], []];
    for (let i = 0; i < repeats; i++) {
      const page = await browser.newPage();
      await page.goto(server.url);
      await page.waitForFunction("performance.getEntriesByName('first-contentful-paint').length > 0");
      paints.push(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"));
      await page.goto("about:blank");
      await page.goto(`http://127.0.0.1:${server.port}/#/runs`, { waitUntil: "domcontentloaded" });
      shown.push(
        await page.evaluate(
          `new Promise((done) => {
            const rows = () => document.querySelectorAll(".list-body .list-row").length;
            const look = () => (rows() > 10 ? done(performance.now()) : requestAnimationFrame(look));
            look();
          })`,
        ),
      );
      await page.close();
    }
    note("first paint of the start page", paints);
    note(`${manyRuns} runs: rows on the screen, from the navigation`, shown);
  }
  await server.close();
}

{
  const { studio, server, cookie, first } = await serve(long);
  note(`${longRuns} logs of ${points} steps: index from nothing`, first);
  const names = studio.index.rows.map(({ name }) => name);
  const query = names.map((name) => `run=${name}`).join("&");
  const path = `/api/curves?${query}&metric=train/loss&axis=tokens&columns=500`;
  note(`${longRuns} curves of ${points} points: first answer`, await timed(() => get(server, path, cookie)));
  note(`${longRuns} curves of ${points} points: answer`, await times(() => get(server, path, cookie)));
  if (browser !== null) {
    const page = await browser.newPage();
    await page.goto(server.url);
    await until(page, null, `document.querySelector("h1") !== null`);
    const hash = `#/compare?runs=${encodeURIComponent(names.join(" "))}&bands=off`;
    const drawn = [];
    for (let i = 0; i < repeats; i++) {
      await until(page, "#/jobs", `document.querySelectorAll(".chart").length === 0`);
      // The second chart is the training loss: all points.
      drawn.push(await until(page, hash, `document.querySelectorAll(".chart")[1]?.querySelector("canvas") != null`));
    }
    note(`${longRuns} curves of ${points} points: drawn in the browser`, drawn);
    await until(page, "#/run/run-0", `/of ${points}/.test(document.body.innerText)`);
    const fresh = [];
    for (let i = 0; i < repeats; i++) {
      const at = points + 1 + i;
      await page.evaluate(
        `window.seen = new Promise((done) => {
          const isThere = () => document.body.innerText.includes("${at} of ${points}");
          const look = () => (isThere() ? done(Date.now()) : setTimeout(look, 5));
          look();
        }); 0`,
      );
      const written = Date.now();
      appendFileSync(join(long, "run-0", "metrics.jsonl"), lines([step(at, points, 0)]));
      fresh.push((await page.evaluate("window.seen")) - written);
    }
    note("a new point: from its writing to the page", fresh);
    await page.close();
  }
  await server.close();
}

// A day: a step a second, a measurement every ten minutes, looked at and drawn all the time, without waiting for it.
{
  const dir = join(root, "day");
  mkdirSync(dir);
  const { dir: run } = writeRun(join("day", "run"), 10, 0, 5);
  let now = Date.now();
  const studio = await Studio.open({ dir, actions: false }, () => now);
  const seconds = isShort ? 8640 : 86_400;
  const piece = 60;
  let highest = 0;
  globalThis.gc?.();
  const before = process.memoryUsage().rss / 1e6;
  for (let at = 10; at < seconds; at += piece) {
    const records = [];
    for (let i = at; i < at + piece; i++) {
      records.push(step(i, seconds, 0));
      if (i % 600 === 0) records.push(evaluation(i, seconds, 0));
    }
    appendFileSync(join(run, "metrics.jsonl"), lines(records));
    now += piece * 1000;
    await studio.look();
    for (const [path, settings] of [
      ["/api/curves", { run: "run", metric: "train/loss", columns: "800" }],
      ["/api/experts", { name: "run" }],
      ["/api/overview", {}],
    ])
      await studio.answer(path, new URLSearchParams(settings));
    highest = Math.max(highest, process.memoryUsage().rss / 1e6);
  }
  note("memory of this process before the day", before, "MB");
  note(`memory of this process over ${seconds} steps, highest`, highest, "MB");
}
await browser?.close();

/** Lines of a log so far. */
const linesIn = (path) => (existsSync(path) ? readFileSync(path, "utf8").split("\n").slice(0, -1) : []);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** The studio as a process of its own, with a client that does what the page of a run does. */
async function openStudio(dir) {
  const program = spawn(process.execPath, ["dist/cli/main.js", "studio", dir, "--no-open", "--json"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const line = await new Promise((done) => program.stdout.once("data", (chunk) => done(String(chunk))));
  const { url, port } = JSON.parse(line);
  const welcome = await get({ port }, `/${new URL(url).search}`, "");
  const cookie = welcome.headers["set-cookie"][0].split(";")[0];
  const listening = request({ host: "127.0.0.1", port, path: "/api/events", headers: { cookie } }, (response) =>
    response.on("data", () => {
      for (const metric of ["train/loss", "eval/loss", "train/tokens_per_second", "train/grad_norm"])
        void get({ port }, `/api/curves?run=run&metric=${metric}&columns=800`, cookie).catch(() => undefined);
    }),
  );
  listening.on("error", () => undefined);
  listening.end();
  return async () => {
    listening.destroy();
    program.kill("SIGINT");
    await new Promise((done) => program.on("exit", done));
  };
}

if (process.argv.includes("--training")) {
  const dir = join(root, "training");
  const file = join(root, "training.yaml");
  mkdirSync(dir);
  const [pairs, seconds] = isShort ? [6, 5] : [20, 10];
  writeFileSync(
    file,
    `out: ${join(dir, "run")}
text: { builtin: [sotu, moby-dick], heldOut: 0.05 }
tokenizer: { vocab: 1024 }
model: { hidden: 96, layers: 3, heads: 4, kvHeads: 2, inner: 256 }
training: { steps: 100000, batch: 8, sequence: 128, lr: { peak: 0.001 }, evalEvery: 1000, saveEvery: 100000 }
evaluation: { tokens: 2048 }
`,
  );
  const training = spawn(process.execPath, ["dist/cli/main.js", "train", file, "--threads", "1"], { stdio: "ignore" });
  const log = join(dir, "run", "metrics.jsonl");
  while (linesIn(log).length < 60) await wait(200);
  const piece = async (isOpen) => {
    const close = isOpen ? await openStudio(dir) : null;
    // Starting a process is not what is measured.
    await wait(1000);
    const from = linesIn(log).length;
    await wait(1000 * seconds);
    const ms = linesIn(log)
      .slice(from)
      .map((line) => JSON.parse(line))
      .flatMap((record) => (record.type === "step" ? [record.ms] : []));
    await close?.();
    return ms.reduce((sum, value) => sum + value, 0) / ms.length;
  };
  const losses = [];
  for (let i = 0; i < pairs; i++) {
    // Which comes first changes, so that a drift of the machine counts for neither.
    const first = await piece(i % 2 === 0);
    const second = await piece(i % 2 !== 0);
    const [open, shut] = i % 2 === 0 ? [first, second] : [second, first];
    losses.push(100 * (open / shut - 1));
  }
  training.kill("SIGINT");
  await new Promise((done) => training.on("exit", done));
  note("time that a step takes longer while a page is open", losses, "%");
}

if (process.env.TENSORBOARD !== undefined) {
  const logs = join(root, "events");
  longRecords.forEach((records, i) => {
    const dir = join(logs, `run-${i}`);
    mkdirSync(dir, { recursive: true });
    const metrics = {
      steps: records.filter(({ type }) => type === "step"),
      evals: records.filter(({ type }) => type === "eval"),
      done: null,
    };
    writeFileSync(join(dir, "events.out.tfevents.bench"), eventFile(timedRecords(metrics, Date.now() / 1000)));
  });
  const program = spawn(
    process.env.TENSORBOARD,
    ["--logdir", logs, "--port", "16006", "--host", "127.0.0.1", "--samples_per_plugin", `scalars=${points}`],
    { stdio: "ignore" },
  );
  const ask = (path) => get({ port: 16_006 }, path, "");
  const start = performance.now();
  for (;;) {
    const found = await ask("/data/plugin/scalars/tags").catch(() => null);
    if (found?.status === 200 && found.size > 40 * longRuns) break;
    await new Promise((done) => setTimeout(done, 200));
  }
  note(`TensorBoard: ${longRuns} runs known, from its start`, performance.now() - start);
  note(
    `TensorBoard: ${longRuns} curves of ${points} points, answers`,
    await times(() =>
      Promise.all(longRecords.map((_, i) => ask(`/data/plugin/scalars/scalars?tag=train/loss&run=run-${i}`))),
    ),
  );
  const rss = execFileSync("ps", ["-o", "rss=", "-p", String(program.pid)], { encoding: "utf8" });
  note("TensorBoard: memory", Number(rss) / 1e3, "MB");
  program.kill();
} else console.log("TensorBoard is not measured: TENSORBOARD names no program");

const environment = { upcycle: toolVersion, node: process.version, cpu: cpus()[0]?.model, cores: cpus().length };
console.log(JSON.stringify({ environment, results }));
