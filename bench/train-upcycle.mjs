// One measurement of the embedded engine: node bench/train-upcycle.mjs dense|moe|fine STEPS THREADS -> one JSON line.
import { randomStream } from "../dist/base/random.js";
import { onnxruntimeBackend } from "../dist/ort/backend.js";
import { trainProgram } from "../dist/step/programs.js";
import { shape, specs } from "./sizes.mjs";

const [, , size = "dense", steps = "8", threads = "2"] = process.argv;
const spec = specs[size];
const opened = performance.now();
const program = trainProgram(spec, shape);
const runtime = await onnxruntimeBackend.openTrain(program, { threads: Number(threads), accumulate: false });
const openMs = performance.now() - opened;
for (const { key, shape: dims } of program.params) {
  const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (dims.length === 1) data.fill(1);
  else randomStream(0, key).normals(data, 0, 0, key.endsWith("router") ? 0.1 : 0.04);
  await runtime.write("weight", key, data);
}
const tokens = shape.batch * shape.sequence;
const text = randomStream(0, "tokens");
const optimizer = { learningRate: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, decayOn: "all", clipNorm: null };
const times = [];
const losses = [];
for (let step = 0; step < Number(steps); step++) {
  const at = (i) => Math.floor(text.uniformAt((step % 20) * tokens + i) ** 2 * spec.vocab);
  const ids = Int32Array.from({ length: tokens }, (_, i) => at(i));
  const targets = Int32Array.from({ length: tokens }, (_, i) => at(i + 1));
  const start = performance.now();
  const { loss } = await runtime.step([{ ids, targets }], { ...optimizer, update: step + 1 });
  times.push(performance.now() - start);
  losses.push(loss);
}
const warm = times.slice(2).sort((a, b) => a - b);
const stepMs = warm[warm.length >> 1];
// Kilobytes on every platform, by Node's documentation of resourceUsage.
const peak = process.resourceUsage().maxRSS * 1024;
console.log(JSON.stringify({ engine: "upcycle", size, stepMs, minMs: warm[0], tokensPerSecond: (tokens / stepMs) * 1000, peakBytes: peak, openMs, losses }));
await runtime.close();
