/**
 * Checks over a thousand steps that memory does not grow, and that losses are the same when a training is repeated and
 * when it is killed and resumed:
 *
 *   node bench/soak-train.mjs [--steps 1000] [--threads 1] [--kills 3] [--device cuda] [--write FILE]
 *
 * A tiny mixture of experts is trained three times with one seed, each time in processes of its own: twice without an
 * interruption, and once killed (SIGKILL) several times and resumed. The exit code is 1 if losses differ or memory
 * grows. With --device cuda the GPU trains in bfloat16, and its memory is watched, too.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "1000" },
    threads: { type: "string", default: "1" },
    kills: { type: "string", default: "3" },
    device: { type: "string", default: "cpu" },
    write: { type: "string" },
    child: { type: "string" },
  },
});
const [steps, threads, kills] = [values.steps, values.threads, values.kills].map(Number);

if (values.child !== undefined) await train(values.child);
else await soak();

/** One training, in this process; prints the step and the resident memory now and then. */
async function train(dir) {
  const backend = await backendOf(values.device);
  const { randomStream } = await import("../dist/base/random.js");
  const { freshTensor } = await import("../dist/train/init.js");
  const { trainRun } = await import("../dist/train/run.js");
  const { specs } = await import("./sizes.mjs");
  const small = specs.moe.layers[0];
  const attn = { ...specs.moe.attn, heads: 2, kvHeads: 1, headDim: 16, scale: 0.25 };
  /** @type {import("../dist/model/decoder/types.js").DecoderSpec} */
  const spec = {
    ...specs.moe,
    vocab: 128,
    hidden: 32,
    attn,
    layers: [0, 1].map(() => ({
      ...small,
      rope: { ...small.rope, rotary: 16 },
      ffn: { ...small.ffn, ffnDim: 32, experts: 4 },
    })),
  };
  const stream = randomStream(1, "soak");
  const text = (count, first) =>
    Int32Array.from({ length: count }, (_, i) => Math.floor(stream.uniformAt(first + i) ** 3 * 128));
  const events = trainRun({
    dir,
    spec,
    threads,
    seed: 5,
    carry: undefined,
    documentEnd: 0,
    backend,
    evaluationTokens: 512,
    identity: { soak: true },
    text: { train: text(20_000, 0), heldOut: text(1000, 20_000) },
    initial: (slot) => Promise.resolve(freshTensor(spec, slot, 5)),
    block: {
      steps,
      batch: 4,
      sequence: 32,
      accumulate: 2,
      lr: { peak: 3e-3, schedule: "cosine", warmup: 20, final: 0.1 },
      optimizer: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, clip: 1, method: "muon" },
      average: { decay: 0.99, evaluate: false },
      guard: { window: 50, deviations: 6, patience: 20 },
      auxLoss: 0.01,
      zLoss: 0.001,
      evalEvery: 100,
      saveEvery: 50,
    },
  });
  for await (const event of events) {
    if (event.type === "step" && event.step % 10 === 0)
      console.log(JSON.stringify({ step: event.step, rss: process.memoryUsage.rss(), gpu: await gpuBytes() }));
  }
}

async function backendOf(name) {
  if (name === "cuda") {
    const { cudaBackend } = await import("../dist/engine/cuda/backend.js");
    return cudaBackend(0, { precision: "bf16" });
  }
  const { onnxruntimeBackend } = await import("../dist/engine/onnxruntime/backend.js");
  return onnxruntimeBackend;
}

/** Bytes of the GPU's memory in use, by whomever; 0 where the CPU trains. */
async function gpuBytes() {
  if (values.device !== "cuda") return 0;
  const { device } = await import("../dist/engine/cuda/device.js");
  const gpu = await device(0);
  gpu.enter();
  const { free, total } = gpu.driver.memory();
  return total - free;
}

/** Runs a child to its end, or to `killAt` steps. */
function run(dir, killAt = Infinity) {
  const child = spawn(
    process.execPath,
    [
      fileURLToPath(import.meta.url),
      "--child",
      dir,
      "--steps",
      String(steps),
      "--threads",
      String(threads),
      "--device",
      values.device,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const samples = [];
  let rest = "";
  child.stdout.on("data", (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      samples.push(JSON.parse(line));
      if (samples.at(-1).step >= killAt) child.kill("SIGKILL");
    }
  });
  return new Promise((resolve, reject) => {
    child.on("close", (code, signal) =>
      code === 0 || signal === "SIGKILL"
        ? resolve({ samples, killed: signal === "SIGKILL" })
        : reject(new Error(`a training ended with ${code}`)),
    );
  });
}

/** What a run measured, each step once, without times. */
async function measured(dir) {
  const { readMetrics } = await import("../dist/train/records.js");
  const { steps: found, evals } = await readMetrics(dir);
  return JSON.stringify({ steps: found.map((step) => ({ ...step, ms: 0 })), evals });
}

async function soak() {
  const root = mkdtempSync(join(tmpdir(), "upcycle-soak-"));
  try {
    const [whole, again, broken] = ["whole", "again", "broken"].map((name) => join(root, name));
    const { samples } = await run(whole);
    await run(again);
    let done = 0;
    for (let kill = 1; kill <= kills; kill++) {
      const { killed } = await run(broken, Math.floor((steps * kill) / (kills + 1)) + 7 * kill);
      done += killed ? 1 : 0;
    }
    await run(broken);
    const weights = (dir) => readFileSync(join(dir, "last", "model.safetensors"));
    const result = {
      date: new Date().toISOString().slice(0, 10),
      cpu: cpus()[0].model,
      cores: cpus().length,
      device: values.device,
      node: process.version,
      threads,
      steps,
      kills: done,
      sameTwice: (await measured(whole)) === (await measured(again)) && weights(whole).equals(weights(again)),
      sameAfterKills: (await measured(whole)) === (await measured(broken)) && weights(whole).equals(weights(broken)),
      ...memory(samples),
    };
    console.log(JSON.stringify(result, null, 2));
    const grows = result.slope.grows || result.gpuBytes.last > result.gpuBytes.half;
    if (values.write !== undefined) writeFileSync(values.write, `${JSON.stringify(result, null, 2)}\n`);
    if (!result.sameTwice || !result.sameAfterKills || done < kills || grows) process.exitCode = 1;
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/**
 * Least-squares slope of resident memory over the second half of the steps, with its standard error; it grows if it is
 * above three of those and above a page a step.
 */
function memory(samples) {
  const late = samples.slice(samples.length >> 1);
  const mean = (pick) => late.reduce((sum, sample) => sum + pick(sample), 0) / late.length;
  const [x, y] = [mean(({ step }) => step), mean(({ rss }) => rss)];
  const spread = late.reduce((sum, { step }) => sum + (step - x) ** 2, 0);
  const bytesPerStep = late.reduce((sum, { step, rss }) => sum + (step - x) * (rss - y), 0) / spread;
  const residual = late.reduce((sum, { step, rss }) => sum + (rss - y - bytesPerStep * (step - x)) ** 2, 0);
  const error = Math.sqrt(residual / (late.length - 2) / spread);
  return {
    gpuBytes: { half: late[0].gpu, last: late.at(-1).gpu },
    rssBytes: { first: samples[0].rss, half: late[0].rss, last: late.at(-1).rss },
    slope: { bytesPerStep, standardError: error, grows: bytesPerStep > 3 * error && bytesPerStep > 4096 },
  };
}
