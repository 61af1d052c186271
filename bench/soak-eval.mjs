/**
 * An evaluation that is killed again and again ends with the samples of one that was left alone, to the last bit.
 *
 *   node bench/soak-eval.mjs [--kills 20] [--count 60] [--write FILE.json]
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join, sep } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeEvaluationData } from "../test/external/evaluation-data.mjs";

const { values } = parseArgs({
  options: {
    kills: { type: "string", default: "20" },
    count: { type: "string", default: "60" },
    write: { type: "string" },
  },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "soak-eval-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
writeEvaluationData(join(folder, "data"), { count: Number(values.count) });
const tasks = "arc_easy,hellaswag,lambada_openai,wikitext,triviaqa,mmlu_social_sciences";
const args = (out) => [
  join(root, "bin/upcycle.js"),
  ...["eval", join(root, "models/tiny"), "--tasks", tasks, "--num-fewshot", "3", "--data", join(folder, "data")],
  ...["--device", "cpu", "--threads", "1", "--bootstrap", "1000", "--json", "--out", join(folder, out)],
];

/** Results and samples of a run to its end. */
function whole(out) {
  const started = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, args(out), { encoding: "utf8", maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(stderr);
  const [{ results, files, knownSamples }] = JSON.parse(stdout).models;
  const samples = files.samples.map((file) => readFileSync(file, "utf8"));
  return { ms: performance.now() - started, results: JSON.stringify(results), samples, knownSamples };
}

/** Bytes of the answers that an evaluation has written so far. */
function answered(out) {
  const place = join(folder, out);
  if (!existsSync(place)) return 0;
  return readdirSync(place, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".jsonl") && name.split(sep).includes("answers"))
    .reduce((sum, name) => sum + statSync(join(place, name)).size, 0);
}

/** Starts an evaluation and kills it: some early, others where it has written a random share of what is left. */
async function killed(out, signal) {
  const before = answered(out);
  const share = Math.random() * 1.2 - 0.2;
  const enough = share < 0 ? Infinity : before + share * (all - before);
  const late = performance.now() + (share < 0 ? Math.random() * 1500 : Infinity);
  const child = spawn(process.execPath, args(out), { stdio: "ignore" });
  let isRunning = true;
  const gone = new Promise((resolve) => child.on("close", (code, by) => resolve(by ?? code)));
  gone.then(() => (isRunning = false));
  while (isRunning && performance.now() < late && answered(out) < enough) await setTimeout(5);
  child.kill(signal);
  return (await gone) !== 0;
}

const alone = whole("alone");
const all = answered("alone");
let [kills, ends, others] = [0, 0, 0];
/** Of every evaluation, the samples whose answers its last run found there. */
const kept = [];
while (kills < Number(values.kills)) {
  const out = `killed-${ends}`;
  const isKilled = await killed(out, kills % 3 === 0 ? "SIGTERM" : "SIGKILL");
  if (isKilled) kills++;
  // One that has ended, or was killed three times, goes on to its end and is compared, and another one begins.
  if (isKilled && kills % 3 !== 0 && kills < Number(values.kills)) continue;
  const resumed = whole(out);
  ends++;
  kept.push(resumed.knownSamples);
  if (resumed.results !== alone.results || resumed.samples.join() !== alone.samples.join()) others++;
}
const result = {
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus()[0].model,
  cores: cpus().length,
  node: process.version,
  tasks,
  kills,
  secondsAlone: Math.round(alone.ms / 100) / 10,
  evaluations: ends,
  samples: alone.samples.reduce((sum, text) => sum + text.trimEnd().split("\n").length, 0),
  samplesKept: kept,
  sameAfterKills: others === 0,
};
console.log(JSON.stringify(result, null, 2));
if (values.write !== undefined) writeFileSync(values.write, `${JSON.stringify(result, null, 2)}\n`);
process.exitCode = others === 0 ? 0 : 1;
