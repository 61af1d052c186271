/**
 * `upcycle eval` beside the LM Evaluation Harness: the same models, tasks and documents. Our task files are those that
 * come along, the harness's are its own; prompts, log-likelihoods, answers, metrics and standard errors must be equal.
 * The harness runs in float32, and once more in float64, which says how far either is from exact arithmetic.
 * Log-likelihoods must be equal to 1e-4. Those of whole texts, which the harness adds up in float32, are so large that
 * neighbouring float32 numbers lie further apart than that: they must be equal to two units of its last place.
 *
 *   node test/external/compare-evaluations.mjs --python PYTHON [--count 24] [--keep FOLDER] [--models tiny,dense-llama]
 *     [--device cpu|cuda]
 */
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeEvaluationData } from "./evaluation-data.mjs";

const { values } = parseArgs({
  options: {
    python: { type: "string" },
    count: { type: "string", default: "24" },
    keep: { type: "string" },
    models: { type: "string" },
    device: { type: "string", default: "cpu" },
  },
});
if (values.python === undefined) throw new Error("name a Python with lm-eval: --python PYTHON");
const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = values.keep ?? mkdtempSync(join(tmpdir(), "evaluations-"));
mkdirSync(folder, { recursive: true });
const count = Number(values.count);

/** One character is one token, so that golden models of 96 words read text; the last two are EOS and unknown. */
function writeCharacterTokenizer(place, positions, { bos }) {
  const characters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(32 + i));
  const vocab = Object.fromEntries([...characters, "<s>", "~"].map((token, id) => [token, id]));
  const special = { id: 94, content: "<s>", special: true };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{ ...special, ...flags }],
    normalizer: null,
    pre_tokenizer: null,
    post_processor: bos
      ? {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
          pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 1 } }],
          special_tokens: { "<s>": { id: "<s>", ids: [94], tokens: ["<s>"] } },
        }
      : null,
    decoder: { type: "Fuse" },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: "~",
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges: [],
    },
  };
  writeFileSync(join(place, "tokenizer.json"), JSON.stringify(tokenizer));
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    model_max_length: positions,
    clean_up_tokenization_spaces: false,
    bos_token: bos ? "<s>" : null,
    eos_token: "<s>",
    pad_token: "<s>",
    unk_token: null,
  };
  writeFileSync(join(place, "tokenizer_config.json"), JSON.stringify(config));
}

const models = [{ name: "tiny", folder: join(root, "models/tiny") }];
for (const [family, bos] of [
  ["dense/llama", true],
  ["dense/gpt2", false],
  ["moe/mixtral", false],
]) {
  const place = join(folder, family.replace("/", "-"));
  cpSync(join(root, "test/golden", family), place, { recursive: true });
  writeCharacterTokenizer(place, 128, { bos });
  models.push({ name: family.replace("/", "-"), folder: place });
}
// Answers of MMLU-Pro may have 2,048 tokens, more than the model has positions.
const long = join(folder, "tiny-long");
cpSync(join(root, "models/tiny"), long, { recursive: true });
const longConfig = JSON.parse(readFileSync(join(long, "config.json"), "utf8"));
writeFileSync(join(long, "config.json"), JSON.stringify({ ...longConfig, max_position_embeddings: 4096 }));
models.push({ name: "tiny-long", folder: long });

/** Templates as instruction-tuned models have them; the second knows no system message. */
const templates = {
  "tiny-chat":
    "{%- for message in messages %}\n{{- '<|' + message['role'] + '|>\\n' + message['content'] | trim + '\\n' }}\n" +
    "{%- endfor %}\n{%- if add_generation_prompt %}\n{{- '<|assistant|>\\n' }}\n{%- endif %}\n",
  "tiny-alternating":
    "{{ eos_token }}{% for m in messages %}" +
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" +
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}" +
    "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}" +
    "{% else %}{{ m.content + eos_token }}{% endif %}" +
    "{% endfor %}",
};
for (const [name, template] of Object.entries(templates)) {
  const place = join(folder, name);
  cpSync(join(root, "models/tiny"), place, { recursive: true });
  const file = join(place, "tokenizer_config.json");
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), chat_template: template }));
  models.push({ name, folder: place });
}

if (values.models !== undefined) {
  const wanted = values.models.split(",");
  models.splice(0, models.length, ...models.filter(({ name }) => wanted.includes(name)));
}

const choice = [
  "mmlu_social_sciences",
  "arc_easy",
  "arc_challenge",
  "hellaswag",
  "piqa",
  "winogrande",
  "openbookqa",
  "sciq",
  "boolq",
];
const others = ["blimp_adjunct_island", "blimp_wh_island", "lambada_openai", "wikitext", "c4", "paloma_c4_en"];
const generated = ["gsm8k", "triviaqa", "nq_open"];
// A continuation must fit the model, and golden models see 128 characters.
writeEvaluationData(join(folder, "data-tiny"), { count });
writeEvaluationData(join(folder, "data-golden"), { count, ascii: true, longest: 75, seed: 2 });
const dataOf = (name) => join(folder, name.startsWith("tiny") ? "data-tiny" : "data-golden");
const tasksOf = {
  tiny: [...choice, ...others, ...generated],
  "tiny-long": ["mmlu_pro_biology", "mmlu_pro_computer_science"],
  "tiny-chat": ["mmlu_sociology", "arc_easy", "winogrande", "boolq", "lambada_openai", "gsm8k"],
  "tiny-alternating": ["mmlu_sociology", "arc_easy", "winogrande", "triviaqa"],
};
const runs = models.flatMap(({ name }) =>
  [0, 5].map((shots) => ({
    model: name,
    data: dataOf(name),
    tasks: tasksOf[name] ?? [...choice, ...others],
    num_fewshot: shots,
    ...(templates[name] !== undefined && { chat: true, multiturn: shots === 5, system: "Answer well." }),
  })),
);

/** What the harness says, with its models in a precision; kept in the folder, since it takes minutes. */
function harness(dtype, asked) {
  const [request, answer] = ["request", "lm-eval"].map((name) => join(folder, `${name}-${dtype}.json`));
  writeFileSync(request, JSON.stringify({ models, runs: asked, threads: 1, batch: 8, device: values.device, dtype }));
  if (!existsSync(answer)) {
    const { status } = spawnSync(values.python, [join(root, "test/external/lm_eval_oracle.py"), request, answer], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, DISABLE_MULTIPROC: "1" },
    });
    if (status !== 0) throw new Error(`the harness ended with ${status}`);
  }
  return JSON.parse(readFileSync(answer, "utf8"));
}
const theirs = harness("float32", runs);
const asked = runs.filter(({ model }) => model !== "tiny-long");
const inFloat64 = harness(
  "float64",
  asked.map((run) => ({ ...run, tasks: run.tasks.filter((task) => !generated.includes(task)) })),
);
const exact = new Map(
  inFloat64.runs.flatMap(({ model, num_fewshot: shots, samples }) =>
    Object.entries(samples).flatMap(([task, own]) =>
      own.map((sample) => [`${model} ${shots} ${task} ${sample.doc_id}`, sample.resps.map(([one]) => one)]),
    ),
  ),
);

/** A number as the harness's table prints it. */
const printed = (value) => (typeof value === "number" ? value.toFixed(4) : String(value));
/**
 * Perplexities are exponentials of sums that the harness has in float32, with some 7 digits; where models are as bad as
 * these, the four decimals that are printed are beyond them.
 */
const isEqual = (key, found, expected) =>
  printed(found) === printed(expected) ||
  (key.includes("perplexity") && Math.abs(found - expected) <= 1e-5 * Math.abs(expected));
const tally = { prompts: 0, texts: 0, metrics: 0 };
/**
 * Perplexities apart by their models: golden models of random weights reach 1e16. `ours` and `theirs` are the largest
 * shares by which either is off what the harness says in float64.
 */
const perplexities = Object.fromEntries(
  ["trained", "random"].map((kind) => [kind, { count: 0, differ: 0, off64: 0, theirs64: 0, ours: 0, theirs: 0 }]),
);
const differing = [];
const results64 = new Map(
  inFloat64.runs.flatMap(({ model, num_fewshot: shots, results }) =>
    Object.entries(results).flatMap(([task, own]) =>
      Object.entries(own).map(([key, value]) => [`${model} ${shots} ${task} ${key}`, value]),
    ),
  ),
);

/** Counts a perplexity, or its standard error, by the four decimals that are printed. */
function comparePerplexity(run, task, key, found, value) {
  const kind = perplexities[run.model.startsWith("tiny") ? "trained" : "random"];
  const truth = results64.get(`${run.model} ${run.num_fewshot} ${task} ${key}`);
  const differs = printed(found) !== printed(value);
  kind.count++;
  if (differs) kind.differ++;
  if (printed(found) !== printed(truth)) kind.off64++;
  if (printed(value) !== printed(truth)) kind.theirs64++;
  const share = (one) => (truth === 0 ? 0 : Math.abs(one - truth) / Math.abs(truth));
  if (typeof truth === "number") {
    kind.ours = Math.max(kind.ours, share(found));
    kind.theirs = Math.max(kind.theirs, share(value));
  }
  if (differs && run.model.startsWith("tiny"))
    differing.push(
      `| ${run.model}, ${run.num_fewshot} shots | ${task} ${key.split(",")[0]} | ` +
        `${[found, value, truth].map(printed).join(" | ")} |`,
    );
}
const kinds = {
  continuation: { count: 0, differ: 0, worst: 0, units: 0, ours: 0, theirs: 0 },
  text: { count: 0, differ: 0, worst: 0, units: 0, ours: 0, theirs: 0 },
};
const problems = [];
const problem = (...words) => problems.push(words.join(" "));

for (const run of theirs.runs) {
  const { name, folder: model } = models.find(({ name: one }) => one === run.model);
  const out = join(folder, `ours-${name}-${run.num_fewshot}`);
  const args = ["eval", model, "--tasks", run.tasks.join(","), "--num-fewshot", String(run.num_fewshot)];
  if (run.chat)
    args.push(
      "--apply-chat-template",
      "--system-instruction",
      run.system,
      ...(run.multiturn ? [] : ["--no-fewshot-as-multiturn"]),
    );
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, "bin/upcycle.js"), ...args, "--data", run.data, "--out", out, "--device", values.device, "--json"],
    { encoding: "utf8", maxBuffer: 1 << 28 },
  );
  if (status !== 0) throw new Error(`upcycle ${args.join(" ")}: ${stderr}`);
  const [{ results, files }] = JSON.parse(stdout).models;
  const label = `${name}, ${run.num_fewshot} shots`;
  for (const [task, expected] of Object.entries(run.results)) {
    const found = results[task];
    if (found === undefined) problem(label, task, "is missing");
    for (const [key, value] of Object.entries(expected)) {
      if (!key.includes(",")) continue;
      tally.metrics++;
      if (key.includes("perplexity")) comparePerplexity(run, task, key, found?.[key], value);
      if (!isEqual(key, found?.[key], value)) problem(label, task, key, `${found?.[key]} instead of ${value}`);
    }
  }
  for (const [task, expected] of Object.entries(run.samples)) {
    const path = files.samples.find((file) => file.includes(`samples_${task}_2`));
    const lines = readFileSync(path, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    if (lines.length !== expected.length) problem(label, task, `${lines.length} instead of ${expected.length} samples`);
    const ours = new Map(lines.map((line) => [`${line.doc_id} ${line.filter}`, line]));
    for (const sample of expected)
      compareSample(
        `${label} ${task} document ${sample.doc_id}`,
        { ...sample, exact: exact.get(`${name} ${run.num_fewshot} ${task} ${sample.doc_id}`) },
        ours,
      );
  }
}

function compareSample(label, sample, ours) {
  const line = ours.get(`${sample.doc_id} ${sample.filter}`);
  if (line === undefined) return problem(label, "is missing");
  const requests = Object.values(line.arguments);
  sample.contexts.forEach((context, i) => {
    tally.prompts++;
    if (requests[i].arg_0 !== context)
      problem(label, `prompt ${i}:`, JSON.stringify(requests[i].arg_0), JSON.stringify(context));
    const continuation = sample.continuations[i];
    if (continuation !== null && requests[i].arg_1 !== continuation) problem(label, `continuation ${i}`);
    compareAnswer(`${label} request ${i}`, sample.resps[i][0], line.resps[i][0], sample.exact?.[i]);
  });
  const hashes = [line.doc_hash, line.prompt_hash, line.target_hash];
  if (hashes.join() !== sample.hashes.join()) problem(label, "hashes", hashes.join(), sample.hashes.join());
}

/** The distance of neighbouring numbers of float32 at a value. */
function lastPlace(value) {
  return 2 ** (Math.floor(Math.log2(Math.abs(value))) - 23);
}

function compareAnswer(label, expected, found, truth) {
  if (typeof expected === "string") {
    tally.texts++;
    if (found !== expected) problem(label, JSON.stringify(found), "instead of", JSON.stringify(expected));
    return;
  }
  const [value, greedy] = Array.isArray(expected) ? expected : [expected, null];
  const [ours, oursGreedy] = Array.isArray(found) ? found : [found, null];
  const kind = greedy === null ? kinds.text : kinds.continuation;
  const difference = Math.abs(Number(ours) - value);
  kind.count++;
  kind.worst = Math.max(kind.worst, difference);
  const units = difference / lastPlace(value);
  kind.units = Math.max(kind.units, units);
  const [exactly] = Array.isArray(truth) ? truth : [truth];
  const [ownError, theirError] = [Math.abs(Number(ours) - exactly), Math.abs(value - exactly)];
  kind.ours = Math.max(kind.ours, ownError);
  kind.theirs = Math.max(kind.theirs, theirError);
  if (!(difference <= 1e-4 || (kind === kinds.text && units <= 2))) {
    kind.differ++;
    problem(label, `${ours} instead of ${value}, in float64 ${exactly}`);
  }
  if (greedy !== null && String(greedy) !== oursGreedy.toLowerCase()) problem(label, "greedy", oursGreedy);
}

const tasks = new Set(theirs.runs.flatMap(({ results }) => Object.keys(results)));
const [{ model: processor }] = cpus();
console.log(
  [
    `# upcycle eval beside the LM Evaluation Harness`,
    "",
    `${new Date().toISOString().slice(0, 10)}, ${processor}, Node ${process.versions.node}, ` +
      `lm-eval ${theirs.versions.lm_eval}, ` +
      `transformers ${theirs.versions.transformers}, PyTorch ${theirs.versions.torch}, both in float32, ` +
      `${values.device === "cuda" ? "on a GPU" : "on the CPU"}.`,
    "",
    "| what | compared | differ |",
    "| --- | --- | --- |",
    `| models (${models.map(({ name }) => name).join(", ")}) | ${models.length} | |`,
    `| tasks and groups, at 0 and 5 shots | ${tasks.size} | |`,
    `| prompts | ${tally.prompts} | ${problems.filter((text) => text.includes("prompt")).length} |`,
    ...Object.entries(kinds).map(
      ([kind, { count: number, differ, worst, units, ours, theirs: other }]) =>
        `| log-likelihoods of ${kind}s; largest difference ${worst.toExponential(1)}` +
        `${kind === "text" ? ` (${units.toFixed(1)} units in the last place of float32)` : ""}, from the harness in ` +
        `float64 ${ours.toExponential(1)} (its own in float32: ${other.toExponential(1)}) | ` +
        `${number} | ${differ} |`,
    ),
    `| generated texts | ${tally.texts} | ${problems.filter((text) => / request \d+ "/.test(text)).length} |`,
    "| metrics and standard errors, to the 4 decimals that are printed (perplexities to 5 digits) | " +
      `${tally.metrics} | ${problems.filter((text) => text.includes("instead of") && text.includes(",none")).length} |`,
    "",
    "Perplexities and their standard errors, by the 4 decimals that are printed:",
    "",
    "| models | compared | ours differ from the harness in float32 | ours from it in float64 | " +
      "its own in float32 from float64 | largest share off float64, ours | its own in float32 |",
    "| --- | --- | --- | --- | --- | --- | --- |",
    ...Object.entries(perplexities).map(
      ([kind, { count: number, differ, off64, theirs64, ours, theirs: other }]) =>
        `| of ${kind} weights | ${number} | ${differ} | ${off64} | ${theirs64} | ${ours.toExponential(1)} | ` +
        `${other.toExponential(1)} |`,
    ),
    ...(differing.length === 0
      ? []
      : [
          "",
          "Those of trained weights that differ:",
          "",
          "| model | metric | ours | harness in float32 | harness in float64 |",
          "| --- | --- | --- | --- | --- |",
          ...differing,
        ]),
    "",
  ].join("\n"),
);
for (const text of problems.slice(0, 40)) console.log(`- ${text.slice(0, 300)}`);
if (problems.length > 0) {
  console.log(`${problems.length} problems`);
  process.exitCode = 1;
}
