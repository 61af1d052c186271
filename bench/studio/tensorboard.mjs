// TensorBoard on the same runs: until all are known, their curves answered and drawn, and its memory.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventFile, timedRecords } from "../../dist/train/exported-logs.js";
import { until } from "./browser.mjs";
import { get, start, untilTrue, used } from "./process.mjs";
import { records } from "./runs.mjs";

const port = 16_006;

/** Writes the event files that `upcycle train` would write of the same runs. */
export function writeEvents(root, runs, points) {
  for (let seed = 0; seed < runs; seed++) {
    const dir = join(root, `run-${seed}`);
    mkdirSync(dir, { recursive: true });
    const list = records(1, points, { steps: 2 * points, seed, every: 500 });
    const of = (type) => list.filter((record) => record.type === type);
    const metrics = { steps: of("step"), evals: of("eval"), done: null };
    writeFileSync(join(dir, "events.out.tfevents.bench"), eventFile(timedRecords(metrics, Date.now() / 1000)));
  }
}

/** Megabytes of a process and those that it has started (its data server), the most that each has had. */
function memoryOf(pid) {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return new RegExp(`^PPid:\\s*${pid}$`, "m").test(readFileSync(`/proc/${name}/status`, "utf8"));
      } catch {
        return false;
      }
    });
  return [pid, ...children].reduce((sum, one) => sum + used(one).peakMb, 0);
}

export async function measureTensorBoard(notes, { root, runs, points, repeats, browser }) {
  const program = process.env.TENSORBOARD;
  if (program === undefined) return console.log("TensorBoard is not measured: TENSORBOARD names no program");
  notes.versions.tensorboard = execFileSync(program, ["--version"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  }).trim();
  writeEvents(root, runs, points);
  const started = performance.now();
  // All points, as the studio has them; by default TensorBoard keeps a thousand of each curve, chosen at random.
  const words = [
    "--logdir",
    root,
    "--port",
    String(port),
    "--host",
    "127.0.0.1",
    "--samples_per_plugin",
    `scalars=${points}`,
  ];
  const child = start(program, words, { stdio: "ignore" });
  const text = async (path) => (await get(port, path, { isText: true }).catch(() => ({ text: "" }))).text;
  const tag = "train/loss";
  const isKnown = async () => {
    const answer = await text("/data/plugin/scalars/tags");
    const tags = answer.startsWith("{") ? JSON.parse(answer) : {};
    return Object.values(tags).filter((of) => tag in of).length === runs;
  };
  const lastStep = async (run) => {
    const answer = await text(`/data/plugin/scalars/scalars?tag=${encodeURIComponent(tag)}&run=${run}`);
    return answer.startsWith("[") ? JSON.parse(answer).at(-1)?.[1] : 0;
  };
  await untilTrue("TensorBoard knows all runs", child, isKnown);
  const what = `${runs} curves of ${points} points`;
  notes.add(`TensorBoard: ${runs} runs known, from its start`, performance.now() - started);
  for (let run = 0; run < runs; run++) {
    const isRead = async () => (await lastStep(`run-${run}`)) === points;
    await untilTrue(`TensorBoard has read run ${run}`, child, isRead);
  }
  notes.add(`TensorBoard: all points of ${runs} runs read, from its start`, performance.now() - started);
  const answers = [];
  for (let i = 0; i < repeats; i++) {
    const asked = performance.now();
    const paths = Array.from(
      { length: runs },
      (_, run) => `/data/plugin/scalars/scalars?tag=${encodeURIComponent(tag)}&run=run-${run}`,
    );
    await Promise.all(paths.map((path) => get(port, path)));
    answers.push(performance.now() - asked);
  }
  notes.add(`TensorBoard: ${what}, answers`, answers);
  if (browser !== null)
    await measurePage(notes, browser, what, Math.min(3, repeats)).catch((cause) =>
      console.log(`TensorBoard's page is not measured: ${cause.message}`),
    );
  notes.add("TensorBoard: memory, highest", memoryOf(child.pid), { unit: "MB" });
  child.kill();
}

/** From the navigation until the axes of its chart show the losses: its lines may come later, in a worker. */
async function measurePage(notes, browser, what, repeats) {
  const hasLosses = `[...document.querySelectorAll("scalar-card")].some((card) =>
    card.textContent.includes("train/loss") &&
    [...card.querySelectorAll(".y-axis text")].some((tick) => Number(tick.textContent) >= 3))`;
  const drawn = [];
  for (let i = 0; i < repeats; i++) {
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${port}/?tagFilter=train%2Floss#timeseries`, { waitUntil: "domcontentloaded" });
    drawn.push(await until(page, null, hasLosses));
    await page.close();
  }
  notes.add(`TensorBoard: ${what}, axes drawn from the navigation`, drawn);
}
