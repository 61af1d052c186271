// What a training loses while a page of it is open: pieces of one training with and without the studio, in turns.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { medianInterval } from "./notes.mjs";
import { openStudio, sleep, used } from "./process.mjs";

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

/** A client that does what the page of a run does: it listens, and asks for the run's curves when it has grown. */
function watchRun(studio) {
  let isAsking = false;
  return studio.listen(async (chunk) => {
    if (isAsking || !String(chunk).includes("event: rows")) return;
    isAsking = true;
    for (const metric of ["train/loss", "eval/loss", "train/tokens_per_second", "train/grad_norm"])
      await studio.ask(`/api/curves?run=run&metric=${metric}&columns=1200`).catch(() => undefined);
    await studio.ask("/api/run?name=run").catch(() => undefined);
    isAsking = false;
  });
}

/**
 * Pairs of pieces, one with the studio and one without; which comes first changes, so that a drift of the machine counts
 * for neither. A training of one thread leaves the other cores to the studio, as a training on a GPU does; one of all
 * cores gives the studio what it takes from it. Both are measured, and the studio's own processor time, which is what
 * it can take at most.
 */
export async function measureTraining(notes, root, [pairs, seconds]) {
  mkdirSync(root, { recursive: true });
  const cores = availableParallelism();
  for (const threads of cores > 1 ? [1, cores] : [1]) {
    const dir = join(root, `threads-${threads}`);
    const file = join(root, `threads-${threads}.yaml`);
    mkdirSync(dir);
    writeFileSync(file, settings(join(dir, "run")));
    const words = ["dist/cli/main.js", "train", file, "--threads", String(threads)];
    const training = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
    const log = join(dir, "run", "metrics.jsonl");
    while (!existsSync(log) || readFileSync(log, "utf8").split("\n").length < 60) await sleep(200);
    const piece = async (isOpen) => {
      const studio = isOpen ? await openStudio(dir) : null;
      await studio?.isRead();
      const close = studio === null ? null : watchRun(studio);
      // Starting a process is not what is measured.
      await sleep(1000);
      const [from, cpu] = [statSync(log).size, studio === null ? 0 : used(studio.pid).cpuMs];
      await sleep(1000 * seconds);
      const times = stepTimes(log, from);
      const share = studio === null ? 0 : (used(studio.pid).cpuMs - cpu) / (10 * seconds);
      close?.();
      await studio?.close();
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
    training.kill("SIGINT");
    await once(training, "exit");
    const what = threads === 1 ? "one thread" : `${threads} threads on ${cores} cores`;
    notes.add(`a step of ${what} takes longer while a page is open`, losses, { unit: "%", below: 1 });
    const interval = medianInterval(losses);
    if (interval !== null) console.log(`  95 % interval of the median: ${interval.map((x) => x.toFixed(2)).join(" to ")} %`);
    notes.results[`a step of ${what} takes longer while a page is open`].interval = interval;
    notes.add(`processor time of the studio meanwhile (${what})`, shares, { unit: "% of a core" });
  }
}
