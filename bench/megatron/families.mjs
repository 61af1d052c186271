// families.mjs MEGATRON OUT [--only PATTERN] [--python PYTHON] [--result FILE]: every small model of test/golden that
// Megatron-Core can hold, exported by `upcycle export`'s code, loaded by Megatron-LM itself on a processor (cpu/) with
// the arguments of `upcycle launch`, and the loss of its first batch in float32 beside ours. Needs PyTorch with the
// packages triton and pybind11, and no GPU.
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseLaunchConfig } from "../../dist/base/schemas/index.js";
import { launchArguments } from "../../dist/cluster/plan/arguments.js";
import { launchLayout } from "../../dist/cluster/plan/layout.js";
import { gpuNamed, hardwareTable } from "../../dist/cli/plan.js";
import { onnxruntimeBackend } from "../../dist/engine/onnxruntime/backend.js";
import { openModel } from "../../dist/evals/model.js";
import { specFromConfig } from "../../dist/model/decoder/config.js";
import { megatronObstacles } from "../../dist/model/decoder/megatron.js";
import { resultOf } from "../../dist/base/events.js";
import { makeModel } from "../../dist/surgery/convert/make.js";
import { exporting } from "../../dist/surgery/convert/reform.js";
import { nameRelease, releaseFolder } from "../../dist/surgery/convert/release.js";
import { toolVersion } from "../../dist/surgery/convert/version.js";
import { mockArguments } from "./mock.mjs";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: "string", default: "" }, python: { type: "string" }, result: { type: "string" } },
});
const [megatron, out] = positionals.map((path) => resolve(path));
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const golden = here("../../test/golden");
const sequence = 32;
const within = 1e-5;
const gpu = gpuNamed(await hardwareTable(undefined), "h200-sxm");

/** What local modules ask for. Latent attention is refused without Transformer Engine; see cpu/sitecustomize.py. */
const local = {
  "--transformer-impl": "local",
  "--no-rope-fusion": true,
  "--no-masked-softmax-fusion": true,
  "--no-persist-layer-norm": true,
  "--no-gradient-accumulation-fusion": true,
  "--moe-grouped-gemm": false,
};

function argumentsOf(name, spec) {
  const text = JSON.stringify({
    out: "run",
    checkpoint: "none",
    data: ["none"],
    tokenizer: "none",
    megatron: ".",
    transformerEngine: spec.attn.latent !== null || spec.norm.weight === "one-plus",
    precision: "fp32",
    training: { batch: 2, accumulate: 1, sequence, steps: 12, lr: { peak: 1e-4, warmup: 2 }, auxLoss: 0 },
    hardware: { gpu: "h200-sxm", gpus: 1 },
    layout: { microBatch: 2 },
    arguments: {
      ...mockArguments(spec.vocab),
      "--save-interval": false,
      "--recompute-granularity": false,
      ...local,
      "--skip-train": true,
      "--finetune": true,
    },
  });
  const config = parseLaunchConfig(text, name);
  const layout = launchLayout(config, spec, gpu);
  return launchArguments({ config, spec, layout }).flatMap(({ flag, values }) => [flag, ...values]);
}

async function lossHere(folder, { ids, labels }) {
  const model = await openModel(folder, onnxruntimeBackend, 1);
  const shape = { batch: ids.length, sequence: ids[0].length };
  const loss = await model.loss(Int32Array.from(ids.flat()), Int32Array.from(labels.flat()), shape);
  await model.close();
  return loss;
}

const names = ["dense", "moe"].flatMap((kind) => readdirSync(join(golden, kind)).map((name) => `${kind}/${name}`));
const rows = [];
mkdirSync(out, { recursive: true });
const began = new Date();
for (const name of names.filter((one) => new RegExp(flags.only).test(one))) {
  const spec = specFromConfig(JSON.parse(readFileSync(join(golden, name, "config.json"), "utf8")), name);
  if (megatronObstacles(spec).length > 0) continue;
  const own = join(out, name.replace("/", "-"));
  rmSync(own, { recursive: true, force: true });
  await resultOf(makeModel(exporting({ source: join(golden, name) }), { out: releaseFolder(own) }));
  await nameRelease(own);
  const row = { model: name };
  rows.push(row);
  try {
    const words = [...argumentsOf(name, spec), "--load", own, "--distributed-backend", "gloo"];
    const environment = {
      ...process.env,
      PYTHONPATH: [here("cpu"), process.env.PYTHONPATH].filter(Boolean).join(":"),
      MODEL_FILE: here("bare.sh"),
      ...(flags.python === undefined ? {} : { PATH: `${resolve(flags.python, "..")}:${process.env.PATH}` }),
    };
    const start = performance.now();
    const command = [here("run.sh"), megatron, own, "1", ...words.map(String)];
    const { status, stdout, stderr } = spawnSync("bash", command, { env: environment, encoding: "utf8" });
    row.seconds = Math.round((performance.now() - start) / 100) / 10;
    if (status !== 0) throw new Error(`code ${status}: ${(stdout + stderr).trim().slice(-600)}`);
    const record = JSON.parse(readFileSync(`${own}.json`, "utf8"));
    row.megatron = record.loss;
    row.upcycle = await lossHere(own, record);
    row.difference = Math.abs(row.upcycle - row.megatron);
    row.problems = readFileSync(`${own}.log`, "utf8").match(/load_return.*|will start from random.*/g) ?? [];
    row.same = row.difference <= within && row.problems.length === 0;
  } catch (error) {
    row.same = false;
    row.error = String(error.message ?? error);
  }
  console.log(JSON.stringify(row));
}
const result = {
  date: began.toISOString(),
  command: "node bench/megatron/families.mjs MEGATRON OUT",
  versions: { upcycle: toolVersion, node: process.versions.node, megatron: "d98e8a64 (core 0.20.0)" },
  hardware: { cpu: cpus()[0].model.trim(), cores: cpus().length },
  within,
  rows,
};
if (flags.result !== undefined) writeFileSync(flags.result, `${JSON.stringify(result, null, 1)}\n`);
if (rows.some(({ same }) => !same)) process.exitCode = 1;
