/**
 * Parts of a training step in more than one form, each alone in onnxruntime, and AdamW: what the choices of the lowering rest on.
 *   npm run build && node bench/parts.mjs [--threads 2] [--rounds 30] [--out FILE]
 * Milliseconds are medians. Writes results/DATE-parts.json.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, platform, release } from "node:os";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Emitter } from "../dist/onnx/emitter.js";
import { encodeModel } from "../dist/onnx/proto.js";
import { onnxruntimeVersion } from "../dist/ort/session.js";
import { TrainState } from "../dist/ort/state.js";
import { timeSession } from "./session-time.mjs";
import { optimizer } from "./start.mjs";

const { values: flags } = parseArgs({
  options: { threads: { type: "string", default: String(availableParallelism()) }, rounds: { type: "string", default: "30" }, out: { type: "string" } },
});
const [threads, rounds] = [Number(flags.threads), Number(flags.rounds)];
const load = loadavg()[0];
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const size = (dims) => dims.reduce((a, b) => a * b, 1);

/** Median milliseconds of a graph. `inputs`: shapes of floats, or integers; `build` gives the names of its outputs and the last one's shape. */
async function timeOf(inputs, build) {
  const emitter = new Emitter();
  const { name, shape } = build(emitter);
  const { bytes } = encodeModel({
    nodes: emitter.nodes, initializers: emitter.initializers, outputs: [{ name, type: "float", shape }],
    inputs: Object.entries(inputs).map(([key, of]) => ({ name: key, type: of instanceof BigInt64Array ? "int64" : "float", shape: of instanceof BigInt64Array ? [of.length] : of })),
  });
  return (await timeSession(bytes, inputs, { threads, rounds })).medianMs;
}

const TOKENS = 2048;
const HIDDEN = 256;
const results = {};

/** One product of a dense FFN, and how its two operands are stored. */
async function products() {
  const inner = 704;
  const flops = 2 * TOKENS * inner * HIDDEN;
  const forms = {
    "x wT": [[TOKENS, HIDDEN], [inner, HIDDEN], { transB: true }, [TOKENS, inner]],
    "dy w": [[TOKENS, inner], [inner, HIDDEN], {}, [TOKENS, HIDDEN]],
    "dyT x": [[TOKENS, inner], [TOKENS, HIDDEN], { transA: true }, [inner, HIDDEN]],
  };
  const out = {};
  for (const [form, [a, b, how, shape]] of Object.entries(forms)) {
    const ms = await timeOf({ a, b }, (e) => ({ name: e.matmul("a", "b", how), shape }));
    out[form] = { ms, gflops: flops / ms / 1e6 };
  }
  out["dyT x, transposed beforehand"] = { ms: await timeOf({ a: [TOKENS, inner], b: [TOKENS, HIDDEN] }, (e) => ({ name: e.matmul(e.op("Transpose", ["a"], { perm: [1, 0] }), "b"), shape: [inner, HIDDEN] })) };
  return out;
}

/** Gate and up of all experts: two products each, or one of twice the width, whose result must be cut for the gated unit. */
async function joined(experts, rows, inner) {
  const operands = Array.from({ length: experts }, (_, i) => i % 8);
  const inputs = Object.fromEntries(Array.from({ length: Math.min(8, experts) }, (_, i) => [[`x${i}`, [rows, HIDDEN]], [`g${i}`, [inner, HIDDEN]], [`u${i}`, [inner, HIDDEN]], [`gu${i}`, [2 * inner, HIDDEN]]]).flat());
  const of = (each, width = inner) => timeOf(inputs, (e) => ({ name: operands.map((i) => each(e, i)).at(-1), shape: [rows, width] }));
  const linear = (e, i, w) => e.matmul(`x${i}`, `${w}${i}`, { transB: true });
  return {
    two: await of((e, i) => (linear(e, i, "g"), linear(e, i, "u"))),
    one: await of((e, i) => linear(e, i, "gu"), 2 * inner),
    "one, cut": await of((e, i) => e.emit("Split", [linear(e, i, "gu"), e.ints([inner, inner])], { axis: 1 }, 2)[1]),
  };
}

/** Rows of all experts summed into their tokens. */
async function sums(experts, k) {
  const slots = TOKENS * k;
  const rows = slots / experts;
  const order = BigInt64Array.from({ length: slots }, (_, i) => BigInt((i * 7919) % slots));
  const token = BigInt64Array.from({ length: slots }, (_, i) => BigInt((i * 769) % TOKENS));
  const parts = Array.from({ length: experts }, (_, i) => `y${i}`);
  const inputs = { order, token, ...Object.fromEntries(parts.map((name) => [name, [rows, HIDDEN]])) };
  const gathered = (e, shape) => e.op("Gather", [e.op("Concat", parts, { axis: 0 }), e.reshape("order", shape)], { axis: 0 });
  const shape = [TOKENS, HIDDEN];
  return {
    "joined, gathered, ReduceSum": await timeOf(inputs, (e) => ({ name: e.sum(gathered(e, [TOKENS, k]), [1], false), shape })),
    "joined, gathered, times ones": await timeOf(inputs, (e) => {
      const all = e.reshape(gathered(e, [k, TOKENS]), [k, TOKENS * HIDDEN]);
      return { name: e.reshape(e.matmul(e.floats(new Float32Array(k).fill(1), [1, k]), all), shape), shape };
    }),
    "ScatterND for each expert": await timeOf(inputs, (e) => {
      const places = e.emit("Split", [e.reshape("token", [slots, 1]), e.ints(new Array(experts).fill(rows))], { axis: 0 }, experts);
      const zeros = e.op("Expand", [e.floats([0]), e.ints(shape)]);
      return { name: parts.reduce((sum, part, i) => e.op("ScatterND", [sum, places[i], part], { reduction: "add" }), zeros), shape };
    }),
  };
}

/** One thread, seven floats of traffic a parameter: reads weight, both moments, gradient; writes weight and moments. */
async function adamw() {
  const params = Array.from({ length: 112 }, (_, i) => ({ key: `p${i}`, shape: [704, 256] }));
  const state = new TrainState(params, { accumulate: false });
  for (const { key } of params) state.view("gradient", key).fill(1e-3);
  const count = params.reduce((sum, { shape }) => sum + size(shape), 0);
  const times = [];
  for (let update = 1; update <= 13; update++) {
    const start = performance.now();
    await state.update("gradient", 1, { ...optimizer, learningRate: 1e-3, decayOn: "all", clipNorm: null, update });
    times.push(performance.now() - start);
  }
  const ms = median(times.slice(3));
  return { parameters: count, ms, gigabytesPerSecond: (28 * count) / ms / 1e6 };
}

results.products = await products();
results.joined = { "8 experts of 704": await joined(8, 512, 704), "64 experts of 88": await joined(64, 256, 88) };
results.sums = { "8 experts, 2 a token": await sums(8, 2), "64 experts, 8 a token": await sums(64, 8) };
results.adamw = await adamw();
const began = new Date().toISOString();
const out = flags.out ?? fileURLToPath(new URL(`results/${began.slice(0, 10)}-parts.json`, import.meta.url));
mkdirSync(fileURLToPath(new URL("results", import.meta.url)), { recursive: true });
writeFileSync(out, `${JSON.stringify({
  date: began, hardware: { cpu: cpus()[0].model.trim(), cores: cpus().length, system: `${platform()} ${release()}`, loadBefore: load },
  versions: { node: process.versions.node, onnxruntime: onnxruntimeVersion }, config: { threads, rounds, tokens: TOKENS, hidden: HIDDEN }, results,
}, null, 1)}\n`);
console.log(JSON.stringify(results, null, 1));
console.log(`result: ${out}`);
