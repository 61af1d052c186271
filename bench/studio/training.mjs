// What a training loses while a page of it is open: pieces of one training with and without the studio, in turns.
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { medianInterval } from "./notes.mjs";
import { openStudio, processorMs, processorTimes, sleep, start, untilTrue } from "./process.mjs";

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
const settleSeconds = 0.15;
/**
 * Whether the studio works in each piece of a pair; of the next pair the other way round. Neither a machine that
 * becomes evenly faster or slower nor one that does so ever more counts for one of the two.
 */
const order = [true, false, false, true, false, true, true, false];
/** Pieces that are compared for control: of both kinds, and as early as the others. */
const controls = [true, true, false, false, false, false, true, true];

/**
 * What a training loses: pairs of so many seconds while the studio works and while it is held (SIGSTOP), each cut into
 * four pieces. A piece is short, since a machine changes by more than what is looked for, but not from one second to
 * the next. Times of steps say what is lost; processor time of a step, and for how long threads of the training wait
 * for a processor, say how, and are disturbed by less. Pieces that differ in nothing are compared as well: they say how
 * much such a comparison differs by itself. A training of one thread leaves the other cores to the studio, as one on a
 * GPU does; from a training of all cores the studio takes what it uses.
 */
export async function measureTraining(notes, root, { pairs, seconds, threads }) {
  const cores = availableParallelism();
  const dir = join(root, "runs");
  const file = join(root, "training.yaml");
  mkdirSync(dir, { recursive: true });
  writeFileSync(file, settings(join(dir, "run")));
  const words = ["dist/cli/main.js", "train", file, "--threads", String(threads)];
  const training = start(process.execPath, words, { stdio: "ignore" });
  const log = join(dir, "run", "metrics.jsonl");
  const isUnderWay = () => existsSync(log) && readFileSync(log, "utf8").split("\n").length >= 60;
  await untilTrue("the training's first steps", training, isUnderWay);
  const studio = await openStudio(dir);
  await studio.isRead();
  const close = await watchRun(studio);
  const measure = (piece) => measured({ studio, training, log }, piece);
  await measure(2);
  // As it is where nobody holds it: pieces have to be like this.
  const free = await measure(10);
  const found = [];
  for (let i = 0; i < pairs; i++) {
    const pieces = [];
    for (const isFirst of order) {
      const isOpen = isFirst === (i % 2 === 0);
      process.kill(studio.pid, isOpen ? "SIGCONT" : "SIGSTOP");
      await sleep(1000 * settleSeconds);
      pieces.push({ isOpen, ...(await measure(seconds / 4)) });
    }
    found.push(pieces);
  }
  process.kill(studio.pid, "SIGCONT");
  close();
  await studio.close();
  training.kill("SIGINT");
  await once(training, "exit");
  noteTraining(notes, { free, found }, threads === 1 ? "one thread" : `${threads} threads on ${cores} cores`);
}

/** What a piece of so many seconds has: milliseconds of steps, of processors and of waiting for them. */
async function measured({ studio, training, log }, seconds) {
  const times = () => ({
    at: performance.now(),
    studio: processorMs(studio.pid),
    ...processorTimes(training.pid),
    client: (({ user, system }) => (user + system) / 1000)(process.cpuUsage()),
  });
  const [from, before] = [statSync(log).size, times()];
  await sleep(1000 * seconds);
  const after = times();
  const steps = stepTimes(log, from);
  const since = Object.fromEntries(Object.keys(after).map((key) => [key, after[key] - before[key]]));
  return { steps: steps.length, stepMs: steps.reduce((sum, value) => sum + value, 0), ...since };
}

const sum = (pieces, of) => pieces.reduce((total, piece) => total + of(piece), 0);
/** Milliseconds of a step, and those of processors in a step. */
const stepMs = (pieces) => sum(pieces, (piece) => piece.stepMs) / sum(pieces, ({ steps }) => steps);
const stepCpu = (pieces) => (stepMs(pieces) * sum(pieces, ({ used }) => used)) / sum(pieces, ({ at }) => at);
/** Percent of the time for which threads wait for a processor, all of them together. */
const waiting = (pieces) => (100 * sum(pieces, ({ waited }) => waited)) / sum(pieces, ({ at }) => at);
const percentMore = (of) => (some, others) => 100 * (of(some) / of(others) - 1);

function noteTraining(notes, { free, found }, what) {
  const open = found.map((pieces) => pieces.filter(({ isOpen }) => isOpen));
  const held = found.map((pieces) => pieces.filter(({ isOpen }) => !isOpen));
  const compared = (compare) => open.map((pieces, i) => compare(pieces, held[i]));
  const withInterval = (name, values, more) => {
    notes.add(name, values, { unit: "%", ...more });
    const interval = medianInterval(values);
    notes.results[name].interval = interval;
    if (interval !== null)
      console.log(`  95 % interval of the median: ${interval.map((x) => x.toFixed(2)).join(" to ")} %`);
  };
  withInterval(`a step of ${what} takes longer while a page is open`, compared(percentMore(stepMs)), { below: 1 });
  withInterval(`a step of ${what} takes more processor time while a page is open`, compared(percentMore(stepCpu)));
  const longer = compared((some, others) => waiting(some) - waiting(others));
  withInterval(`${what} wait for a processor for more of the time while a page is open`, longer);
  const control = found.map((pieces) =>
    percentMore(stepMs)(
      pieces.filter((_, i) => controls[i]),
      pieces.filter((_, i) => !controls[i]),
    ),
  );
  withInterval(`control: a step of ${what} in pieces of both kinds differs by`, control);
  const share = (key) => (pieces) => (100 * sum(pieces, (piece) => piece[key])) / sum(pieces, ({ at }) => at);
  const unit = "% of a core";
  notes.add(`processor time of the studio meanwhile (${what})`, open.map(share("studio")), { unit });
  notes.add(`processor time of the studio that is never held (${what})`, share("studio")([free]), { unit });
  notes.add(`processor time of whoever plays the page meanwhile (${what})`, open.map(share("client")), { unit });
}
