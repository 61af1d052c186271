/**
 * Checks that a study that is killed again and again ends with the results of one that is left alone:
 *
 *   node bench/soak-study.mjs [--kills 20] [--jobs 2] [--seed 1] [--write FILE]
 *
 * A tiny study (two parents, four arms, two seeds, several trainings at once) runs in a process of its own, is killed
 * (SIGKILL) after random times and begun again until it has been killed so often, then runs to its end. Losses of all
 * runs and the bytes of all models are compared with those of a study that nothing has happened to. The exit code is 1
 * where they differ.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "20" },
    jobs: { type: "string", default: "2" },
    seed: { type: "string", default: "1" },
    write: { type: "string" },
  },
});
const [kills, jobs, seed] = [values.kills, values.jobs, values.seed].map(Number);
const main = fileURLToPath(new URL("../bin/upcycle.js", import.meta.url));

const block = (steps) =>
  `{ steps: ${steps}, batch: 4, sequence: 32, lr: { peak: 1e-2, warmup: 2 }, evalEvery: 10, saveEvery: 5 }`;
const study = `
name: soak
seeds: [0, 1]
threads: 1
text: { builtin: [moby-dick], heldOut: 0.1 }
tokenizer: { vocab: 300 }
model: { hidden: 32, layers: 2, heads: 2, inner: 64 }
pretrain: ${block(40)}
continue: ${block(30)}
evaluation: { tokens: 512 }
parents: { one: {}, two: { seed: 5 } }
arms:
  dense: { kind: dense }
  moe: { kind: upcycled, recipe: E4G1T2, vary: { continue.lr.peak: [1e-2, 1e-3] } }
  scratch: { kind: scratch, like: moe-0.01 }
`;

const { randomStream } = await import("../dist/base/random.js");
const stream = randomStream(seed, "kills");
const root = mkdtempSync(join(tmpdir(), "upcycle-soak-study-"));
const file = join(root, "study.yaml");
writeFileSync(file, study);

/** Runs the study to its end, or to its death after `ms`. */
function run(dir, ms = Infinity) {
  const words = [main, "study", file, "--out", dir, "--jobs", String(jobs), "--device", "cpu", "--json"];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
  const timer = Number.isFinite(ms) ? setTimeout(() => child.kill("SIGKILL"), ms) : null;
  return new Promise((resolve, reject) => {
    child.on("close", (code, signal) => {
      timer?.unref();
      if (signal === "SIGKILL" || code === 0) resolve(signal === "SIGKILL");
      else reject(new Error(`the study ended with ${code}: ${errors}`));
    });
  });
}

/** What a study has found: losses of every measurement, and the bytes of every model by its run. */
function found(dir) {
  const result = JSON.parse(readFileSync(join(dir, "result.json"), "utf8"));
  const weights = readdirSync(dir, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("model.safetensors"))
    .sort()
    .map((name) => [name, readFileSync(join(dir, name)).toString("base64")]);
  const losses = result.arms.map(({ id, runs }) => [id, runs.map(({ points, load }) => [points, load])]);
  return JSON.stringify({ losses, parents: result.parents.map(({ points }) => points), weights });
}

try {
  const [whole, broken] = ["whole", "broken"].map((name) => join(root, name));
  const began = performance.now();
  await run(whole);
  const wholeMs = performance.now() - began;
  let done = 0;
  let attempts = 0;
  while (done < kills && attempts < 3 * kills) {
    // Late enough to get something done now and then, at any moment of the whole otherwise.
    const ms = 300 + stream.uniformAt(attempts++) * Math.max(1500, wholeMs / 4);
    if (await run(broken, ms)) done++;
    else break;
  }
  await run(broken);
  const result = {
    date: new Date().toISOString().slice(0, 10),
    cpu: cpus()[0].model,
    cores: cpus().length,
    node: process.version,
    jobs,
    kills: done,
    secondsAlone: Math.round(wholeMs / 100) / 10,
    trainings: 18,
    sameAfterKills: found(whole) === found(broken),
  };
  console.log(JSON.stringify(result, null, 2));
  if (values.write !== undefined) writeFileSync(values.write, `${JSON.stringify(result, null, 2)}\n`);
  if (!result.sameAfterKills || done < kills) process.exitCode = 1;
} finally {
  rmSync(root, { recursive: true, force: true });
}
