/**
 * `upcycle eval` on a model behind a server beside the same model here: the server's model must be made of the folder's
 * weights in float32, and see as many tokens. Samples are compared one by one: log-likelihoods to 1e-3, greedy flags,
 * texts, and metrics to the four decimals that are printed.
 *
 *   node test/external/compare-server.mjs --server ADDRESS --model FOLDER --note "PROGRAM VERSION, SETTINGS"
 *     [--count 12] [--shots 0,2] [--keep FOLDER]
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeEvaluationData } from "./evaluation-data.mjs";

const { values } = parseArgs({
  options: {
    server: { type: "string" },
    model: { type: "string" },
    note: { type: "string", default: "" },
    count: { type: "string", default: "12" },
    shots: { type: "string", default: "0,2" },
    keep: { type: "string" },
    tasks: {
      type: "string",
      default:
        "mmlu_sociology,arc_easy,hellaswag,piqa,winogrande,sciq,boolq,blimp_adjunct_island," +
        "lambada_openai,wikitext,c4,gsm8k,triviaqa,nq_open",
    },
    // A server counts the token that it generates or is asked about, so that one more stands for as many positions.
    "max-length": { type: "string" },
    "server-max-length": { type: "string" },
  },
});
if (values.server === undefined || values.model === undefined)
  throw new Error("name a server and the folder that its model was made from: --server ADDRESS --model FOLDER");
const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = values.keep ?? mkdtempSync(join(tmpdir(), "server-"));
mkdirSync(folder, { recursive: true });
const data = join(folder, "data");
writeEvaluationData(data, { count: Number(values.count) });

/** What `upcycle eval` says of a model, with the lines of each task's samples. */
function evaluate(name, model, shots, more) {
  const out = join(folder, `${name}-${shots}`);
  const args = ["eval", model, "--tasks", values.tasks, "--num-fewshot", String(shots), "--data", data, "--out", out];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, "bin/upcycle.js"), ...args, ...more, "--json"],
    { encoding: "utf8", maxBuffer: 1 << 28 },
  );
  if (status !== 0) throw new Error(`upcycle ${args.join(" ")}: ${stderr}`);
  const [{ results, files }] = JSON.parse(stdout).models;
  const samples = new Map();
  for (const file of files.samples)
    for (const line of readFileSync(file, "utf8").trim().split("\n")) {
      const sample = JSON.parse(line);
      const task = /samples_(.*?)_\d{4}-/.exec(file)?.[1] ?? file;
      samples.set(`${task} document ${sample.doc_id} ${sample.filter}`, sample);
    }
  return { results, samples };
}

const lengthOf = (name) => (values[name] === undefined ? [] : ["--max-length", values[name]]);
const kinds = {
  continuations: { count: 0, worst: 0 },
  texts: { count: 0, worst: 0 },
};
const tally = { greedy: 0, trues: 0, generated: 0, letters: 0, prompts: 0, metrics: 0 };
const problems = [];

for (const shots of values.shots.split(",")) {
  const served = evaluate("server", values.server, shots, [
    "--tokenizer",
    values.model,
    ...lengthOf("server-max-length"),
  ]);
  const here = evaluate("here", values.model, shots, ["--device", "cpu", ...lengthOf("max-length")]);
  for (const [task, expected] of Object.entries(here.results))
    for (const [key, value] of Object.entries(expected)) {
      if (!key.includes(",") || typeof value !== "number") continue;
      tally.metrics++;
      const found = served.results[task]?.[key];
      const near = key.includes("perplexity") && Math.abs(found - value) <= 1e-5 * value;
      if (!near && found?.toFixed(4) !== value.toFixed(4))
        problems.push(`metric: ${shots} shots, ${task}, ${key}: ${found} instead of ${value}`);
    }
  if (served.samples.size !== here.samples.size) problems.push(`samples: ${served.samples.size}, ${here.samples.size}`);
  for (const [name, sample] of here.samples) compareSample(`${shots} shots, ${name}`, sample, served.samples.get(name));
}

function compareSample(label, expected, found) {
  if (found === undefined) return problems.push(`sample: ${label} is missing`);
  tally.prompts++;
  if (found.prompt_hash !== expected.prompt_hash) problems.push(`prompt: ${label}`);
  const isGenerated = Object.values(expected.arguments).some(({ arg_1: settings }) => typeof settings === "object");
  const compare = isGenerated ? compareText : compareLogLikelihood;
  expected.resps.forEach(([own], i) => compare(`${label}, request ${i}`, own, found.resps[i][0]));
}

function compareText(label, expected, found) {
  tally.generated++;
  tally.letters += expected.length;
  if (found !== expected)
    problems.push(`text: ${label}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
}

function compareLogLikelihood(label, expected, found) {
  const [[value, greedy], [other, otherGreedy]] = [expected, found].map((one) =>
    Array.isArray(one) ? one : [one, null],
  );
  const kind = greedy === null ? kinds.texts : kinds.continuations;
  const difference = Math.abs(Number(other) - Number(value));
  kind.count++;
  kind.worst = Math.max(kind.worst, difference);
  if (!(difference <= 1e-3)) problems.push(`log-likelihood: ${label}: ${other} instead of ${value}`);
  if (greedy === null) return;
  tally.greedy++;
  if (String(greedy).toLowerCase() === "true") tally.trues++;
  if (String(greedy) !== String(otherGreedy)) problems.push(`greedy: ${label}: ${otherGreedy} instead of ${greedy}`);
}

const differing = (kind) => problems.filter((text) => text.startsWith(`${kind}:`)).length;
const [{ model: processor }] = cpus();
console.log(
  [
    "# upcycle eval on a model behind a server, beside the same model here",
    "",
    `${new Date().toISOString().slice(0, 10)}, ${processor}, Node ${process.versions.node}; ${values.note}.`,
    "",
    "| what | compared | differ |",
    "| --- | --- | --- |",
    `| tasks, at ${values.shots.replaceAll(",", " and ")} shots | ${values.tasks.split(",").length} | |`,
    `| prompts | ${tally.prompts} | ${differing("prompt") + differing("sample")} |`,
    ...Object.entries(kinds).map(
      ([kind, { count, worst }]) =>
        `| log-likelihoods of ${kind}; largest difference ${worst.toExponential(1)} | ${count} | ` +
        `${kind === "texts" ? "" : differing("log-likelihood")} |`,
    ),
    `| whether a continuation is the likeliest, which ${tally.trues} are | ${tally.greedy} | ${differing("greedy")} |`,
    `| generated texts, of ${tally.letters} characters | ${tally.generated} | ${differing("text")} |`,
    `| metrics and standard errors | ${tally.metrics} | ${differing("metric")} |`,
    "",
  ].join("\n"),
);
for (const text of problems.slice(0, 40)) console.log(`- ${text.slice(0, 300)}`);
if (problems.length > 0) {
  console.log(`${problems.length} problems`);
  process.exitCode = 1;
}
