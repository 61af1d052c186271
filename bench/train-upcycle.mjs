/**
 * Makes one measurement of the embedded engine for `train.mjs`, and prints it as one JSON line:
 *
 *   node bench/train-upcycle.mjs SIZE STEPS THREADS [LEARNING_RATE]
 */
import { performance } from "node:perf_hooks";
import { onnxruntimeBackend } from "../dist/engine/onnxruntime/backend.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { measured } from "./sizes.mjs";
import { optimizer, startTokens, startWeight } from "./start.mjs";

const [, , size = "dense", steps = "8", threads = "2", learningRate = "1e-3"] = process.argv;
const { spec, shape } = measured(size);
const opened = performance.now();
const program = trainProgram(spec, shape);
const runtime = await onnxruntimeBackend.openTrain(program, { threads: Number(threads), accumulate: false });
const openMs = performance.now() - opened;
let parameters = 0;
for (const { key, shape: dims } of program.params) {
  const data = startWeight(key, dims);
  parameters += data.length;
  await runtime.write("weight", key, data);
}
/** @type {Omit<import("../dist/engine/runtime/runtime.js").StepSettings, "update">} */
const settings = { ...optimizer, learningRate: Number(learningRate), decayOn: "all", clipNorm: null };
const times = [];
const losses = [];
for (let step = 0; step < Number(steps); step++) {
  const tokens = startTokens(spec.vocab, step, shape);
  const batch = { ids: tokens.slice(0, -1), targets: tokens.slice(1) };
  const start = performance.now();
  const { loss } = await runtime.step([batch], { ...settings, update: step + 1 });
  times.push(performance.now() - start);
  losses.push(loss);
}
const warm = times.slice(2).sort((a, b) => a - b);
const stepMs = warm[warm.length >> 1];
const tokensPerSecond = ((shape.batch * shape.sequence) / stepMs) * 1000;
// Kilobytes on every platform, by Node's documentation of resourceUsage.
const peakBytes = process.resourceUsage().maxRSS * 1024;
const { user, system } = process.cpuUsage();
const cpuMs = (user + system) / 1000;
console.log(
  JSON.stringify({
    engine: "upcycle",
    size,
    parameters,
    stepMs,
    minMs: warm[0],
    tokensPerSecond,
    peakBytes,
    cpuMs,
    openMs,
    losses,
  }),
);
await runtime.close();
