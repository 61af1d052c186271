/**
 * Speed of `upcycle eval` beside the LM Evaluation Harness with transformers, on the same processor or the same GPU:
 * five-shot questions in the form of MMLU and of ARC, on a model of 106 million parameters with random weights, both in
 * float32.
 *
 *   node bench/eval.mjs --python PYTHON [--device cpu|cuda] [--questions 1000] [--threads 2] [--batch 8,32]
 *     [--rounds 1] [--out FILE.json]
 *
 * The harness's time is that of its evaluation, with its model in memory; where several sizes of a batch are named,
 * that of the fastest. Ours is that of the whole command, from its start to its end, and beside it that of the
 * evaluation from its prompts on, in which weights are still read. A first round of 8 questions, whose time does not
 * count, lets either compile what it compiles.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeSpeedData } from "../test/external/evaluation-data.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    device: { type: "string", default: "cpu" },
    questions: { type: "string", default: "1000" },
    threads: { type: "string", default: "2" },
    batch: { type: "string", default: "8" },
    rounds: { type: "string", default: "1" },
    out: { type: "string" },
  },
});
if (values.python === undefined)
  throw new Error("name a Python with lm-eval, transformers and PyTorch: --python PYTHON");
if (!["cpu", "cuda"].includes(values.device)) throw new Error("--device cpu or --device cuda");
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bench-eval-"));
const { device } = values;
const [questions, threads, rounds] = [Number(values.questions), Number(values.threads), Number(values.rounds)];
const batches = values.batch.split(",").map(Number);
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

const run = (command, args, options = {}) => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
};

/** A Llama of 12 layers of width 768, as GPT-2 small has, with the tokenizer of the model that comes along. */
const model = join(folder, "model");
const parameters = Number(
  run(values.python, [
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
`,
    model,
    join(root, "models/tiny"),
  ])
    .trim()
    .split("\n")
    .at(-1),
);
const data = join(folder, "data");
mkdirSync(data);
writeSpeedData(data, questions);
const suites = { mmlu: "mmlu_anatomy", arc: "arc_easy" };

/** The harness's runs of both suites with each size of a batch, and one to get warm. */
function theirRuns() {
  const [request, answer] = [join(folder, "request.json"), join(folder, "answer.json")];
  const common = { model: "m", data, num_fewshot: 5 };
  const tasks = Object.values(suites);
  const runs = [
    ...tasks.map((task) => ({ ...common, tasks: [task], batch: batches[0], limit: 8 })),
    ...batches.flatMap((batch) => tasks.map((task) => ({ ...common, tasks: [task], batch }))),
  ];
  const models = [{ name: "m", folder: model }];
  const settings = { models, runs, threads, device, bootstrap: 0, samples: false };
  writeFileSync(request, JSON.stringify(settings));
  run(values.python, [join(root, "test/external/lm_eval_oracle.py"), request, answer], {
    env: { ...process.env, OMP_NUM_THREADS: String(threads) },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const { runs: done, versions } = JSON.parse(readFileSync(answer, "utf8"));
  return { versions, runs: done.slice(tasks.length) };
}

let outs = 0;
/** One of our runs, from nothing. */
function ourRun(task, limit) {
  const args = ["eval", model, "--tasks", task, "--num-fewshot", "5", "--data", data, "--device", device, "--json"];
  const out = join(folder, `out-${outs++}`);
  const started = performance.now();
  const text = run(process.execPath, [
    join(root, "bin/upcycle.js"),
    ...[...args, "--threads", String(threads), "--bootstrap", "0", "--out", out],
    ...(limit === undefined ? [] : ["--limit", String(limit)]),
  ]);
  const seconds = (performance.now() - started) / 1000;
  const [{ results, seconds: evaluation }] = JSON.parse(text).models;
  return { seconds, evaluation, acc: results[task]["acc,none"] };
}

const fastest = (runs) => runs.reduce((best, one) => (one.seconds < best.seconds ? one : best));
for (const task of Object.values(suites)) ourRun(task, 8);
const [theirs, ours] = [[], []];
let versions = {};
// Rounds alternate, so that what else the machine does falls on both.
for (let round = 0; round < rounds; round++) {
  for (const [suite, task] of Object.entries(suites)) ours.push({ suite, ...ourRun(task) });
  const { runs, versions: own } = theirRuns();
  theirs.push(...runs);
  versions = own;
}
const results = Object.entries(suites).map(([suite, task]) => {
  const harness = fastest(theirs.filter(({ tasks }) => tasks[0] === task));
  const own = fastest(ours.filter((one) => one.suite === suite));
  return {
    suite,
    questions,
    ours: { seconds: own.seconds, evaluation: own.evaluation, acc: own.acc },
    harness: { seconds: harness.seconds, batch: harness.batch, acc: harness.results[task]["acc,none"] },
    ratio: harness.seconds / own.seconds,
    ratioOfEvaluations: harness.seconds / own.evaluation,
  };
});
const gpu =
  device === "cuda"
    ? run(values.python, ["-c", "import torch; print(torch.cuda.get_device_name())"]).trim()
    : undefined;
const record = {
  date: new Date().toISOString().slice(0, 10),
  device: gpu ?? cpus()[0].model,
  threads,
  rounds,
  node: process.versions.node,
  ...versions,
  model: `Llama, 12 layers, width 768, vocabulary 16384, ${parameters} parameters, random weights, float32`,
  results,
};
console.log(JSON.stringify(record, null, 2));
if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(record, null, 2)}\n`);
