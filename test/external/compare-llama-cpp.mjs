/**
 * `upcycle eval` of a model behind llama.cpp's own server beside the same model in `upcycle eval`: every log-likelihood
 * and every generated text. The server runs the model that comes along as GGUF in float32, keys and values too.
 *
 *   node test/external/compare-llama-cpp.mjs --python PYTHON [--count 12]
 *
 * PYTHON needs xllamacpp, gguf and numpy.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeEvaluationData } from "./evaluation-data.mjs";

const { values } = parseArgs({ options: { python: { type: "string" }, count: { type: "string", default: "12" } } });
if (values.python === undefined) throw new Error("name a Python with xllamacpp, gguf and numpy: --python PYTHON");
const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "llama-cpp-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
writeEvaluationData(join(folder, "data"), { count: Number(values.count) });
const model = join(root, "models/tiny");
const tasks = ["mmlu_sociology", "arc_easy", "hellaswag", "winogrande", "boolq", "lambada_openai", "triviaqa"];

const server = spawn(
  values.python,
  [join(root, "test/external/llama_cpp_server.py"), model, join(folder, "tiny.gguf")],
  { stdio: ["pipe", "pipe", "ignore"] },
);
process.on("exit", () => server.kill());
const [address] = await new Promise((resolve, reject) => {
  const lines = [];
  createInterface({ input: server.stdout }).on("line", (line) => {
    lines.push(line);
    if (line.startsWith("http")) resolve([line]);
  });
  server.on("exit", () => reject(new Error(`the server ended: ${lines.join("\n")}`)));
});
const versions = spawnSync(
  values.python,
  ["-c", "import importlib.metadata as m; print(m.version('xllamacpp'), m.version('gguf'))"],
  { encoding: "utf8" },
)
  .stdout.trim()
  .split(" ");

/** Samples of each task, by document. */
function samplesOf(asked, out, shots) {
  const args = ["eval", asked, "--tokenizer", model, "--tasks", tasks.join(","), "--num-fewshot", String(shots)];
  const rest = [
    "--data",
    join(folder, "data"),
    "--out",
    join(folder, out),
    "--bootstrap",
    "0",
    "--device",
    "cpu",
    "--json",
  ];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, "bin/upcycle.js"), ...args, ...rest, "--max-length", "512"],
    { encoding: "utf8", maxBuffer: 1 << 28 },
  );
  if (status !== 0) throw new Error(stderr);
  const [{ files }] = JSON.parse(stdout).models;
  return files.samples.flatMap((file) =>
    readFileSync(file, "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
      .map((line) => ({ key: `${file.replace(/.*samples_(.*)_2.*/, "$1")} ${line.doc_id}`, resps: line.resps })),
  );
}

const tally = { scores: 0, worst: 0, greedy: 0, texts: 0, otherTexts: 0, beyond: 0 };
for (const shots of [0, 2]) {
  const here = new Map(samplesOf(model, `here-${shots}`, shots).map(({ key, resps }) => [key, resps]));
  for (const { key, resps } of samplesOf(`${address}/v1`, `there-${shots}`, shots))
    for (const [i, [found]] of resps.entries()) {
      const [expected] = here.get(key)[i];
      if (typeof found === "string") {
        tally.texts++;
        if (found !== expected) tally.otherTexts++;
        continue;
      }
      const difference = Math.abs(Number(found[0]) - Number(expected[0]));
      tally.scores++;
      tally.worst = Math.max(tally.worst, difference);
      if (!(difference <= 1e-3)) tally.beyond++;
      if (found[1] !== expected[1]) tally.greedy++;
    }
}
console.log(
  `${new Date().toISOString().slice(0, 10)}, ${cpus()[0].model}, llama.cpp's server of xllamacpp ${versions[0]}, ` +
    `float32, ${tasks.length} tasks at 0 and 2 shots: ${tally.scores} log-likelihoods differ by at most ` +
    `${tally.worst.toExponential(1)} (${tally.beyond} by more than 1e-3), ${tally.greedy} in being the likeliest; ` +
    `of ${tally.texts} generated texts ${tally.otherTexts} differ`,
);
server.stdin.end();
process.exitCode = tally.beyond > 0 || tally.greedy > 0 || tally.otherTexts > 0 ? 1 : 0;
process.exit();
