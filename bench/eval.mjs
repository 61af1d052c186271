/**
 * Speed of `upcycle eval` beside the LM Evaluation Harness with transformers, on the same CPU and threads: five-shot
 * questions in the form of MMLU and of ARC, on a model with random weights.
 *
 *   node bench/eval.mjs --python PYTHON [--questions 1000] [--threads 2] [--out FILE.json]
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
    questions: { type: "string", default: "1000" },
    threads: { type: "string", default: "2" },
    out: { type: "string" },
  },
});
if (values.python === undefined)
  throw new Error("name a Python with lm-eval, transformers and PyTorch: --python PYTHON");
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "bench-eval-"));
const [questions, threads] = [Number(values.questions), Number(values.threads)];
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

const run = (command, args, options = {}) => {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28, ...options });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr}`);
  return stdout;
};

/** A Llama of 12 layers of width 768, as GPT-2 small has, with the tokenizer of the model that comes along. */
const model = join(folder, "model");
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
print(sum(p.numel() for p in made.parameters()))
made.save_pretrained(sys.argv[1])
for name in ["tokenizer.json", "tokenizer_config.json"]:
    shutil.copy(sys.argv[2] + "/" + name, sys.argv[1] + "/" + name)
`,
  model,
  join(root, "models/tiny"),
]);
const data = join(folder, "data");
mkdirSync(data);
writeSpeedData(data, questions);

const suites = { mmlu: "mmlu_anatomy", arc: "arc_easy" };
const request = join(folder, "request.json");
const answer = join(folder, "answer.json");
const runs = Object.values(suites).map((task) => ({ model: "m", data, tasks: [task], num_fewshot: 5 }));
const settings = { models: [{ name: "m", folder: model }], runs, threads, batch: 8, bootstrap: 0 };
writeFileSync(request, JSON.stringify(settings));
run(values.python, [join(root, "test/external/lm_eval_oracle.py"), request, answer], {
  env: { ...process.env, OMP_NUM_THREADS: String(threads) },
  stdio: ["ignore", "ignore", "pipe"],
});
const theirs = JSON.parse(readFileSync(answer, "utf8"));
const results = Object.entries(suites).map(([suite, task], i) => {
  const args = ["eval", model, "--tasks", task, "--num-fewshot", "5", "--data", data, "--device", "cpu", "--json"];
  const started = performance.now();
  const out = run(process.execPath, [
    join(root, "bin/upcycle.js"),
    ...[...args, "--threads", String(threads), "--bootstrap", "0", "--out", join(folder, "out")],
  ]);
  const wall = (performance.now() - started) / 1000;
  const [{ results: ours }] = JSON.parse(out).models;
  const expected = theirs.runs[i].results[task];
  return {
    suite,
    questions,
    ours: { seconds: wall, acc: ours[task]["acc,none"] },
    // Loading the model and starting Python are not in the harness's time; they are in ours.
    harness: { seconds: theirs.runs[i].seconds, acc: expected["acc,none"] },
    ratio: theirs.runs[i].seconds / wall,
  };
});
const record = {
  date: new Date().toISOString().slice(0, 10),
  processor: cpus()[0].model,
  threads,
  node: process.versions.node,
  ...theirs.versions,
  model: "Llama, 12 layers, width 768, vocabulary 16384, random weights",
  results,
};
console.log(JSON.stringify(record, null, 2));
if (values.out !== undefined) writeFileSync(values.out, `${JSON.stringify(record, null, 2)}\n`);
