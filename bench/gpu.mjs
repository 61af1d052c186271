// Training on one GPU: node bench/gpu.mjs [--sizes dense135M,E8G1T2,...] [--shapes 16x512,64x512] [--steps 10]
// [--precision bf16] [--launches]
// -> one JSON line for each size and shape: milliseconds of a step (median of three runs of so many steps), tokens/s,
// the share of the GPU's peak in bfloat16 that the model's FLOPs reach, memory, seconds until the first step was done.
// Sizes and how FLOPs are counted are those of ../shared/gpu-anchor/torch_anchor.py.
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { cudaBackend } from "../dist/engine/cuda/backend.js";
import { startedDriver } from "../dist/engine/cuda/device.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { plainAttention, plainRope } from "../dist/model/decoder/plain.js";
import { plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../dist/model/decoder/types.js";
import { optimizer, startTokens, startWeight } from "./start.mjs";

const { values: flags } = parseArgs({
  options: {
    sizes: { type: "string", default: "dense135M,E8G1T2,E8G8T8" },
    shapes: { type: "string", default: "16x512,64x512" },
    steps: { type: "string", default: "10" },
    precision: { type: "string", default: "bf16" },
    launches: { type: "boolean", default: false },
  },
});

/** FLOP/s of an H100 or H200 in dense bfloat16. */
const PEAK = 989e12;

function model({ vocab, hidden, layers, heads, ffnDim, experts = 0, topK = 1 }) {
  const ffn =
    experts === 0
      ? { kind: "dense", ffnDim, bias: false, activation: "silu", gated: true }
      : {
          kind: "moe",
          activation: "silu",
          ffnDim,
          experts,
          topK,
          router: softmaxRouter("topk-softmax"),
          ...plainExperts,
          shared: null,
        };
  return {
    family: experts === 0 ? "llama" : "mixtral",
    vocab,
    hidden,
    tiedHead: false,
    norm: rmsNorm(1e-5),
    ...plainBlocks,
    maxPositions: 4096,
    attn: plainAttention({ heads, kvHeads: heads, headDim: hidden / heads }),
    tokens: { bos: null, eos: [], pad: null },
    initStd: 0.02,
    auxLossCoef: 0.01,
    layers: Array.from({ length: layers }, () => ({ window: null, rope: plainRope(10000, hidden / heads), ffn })),
  };
}

const big = { vocab: 32768, hidden: 768, layers: 12, heads: 12 };
const small = { vocab: 4096, hidden: 256, layers: 8, heads: 4 };
const sizes = {
  dense135M: { ...big, ffnDim: 2048 },
  E8G1T2: { ...big, ffnDim: 2048, experts: 8, topK: 2 },
  E8G8T8: { ...big, ffnDim: 256, experts: 64, topK: 8 },
  dense956M: { vocab: 32768, hidden: 2048, layers: 16, heads: 16, ffnDim: 5632 },
  "dense8.5M": { ...small, ffnDim: 704 },
  "E8G1T2-39M": { ...small, ffnDim: 704, experts: 8, topK: 2 },
};

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

async function measure(name, batch, sequence, steps) {
  const started = performance.now();
  const spec = model(sizes[name]);
  const shape = { batch, sequence, auxCoef: 0.01, zCoef: 0 };
  const program = trainProgram(spec, shape);
  const driver = await startedDriver();
  const runtime = await cudaBackend(0, { precision: flags.precision }).openTrain(program, {
    threads: 1,
    accumulate: false,
  });
  const openMs = performance.now() - started;
  let parameters = 0;
  for (const { key, shape: dims } of program.params) {
    const data = startWeight(key, dims);
    parameters += data.length;
    await runtime.write("weight", key, data);
  }
  const settings = { ...optimizer, learningRate: 3e-4, decayOn: "matrices", clipNorm: 1 };
  const losses = [];
  let update = 0;
  const batches = [0, 1, 2, 3].map((index) => {
    const tokens = startTokens(spec.vocab, index, shape);
    return { ids: tokens.slice(0, -1), targets: tokens.slice(1) };
  });
  // As the training loop does it: a step is asked for while the one before it is under way.
  let asked = null;
  const step = async () => {
    const given = batches[update % batches.length];
    update++;
    const before = asked;
    asked = runtime.step([given], { ...settings, update });
    if (before !== null) losses.push((await before).loss);
  };
  const settle = async () => {
    losses.push((await asked).loss);
    asked = null;
  };
  const first = performance.now();
  await step();
  await settle();
  const firstMs = performance.now() - first;
  for (let i = 0; i < 2; i++) await step();
  await settle();
  const times = [];
  for (let run = 0; run < 3; run++) {
    const from = performance.now();
    for (let i = 0; i < steps; i++) await step();
    await settle();
    times.push((performance.now() - from) / steps);
  }
  const ms = times.sort((a, b) => a - b)[1];
  const tokensPerSecond = (batch * sequence * 1000) / ms;
  const flops = flopsPerToken(sizes[name], sequence) * tokensPerSecond;
  const launches = flags.launches ? launchTable(await runtime.profile()) : undefined;
  const { free, total } = driver.memory();
  await runtime.close();
  return {
    size: name,
    precision: flags.precision,
    parameters,
    batch,
    sequence,
    ms: Number(ms.toFixed(2)),
    tokensPerSecond: Math.round(tokensPerSecond),
    tflops: Number((flops / 1e12).toFixed(1)),
    mfu: Number((flops / PEAK).toFixed(3)),
    gigabytes: Number(((total - free) / 1e9).toFixed(2)),
    openMs: Math.round(openMs),
    firstStepMs: Math.round(firstMs),
    losses: [losses[0], losses.at(-1)],
    ...(launches === undefined ? {} : { launches }),
  };
}

for (const name of flags.sizes.split(","))
  for (const shape of flags.shapes.split(",")) {
    const [batch, sequence] = shape.split("x").map(Number);
    try {
      console.log(JSON.stringify(await measure(name, batch, sequence, Number(flags.steps))));
    } catch (error) {
      console.log(JSON.stringify({ size: name, shape, error: error.line ?? String(error) }));
    }
  }
