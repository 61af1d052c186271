// What a training loses while a page of it is open: pieces of one training with and without the studio, in turns.
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { medianInterval } from "./notes.mjs";
import { openStudio, processorMs, sleep, start } from "./process.mjs";

const settings = (out) => `out: ${out}
text: { builtin: [sotu, moby-dick], heldOut: 0.05 }
tokenizer: { vocab: 1024 }
model: { hidden: 96, layers: 3, heads: 4, kvHeads: 2, inner: 256 }
training: { steps: 1000000, batch: 8, sequence: 128, lr: { peak: 0.001 }, evalEvery: 1000000, saveEvery: 1000000 }
evaluation: { tokens: 2048 }
`;

/** Milliseconds of the steps that the log got behind `from`, its size before. */
function stepTimes(log, from) {
  return readFileSync(log)
    .subarray(from)
    .toString("utf8")
    .split("\n")
    .slice(1, -1)
    .map((line) => JSON.parse(line))
    .flatMap((record) => (record.type === "step" ? [record.ms] : []));
}

/** Milliseconds between two looks of the page at curves, and at what is around them. */
const [chartMs, detailMs] = [650, 5000];
/** Charts on a screen; others are not asked for until they are seen. */
const chartsSeen = 4;

/**
 * A client that asks what the page of a run asks, and as often, but draws nothing: the page may be anywhere. What it
 * costs itself is counted too, since it takes processor time that is not the studio's.
 */
export async function watchRun(studio) {
  const { metrics } = await studio.json("/api/run?name=run");
  const connection = studio.connection();
  const shown = metrics.slice(0, chartsSeen);
  const had = new Map();
  let isOver = false;
  let revision = 0;
  const stop = studio.listen((chunk) => {
    if (String(chunk).includes("event: rows")) revision++;
  });
  // The page asks for what all its charts have got since in one request.
  const charts = async () => {
    const address = (metric) => `/api/curves?run=run&metric=${metric}&axis=tokens&columns=1200${had.get(metric) ?? ""}`;
    const asked = shown.map((metric) => `ask=${encodeURIComponent(address(metric))}`).join("&");
    const answers = JSON.parse(await connection.ask(`/api/several?${asked}`));
    shown.forEach((metric, i) => {
      const [{ generation, total }] = answers[i].curves;
      had.set(metric, `&have=${generation}:${total}`);
    });
  };
  const again = async (ms, ask) => {
    for (let seen = -1; !isOver; await sleep(ms)) {
      if (seen === revision) continue;
      seen = revision;
      await ask().catch(() => undefined);
    }
  };
  void again(chartMs, charts);
  void again(detailMs, () => connection.ask("/api/run?name=run"));
  return () => {
    isOver = true;
    stop();
    connection.close();
  };
}

/** Seconds after the studio was held or let go that do not count: what has come meanwhile is read at once. */
const settleSeconds = 0.4;

/**
 * What a training loses: pairs of pieces, one while the studio works and one while it is held (SIGSTOP). The pieces of
 * a pair are cut in halves that are measured in the order ABBA, of the next pair BAAB, so that a machine that becomes
 * faster or slower meanwhile counts for neither. Halves of the same kind that follow each other say how much such a
 * comparison differs by itself. A training of one thread leaves the other cores to the studio, as one on a GPU does;
 * from a training of all cores the studio takes what it uses.
 */
export async function measureTraining(notes, root, { pairs, seconds, threads }) {
  const cores = availableParallelism();
  const dir = join(root, "runs");
  const file = join(root, "training.yaml");
  mkdirSync(dir, { recursive: true });
  writeFileSync(file, settings(join(dir, "run")));
  const words = ["dist/cli/main.js", "train", file, "--threads", String(threads)];
  const training = start(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
  const log = join(dir, "run", "metrics.jsonl");
  while (!existsSync(log) || readFileSync(log, "utf8").split("\n").length < 60) await sleep(200);
  const studio = await openStudio(dir);
  await studio.isRead();
  const close = await watchRun(studio);
  const half = halfOf(studio, log, seconds / 2);
  await half(true);
  const found = { losses: [], same: [], shares: [], clients: [] };
  for (let i = 0; i < pairs; i++) {
    const order = i % 2 === 0 ? [true, false, false, true] : [false, true, true, false];
    const halves = [];
    for (const isOpen of order) halves.push({ isOpen, ...(await half(isOpen)) });
    notePair(found, halves);
  }
  process.kill(studio.pid, "SIGCONT");
  close();
  await studio.close();
  training.kill("SIGINT");
  await once(training, "exit");
  noteTraining(notes, found, threads === 1 ? "one thread" : `${threads} threads on ${cores} cores`);
}

/** What measures half a piece: times of the steps in it, and processor time in percent of a core. */
const halfOf = (studio, log, seconds) => async (isOpen) => {
  process.kill(studio.pid, isOpen ? "SIGCONT" : "SIGSTOP");
  await sleep(1000 * settleSeconds);
  const [from, began, cpu, own] = [statSync(log).size, performance.now(), processorMs(studio.pid), process.cpuUsage()];
  await sleep(1000 * seconds);
  const times = stepTimes(log, from);
  const percent = 100 / (performance.now() - began);
  const { user, system } = process.cpuUsage(own);
  return {
    ms: times.reduce((sum, value) => sum + value, 0),
    steps: times.length,
    share: percent * (processorMs(studio.pid) - cpu),
    client: (percent * (user + system)) / 1000,
  };
};

function notePair({ losses, same, shares, clients }, halves) {
  const stepMs = (list) => list.reduce((sum, { ms }) => sum + ms, 0) / list.reduce((sum, { steps }) => sum + steps, 0);
  const [open, held] = [halves.filter(({ isOpen }) => isOpen), halves.filter(({ isOpen }) => !isOpen)];
  losses.push(100 * (stepMs(open) / stepMs(held) - 1));
  const [, second, third] = halves;
  same.push(100 * (stepMs([third]) / stepMs([second]) - 1));
  for (const { share, client } of open) {
    shares.push(share);
    clients.push(client);
  }
}

function noteTraining(notes, { losses, same, shares, clients }, what) {
  const withInterval = (name, values, must) => {
    notes.add(name, values, { unit: "%", ...must });
    const interval = medianInterval(values);
    notes.results[name].interval = interval;
    if (interval !== null)
      console.log(`  95 % interval of the median: ${interval.map((x) => x.toFixed(2)).join(" to ")} %`);
  };
  withInterval(`a step of ${what} takes longer while a page is open`, losses, { below: 1 });
  withInterval(`a step of ${what} in two halves of the same kind differs by`, same);
  const unit = "% of a core";
  notes.add(`processor time of the studio meanwhile (${what})`, shares, { unit });
  notes.add(`processor time of whoever plays the page meanwhile (${what})`, clients, { unit });
}
