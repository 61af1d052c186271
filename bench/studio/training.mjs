// What a training loses while a page of it is open: pieces of one training with and without the studio, in turns.
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { medianInterval } from "./notes.mjs";
import { openStudio, sleep, start, used } from "./process.mjs";

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
const [chartMs, detailMs] = [600, 3000];
/** Charts on a screen; others are not asked for until they are seen. */
const chartsSeen = 4;

/** A client that asks what the page of a run asks, and as often, but draws nothing: the page may be anywhere. */
export async function watchRun(studio) {
  const { metrics } = await studio.json("/api/run?name=run");
  const had = new Map();
  let isOver = false;
  let revision = 0;
  const stop = studio.listen((chunk) => {
    if (String(chunk).includes("event: rows")) revision++;
  });
  const charts = async (metric) => {
    const address = `/api/curves?run=run&metric=${metric}&axis=tokens&columns=1200${had.get(metric) ?? ""}`;
    const { text } = await studio.ask(address, { isText: true });
    const [, total] = /"total":(\d+)/.exec(text) ?? [];
    const [, generation] = /"generation":(\d+)/.exec(text) ?? [];
    had.set(metric, total === undefined ? "" : `&have=${generation}:${total}`);
  };
  const again = async (ms, ask) => {
    for (let seen = -1; !isOver; await sleep(ms)) {
      if (seen === revision) continue;
      seen = revision;
      await ask().catch(() => undefined);
    }
  };
  void again(chartMs, () => Promise.all(metrics.slice(0, chartsSeen).map(charts)));
  void again(detailMs, () => studio.ask("/api/run?name=run"));
  return () => {
    isOver = true;
    stop();
  };
}

/**
 * Pairs of pieces, one while the studio works and one while it is held (SIGSTOP); which comes first changes, so that a
 * drift of the machine counts for neither. A training of one thread leaves the other cores to the studio, as one on a
 * GPU does; from a training of all cores the studio takes what it uses. Both are measured, and the processor time that
 * the studio uses meanwhile, which is the most that it can take.
 */
export async function measureTraining(notes, root, { pairs, seconds }) {
  mkdirSync(root, { recursive: true });
  const cores = availableParallelism();
  for (const threads of cores > 1 ? [cores, 1] : [1])
    await measurePairs(notes, root, { pairs, seconds, threads, cores });
}

async function measurePairs(notes, root, { pairs, seconds, threads, cores }) {
  const dir = join(root, `threads-${threads}`);
  const file = join(root, `threads-${threads}.yaml`);
  mkdirSync(dir);
  writeFileSync(file, settings(join(dir, "run")));
  const words = ["dist/cli/main.js", "train", file, "--threads", String(threads)];
  const training = start(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
  const log = join(dir, "run", "metrics.jsonl");
  while (!existsSync(log) || readFileSync(log, "utf8").split("\n").length < 60) await sleep(200);
  const studio = await openStudio(dir);
  await studio.isRead();
  const close = await watchRun(studio);
  const piece = async (isOpen) => {
    process.kill(studio.pid, isOpen ? "SIGCONT" : "SIGSTOP");
    // What has come meanwhile is read at once, which is not what is measured.
    await sleep(500);
    const [from, cpu] = [statSync(log).size, used(studio.pid).cpuMs];
    await sleep(1000 * seconds);
    const times = stepTimes(log, from);
    const share = (used(studio.pid).cpuMs - cpu) / (10 * seconds);
    return { ms: times.reduce((sum, value) => sum + value, 0) / times.length, share };
  };
  const [losses, shares] = [[], []];
  for (let i = 0; i < pairs; i++) {
    const first = await piece(i % 2 === 0);
    const second = await piece(i % 2 !== 0);
    const [open, shut] = i % 2 === 0 ? [first, second] : [second, first];
    losses.push(100 * (open.ms / shut.ms - 1));
    shares.push(open.share);
  }
  process.kill(studio.pid, "SIGCONT");
  close();
  await studio.close();
  training.kill("SIGINT");
  await once(training, "exit");
  const what = threads === 1 ? "one thread" : `${threads} threads on ${cores} cores`;
  const name = `a step of ${what} takes longer while a page is open`;
  notes.add(name, losses, { unit: "%", below: 1 });
  const interval = medianInterval(losses);
  notes.results[name].interval = interval;
  if (interval !== null)
    console.log(`  95 % interval of the median: ${interval.map((x) => x.toFixed(2)).join(" to ")} %`);
  notes.add(`processor time of the studio meanwhile (${what})`, shares, { unit: "% of a core" });
}
