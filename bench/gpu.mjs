// Training on one GPU: node bench/gpu.mjs [--sizes dense135M,E8G1T2,...] [--shapes 16x512,64x512] [--steps 10]
// [--rounds 5] [--precision bf16] [--launches] [--torch graph,compile,eager] [--python python3]
// -> one JSON line for each size and shape: milliseconds of a step (median of so many rounds of so many steps),
// tokens/s, the share of the GPU's peak in bfloat16 that the model's FLOPs reach, memory, seconds until the first step
// was done.
// With --torch, rounds alternate with those of PyTorch on the same GPU (gpu_anchor.py), whose modes are named. A size
// may have a capacity: E8G1T2@1.25.
import { spawn } from "node:child_process";
import { performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { device } from "../dist/engine/cuda/device.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { median, model, sizes, weightOf } from "./gpu-model.mjs";
import { optimizer, startTokens } from "./start.mjs";

const { values: flags } = parseArgs({
  options: {
    sizes: { type: "string", default: "dense135M,E8G1T2,E8G8T8" },
    shapes: { type: "string", default: "16x512,64x512" },
    steps: { type: "string", default: "10" },
    rounds: { type: "string", default: "5" },
    torch: { type: "string", default: "" },
    python: { type: "string", default: "python3" },
    precision: { type: "string", default: "bf16" },
    launches: { type: "boolean", default: false },
  },
});

/** FLOP/s of an H100 or H200 in dense bfloat16. */
const PEAK = 989e12;

/** FLOPs of a token: 6 for each weight it passes, and causal attention forward and backward. */
function flopsPerToken({ vocab, hidden, layers, ffnDim, experts = 0, topK = 1 }, sequence) {
  const ffn = 3 * hidden * ffnDim * (experts === 0 ? 1 : topK);
  const weights = layers * (4 * hidden ** 2 + ffn + hidden * experts) + vocab * hidden;
  return 6 * weights + 6 * layers * sequence * hidden;
}

/** Launches by name: how many, milliseconds, and the milliseconds of their bytes and FLOPs at the GPU's limits. */
function launchTable(times) {
  const byName = new Map();
  for (const { name, ms, bytes, flops } of times) {
    const row = byName.get(name) ?? { name, count: 0, ms: 0, memoryMs: 0, computeMs: 0 };
    row.count++;
    row.ms += ms;
    row.memoryMs += bytes / 4.2e9;
    row.computeMs += flops / 790e9;
    byName.set(name, row);
  }
  const rounded = (row) =>
    Object.fromEntries(Object.entries(row).map(([k, v]) => [k, typeof v === "number" ? Number(v.toFixed(3)) : v]));
  return [...byName.values()].sort((a, b) => b.ms - a.ms).map(rounded);
}

/** PyTorch's step of a size in a process of its own, which waits to be asked. */
function startTorch(name, batch, sequence, mode) {
  const { vocab, hidden, layers, heads, ffnDim, experts = 0, topK = 0 } = sizes[name];
  const size = { V: vocab, d: hidden, L: layers, h: heads, f: ffnDim, E: experts, T: topK };
  const script = fileURLToPath(new URL("gpu_anchor.py", import.meta.url));
  const args = [script, JSON.stringify(size), String(batch), String(sequence), mode];
  const child = spawn(flags.python, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`gpu_anchor.py ${mode} ended`);
    return JSON.parse(value);
  };
  const times = [];
  return {
    mode,
    times,
    ready: next(),
    async round(steps) {
      child.stdin.write(`${steps}\n`);
      times.push((await next()).ms);
    },
    stop: () => void child.kill("SIGKILL"),
  };
}

/** Our step of a size, ready to run. */
async function openOurs(name, capacity, batch, sequence) {
  const started = performance.now();
  const spec = model(sizes[name]);
  /** @type {import("../dist/graph/programs/routing.js").RoutingSettings} */
  const routing = { balance: "model", jitter: false, sinkhorn: false, capacity };
  const shape = { batch, sequence, auxCoef: 0.01, zCoef: 0, ...(capacity === null ? {} : { routing }) };
  const program = trainProgram(spec, shape);
  const precision = /** @type {import("../dist/engine/cuda/lowering/options.js").Precision} */ (flags.precision);
  const backend = cudaBackend(0, { precision });
  const opened = await backend.openTrain(program, { threads: 1, accumulate: false });
  const runtime = /** @type {import("../dist/engine/cuda/train-runtime.js").CudaTrainRuntime} */ (opened);
  const openMs = performance.now() - started;
  let parameters = 0;
  for (const { key, shape: dims } of program.params) {
    const data = weightOf(key, dims);
    parameters += data.length;
    await runtime.write("weight", key, data);
  }
  /** @type {Omit<import("../dist/engine/runtime/runtime.js").StepSettings, "update">} */
  const settings = { ...optimizer, learningRate: 3e-4, decayOn: "matrices", clipNorm: 1 };
  const losses = [];
  let update = 0;
  const batches = [0, 1, 2, 3].map((index) => {
    const tokens = startTokens(spec.vocab, index, shape);
    return { ids: tokens.slice(0, -1), targets: tokens.slice(1) };
  });
  // As the training loop does it: a step is asked for while the one before it is under way.
  const run = async (steps) => {
    let asked = null;
    for (let i = 0; i < steps; i++) {
      const given = batches[update % batches.length];
      update++;
      const before = asked;
      asked = runtime.step([given], { ...settings, update });
      if (before !== null) losses.push((await before).loss);
    }
    losses.push((await asked).loss);
  };
  const first = performance.now();
  await run(1);
  const firstStepMs = performance.now() - first;
  return {
    runtime,
    losses,
    facts: {
      parameters,
      openMs: Math.round(openMs),
      firstStepMs: Math.round(firstStepMs),
    },
    async round(steps) {
      const from = performance.now();
      await run(steps);
      return (performance.now() - from) / steps;
    },
  };
}

async function measure(size, batch, sequence, others) {
  const [name, factor] = size.split("@");
  const capacity = factor === undefined ? null : { factor: Number(factor), by: "weight" };
  const [steps, rounds] = [Number(flags.steps), Number(flags.rounds)];
  const ours = await openOurs(name, capacity, batch, sequence);
  await ours.round(3);
  const anchors = await Promise.all(others.map(async (each) => ({ ...(await each.ready), ...each })));
  const times = [];
  for (let round = 0; round < rounds; round++) {
    times.push(await ours.round(steps));
    for (const anchor of anchors) await anchor.round(steps);
  }
  const ms = median(times);
  const speed = (own) => (batch * sequence * 1000) / own;
  const flops = flopsPerToken(sizes[name], sequence) * speed(ms);
  const torch = anchors.map(({ mode, warmSeconds, peakGigabytes, times: own }) => ({
    mode,
    ms: Number(median(own).toFixed(2)),
    tokensPerSecond: Math.round(speed(median(own))),
    peakGigabytes,
    warmSeconds,
  }));
  const gigabytes = Number(((await device(0)).takePeak() / 1e9).toFixed(2));
  const launches = flags.launches ? launchTable(await ours.runtime.profile()) : undefined;
  await ours.runtime.close();
  for (const anchor of anchors) anchor.stop();
  return {
    size,
    precision: flags.precision,
    batch,
    sequence,
    ms: Number(ms.toFixed(2)),
    times: times.map((each) => Number(each.toFixed(2))),
    tokensPerSecond: Math.round(speed(ms)),
    tflops: Number((flops / 1e12).toFixed(1)),
    mfu: Number((flops / PEAK).toFixed(3)),
    ...ours.facts,
    gigabytes,
    losses: [ours.losses[0], ours.losses.at(-1)],
    ...(torch.length === 0
      ? {}
      : { torch, ratio: Number((Math.min(...torch.map((each) => each.ms)) / ms).toFixed(3)) }),
    ...(launches === undefined ? {} : { launches }),
  };
}

const modes = flags.torch === "" ? [] : flags.torch.split(",");
const cases = flags.sizes.split(",").flatMap((size) =>
  flags.shapes.split(",").map((shape) => {
    const [batch, sequence] = shape.split("x").map(Number);
    return { size, batch, sequence };
  }),
);
// torch.compile takes tens of seconds: all of it is spent at once, and nothing is timed before it is over.
const torches = cases.map(({ size, batch, sequence }) =>
  modes.map((mode) => startTorch(size.split("@")[0], batch, sequence, mode)),
);
await Promise.allSettled(torches.flat().map(({ ready }) => ready));
for (const [i, { size, batch, sequence }] of cases.entries()) {
  try {
    console.log(JSON.stringify(await measure(size, batch, sequence, torches[i])));
  } catch (error) {
    console.log(JSON.stringify({ size, batch, sequence, error: error.line ?? String(error) }));
  }
  for (const other of torches[i]) other.stop();
}
process.exit(0);
