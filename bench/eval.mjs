/**
 * Speed of `upcycle eval` beside the LM Evaluation Harness with transformers, on the same processor or the same GPU:
 * five-shot questions in the form of MMLU and of ARC, on a model of 98 million parameters with random weights, both in
 * float32.
 *
 *   node bench/eval.mjs --python PYTHON [--device cpu|cuda] [--questions 1000] [--slice 1000] [--threads 2]
 *     [--batch 8,32] [--trial 24] [--seconds S] [--keep FOLDER] [--hold FILE] [--out FILE.json]
 *
 * The questions are asked in slices, ours and the harness's by turns, so that what else the machine does falls on both.
 * The FILE of `--out` is written after each slice. The same command with the same FILE goes on there, `--seconds`
 * begins no slice that would end later, and none begins while the FILE of `--hold` exists: a machine that has other
 * work too is measured while it has none. What is compared are sums over the slices that both have answered.
 *
 * The harness's process stays, with its model in memory, and counts from its prompts on, without the seconds in which
 * it describes the machine. It takes that size of a batch with which the first questions of each suite (`--trial`) were
 * fastest. Ours starts anew for each slice: `seconds` is the time of the whole command, `evaluation` that from its
 * prompts on, in which weights are still read. `ratio` is the harness's evaluation to our whole command,
 * `ratioOfEvaluations` like to like, and `ratioOfCommands` that of both commands from start to end, with one start of
 * the harness (`opening`: from the process's start to the model in memory, with files that the system has read before).
 * A first run of 8 questions, whose time does not count, lets either compile what it compiles. Model and documents are
 * kept in the FOLDER of `--keep`.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual, parseArgs } from "node:util";
import { writeSpeedData } from "../test/external/evaluation-data.mjs";

const begun = performance.now();
const { values } = parseArgs({
  options: {
    python: { type: "string" },
    device: { type: "string", default: "cpu" },
    questions: { type: "string", default: "1000" },
    slice: { type: "string" },
    threads: { type: "string", default: "2" },
    batch: { type: "string", default: "8" },
    trial: { type: "string", default: "24" },
    seconds: { type: "string", default: "Infinity" },
    keep: { type: "string" },
    hold: { type: "string" },
    out: { type: "string" },
  },
});
if (values.python === undefined)
  throw new Error("name a Python with lm-eval, transformers and PyTorch: --python PYTHON");
if (!["cpu", "cuda"].includes(values.device)) throw new Error("--device cpu or --device cuda");
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = values.keep ?? mkdtempSync(join(tmpdir(), "bench-eval-"));
mkdirSync(folder, { recursive: true });
if (values.keep === undefined) process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
const { device } = values;
const [questions, threads, trial, limit] = ["questions", "threads", "trial", "seconds"].map((key) =>
  Number(values[key]),
);
const slice = Number(values.slice ?? questions);
const batches = values.batch.split(",").map(Number);
for (const count of [questions, threads, trial, slice, ...batches])
  if (!(Number.isInteger(count) && count > 0)) throw new Error("counts are whole numbers above 0");
if (questions % slice !== 0) throw new Error(`${questions} questions are no whole number of slices of ${slice}`);
const suites = { mmlu: "mmlu_anatomy", arc: "arc_easy" };

const run = (command, args) => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
};

/** A Llama of 12 layers of width 768, as GPT-2 small has, with the tokenizer of the model that comes along. */
const model = join(folder, "model");
const [parameters, gpu] = run(values.python, [
  "-c",
  `
import sys, torch, shutil
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
config = LlamaConfig(vocab_size=16384, hidden_size=768, intermediate_size=2048, num_hidden_layers=12,
    num_attention_heads=12, num_key_value_heads=12, max_position_embeddings=2048, tie_word_embeddings=True,
    bos_token_id=None, eos_token_id=0)
made = LlamaForCausalLM(config)
made.save_pretrained(sys.argv[1])
for name in ["tokenizer.json", "tokenizer_config.json"]:
    shutil.copy(sys.argv[2] + "/" + name, sys.argv[1] + "/" + name)
print(sum(p.numel() for p in made.parameters()))
print(torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
`,
  model,
  join(root, "models/tiny"),
])
  .trim()
  .split("\n")
  .slice(-2);

/** The documents of every slice, with the examples of all. */
const data = join(folder, "data");
writeSpeedData(data, questions);
const slices = Array.from({ length: questions / slice }, (_, index) => {
  const own = join(folder, `data-${index}`);
  /** @type {[string, string[]][]} */
  const sets = [
    ["cais--mmlu/anatomy", ["dev"]],
    ["allenai--ai2_arc/ARC-Easy", ["train", "validation"]],
  ];
  for (const [name, splits] of sets) {
    mkdirSync(join(own, name), { recursive: true });
    for (const split of splits)
      writeFileSync(join(own, name, `${split}.jsonl`), readFileSync(join(data, name, `${split}.jsonl`)));
    const documents = readFileSync(join(data, name, "test.jsonl"), "utf8")
      .trimEnd()
      .split("\n");
    const part = documents.slice(index * slice, (index + 1) * slice);
    writeFileSync(join(own, name, "test.jsonl"), part.map((line) => `${line}\n`).join(""));
  }
  return own;
});

/** Starts the harness with its model in memory: `{ versions, opening }`, with `ask(run)` and `close()`. */
async function openHarness() {
  const request = join(folder, "request.json");
  const models = [{ name: "m", folder: model }];
  writeFileSync(request, JSON.stringify({ models, runs: [], threads, device, bootstrap: 0, samples: false }));
  const started = performance.now();
  const child = spawn(values.python, [join(root, "test/external/lm_eval_oracle.py"), request, "-"], {
    env: { ...process.env, OMP_NUM_THREADS: String(threads) },
    stdio: ["pipe", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text) => (errors = (errors + text).slice(-4000)));
  const ended = new Promise((resolve) => child.on("close", resolve));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`the harness ended with ${await ended}: ${errors}`);
    return JSON.parse(value);
  };
  const { versions } = await next();
  return {
    versions,
    opening: (performance.now() - started) / 1000,
    ask(task, from, batch, some) {
      const own = { model: "m", data: from, tasks: [task], num_fewshot: 5, batch, limit: some };
      child.stdin.write(`${JSON.stringify(own)}\n`);
      return next();
    },
    close() {
      child.stdin.end();
      return ended;
    },
  };
}

/** One of our runs, from nothing. */
function ourRun(task, from, some) {
  const args = ["eval", model, "--tasks", task, "--num-fewshot", "5", "--data", from, "--device", device, "--json"];
  const out = mkdtempSync(join(folder, "out-"));
  const started = performance.now();
  const text = run(process.execPath, [
    join(root, "bin/upcycle.js"),
    ...[...args, "--threads", String(threads), "--bootstrap", "0", "--out", out],
    ...(some === undefined ? [] : ["--limit", String(some)]),
  ]);
  const seconds = (performance.now() - started) / 1000;
  const [{ results, seconds: evaluation }] = JSON.parse(text).models;
  return { seconds, evaluation, correct: Math.round(results[task]["acc,none"] * (some ?? slice)) };
}

/** What a record was measured with: slices of another are not added to it. */
const setting = {
  device: device === "cuda" ? gpu : cpus()[0].model,
  threads,
  node: process.versions.node,
  model: `Llama, 12 layers, width 768, vocabulary 16384, ${parameters} parameters, random weights, float32`,
  questionsOfSlice: slice,
};
const before = values.out !== undefined && existsSync(values.out) ? JSON.parse(readFileSync(values.out, "utf8")) : null;
for (const [key, value] of Object.entries(setting))
  if (before !== null && !isDeepStrictEqual(before[key], value))
    throw new Error(`${values.out} was measured with ${key} ${before[key]}, not ${value}: name another --out`);
const measured = before?.slices ?? [];

const sum = (list) => list.reduce((total, value) => total + value, 0);
/** Sums over the slices of one suite. */
function resultOf(suite, opening) {
  const own = measured.filter((one) => one.suite === suite);
  const [seconds, evaluation, harness] = [
    own.map(({ ours }) => ours.seconds),
    own.map(({ ours }) => ours.evaluation),
    own.map((one) => one.harness.seconds),
  ].map(sum);
  const described = sum(own.map((one) => one.harness.environment)) / own.length;
  const acc = (list) => sum(list) / (own.length * slice);
  return {
    suite,
    questions: own.length * slice,
    ours: { seconds, evaluation, acc: acc(own.map(({ ours }) => ours.correct)) },
    harness: {
      ...{ seconds: harness, opening, environment: described, batch: own[0].harness.batch },
      acc: acc(own.map((one) => one.harness.correct)),
    },
    ratio: harness / seconds,
    ratioOfEvaluations: harness / evaluation,
    ratioOfCommands: (opening + harness + described) / seconds,
  };
}

function writeRecord(versions, opening) {
  const done = Object.keys(suites).filter((suite) => measured.some((one) => one.suite === suite));
  const results = done.map((suite) => resultOf(suite, opening));
  const record = { date: new Date().toISOString().slice(0, 10), ...setting, ...versions, results, slices: measured };
  if (values.out !== undefined) {
    writeFileSync(`${values.out}.part`, `${JSON.stringify(record, null, 2)}\n`);
    renameSync(`${values.out}.part`, values.out);
  }
  return record;
}

// The harness's first start reads its files from the disk, while ours gets warm: neither counts.
const first = openHarness();
for (const task of Object.values(suites)) ourRun(task, slices[0], 8);
await (await first).close();
const harness = await openHarness();
const batchOf = {};
for (const [suite, task] of Object.entries(suites)) {
  await harness.ask(task, slices[0], batches[0], 8);
  const trials = [];
  for (const batch of batches.length > 1 ? batches : [])
    trials.push({ batch, ...(await harness.ask(task, slices[0], batch, Math.min(trial, slice))) });
  const { batch } = trials.reduce(
    (best, one) => (one.seconds < best.seconds ? one : best),
    trials[0] ?? { batch: batches[0] },
  );
  batchOf[suite] = before?.results.find((one) => one.suite === suite)?.harness.batch ?? batch;
  const tried = trials.map((one) => `${one.batch}: ${one.seconds.toFixed(1)} s`).join(", ");
  console.error(`${suite}: the harness with batches of ${batchOf[suite]} (${tried})`);
}
let record = null;
const took = {};
for (const [index, from] of slices.entries())
  for (const [suite, task] of Object.entries(suites)) {
    if (measured.some((one) => one.suite === suite && one.slice === index)) continue;
    if (values.hold !== undefined && existsSync(values.hold)) {
      console.error(`held by ${values.hold}`);
      while (existsSync(values.hold)) await setTimeout(500);
    }
    const started = performance.now();
    if ((started - begun) / 1000 + (took[suite] ?? 0) > limit) continue;
    const ours = ourRun(task, from);
    const { seconds, environment, batch, results } = await harness.ask(task, from, batchOf[suite]);
    took[suite] = (performance.now() - started) / 1000;
    const correct = Math.round(results[task]["acc,none"] * slice);
    measured.push({ suite, slice: index, ours, harness: { seconds, environment, batch, correct } });
    record = writeRecord(harness.versions, harness.opening);
    console.error(`${suite} ${index}: ours ${ours.seconds.toFixed(1)} s, the harness ${seconds.toFixed(1)} s`);
  }
await harness.close();
console.log(JSON.stringify(record ?? before, null, 2));
