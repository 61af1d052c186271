/**
 * An evaluation that is killed again and again ends with the samples of one that was left alone, to the last bit.
 *
 *   node bench/soak-eval.mjs [--kills 20] [--count 60] [--write FILE.json]
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { clearTimeout, setTimeout } from "node:timers";
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

const alone = whole("alone");
let [kills, ends, others] = [0, 0, 0];
/** Samples whose answers the run that ended found there, for each evaluation. */
const kept = [];
while (kills < Number(values.kills)) {
  // An evaluation that has ended is compared, and another one begins.
  const out = `killed-${ends}`;
  const child = spawn(process.execPath, args(out), { stdio: "ignore" });
  const gone = new Promise((resolve) => child.on("close", (code, signal) => resolve(signal ?? code)));
  const timer = setTimeout(() => child.kill(kills % 3 === 0 ? "SIGTERM" : "SIGKILL"), Math.random() * alone.ms);
  const isKilled = (await gone) !== 0;
  clearTimeout(timer);
  if (isKilled) kills++;
  if (isKilled && kills < Number(values.kills)) continue;
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
  samplesKept: kept,
  sameAfterKills: others === 0,
};
console.log(JSON.stringify(result, null, 2));
if (values.write !== undefined) writeFileSync(values.write, `${JSON.stringify(result, null, 2)}\n`);
process.exitCode = others === 0 ? 0 : 1;
