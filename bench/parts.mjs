/**
 * Times parts of a training step, each in several forms and alone in onnxruntime, and AdamW. The lowering uses the form
 * that is fastest here.
 *
 *   npm run build && node bench/parts.mjs [--threads 2] [--rounds 30] [--out FILE]
 *
 * Milliseconds are medians. The benchmark writes bench/results/DATE-parts.json.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, platform, release } from "node:os";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Emitter } from "../dist/graph/onnx/emitter.js";
import { encodeModel } from "../dist/graph/onnx/proto.js";
import { onnxruntimeVersion } from "../dist/engine/onnxruntime/session.js";
import { TrainState } from "../dist/engine/onnxruntime/state.js";
import { timeSessions } from "./session-time.mjs";
import { optimizer } from "./start.mjs";

const { values: flags } = parseArgs({
  options: {
    threads: { type: "string", default: String(availableParallelism()) },
    rounds: { type: "string", default: "30" },
    out: { type: "string" },
  },
});
const [threads, rounds] = [Number(flags.threads), Number(flags.rounds)];
const load = loadavg()[0];
const median = (times) => times.sort((a, b) => a - b)[times.length >> 1];
const size = (dims) => dims.reduce((a, b) => a * b, 1);

/**
 * A graph and what goes in. `inputs`: shapes of floats, or integers; `build` gives the name and shape of its output.
 */
function form(inputs, build) {
  const emitter = new Emitter();
  const { name, shape } = build(emitter);
  const { bytes } = encodeModel({
    nodes: emitter.nodes,
    initializers: emitter.initializers,
    outputs: [{ name, type: "float", shape }],
    inputs: Object.entries(inputs).map(([key, of]) => ({
      name: key,
      type: of instanceof BigInt64Array ? "int64" : "float",
      shape: of instanceof BigInt64Array ? [of.length] : of,
    })),
  });
  return { bytes, inputs };
}

/** Median milliseconds of each form by name, measured in turns. */
async function inTurns(forms) {
  const times = await timeSessions(Object.values(forms), { threads, rounds });
  return Object.fromEntries(Object.keys(forms).map((name, i) => [name, times[i].medianMs]));
}

const TOKENS = 2048;
const HIDDEN = 256;
const results = {};

const turn = (e, name) => e.op("Transpose", [name], { perm: [1, 0] });

/** One product of a dense FFN, and how its two operands are stored: milliseconds and GFLOP/s. */
async function products(ffnDim) {
  const times = await inTurns({
    "x wT": form({ a: [TOKENS, HIDDEN], b: [ffnDim, HIDDEN] }, (e) => ({
      name: e.matmul("a", "b", { transB: true }),
      shape: [TOKENS, ffnDim],
    })),
    "dy w": form({ a: [TOKENS, ffnDim], b: [ffnDim, HIDDEN] }, (e) => ({
      name: e.matmul("a", "b"),
      shape: [TOKENS, HIDDEN],
    })),
    "dyT x": form({ a: [TOKENS, ffnDim], b: [TOKENS, HIDDEN] }, (e) => ({
      name: e.matmul("a", "b", { transA: true }),
      shape: [ffnDim, HIDDEN],
    })),
  });
  const flops = 2 * TOKENS * ffnDim * HIDDEN;
  return Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, { ms, gflops: flops / ms / 1e6 }]));
}

/**
 * Gradients of gate and up from one input, over ever more rows: with transposed factors, and with the input transposed
 * beforehand and the results turned.
 */
async function tall(ffnDim) {
  const shape = [ffnDim, HIDDEN];
  const out = {};
  for (const rows of [256, 512, 1024, 2048, 4096]) {
    const inputs = { x: [rows, HIDDEN], dgate: [rows, ffnDim], dup: [rows, ffnDim] };
    const both = (e, product) => ({ name: e.op("Sub", [product("dgate"), product("dup")]), shape });
    out[`${rows} rows`] = await inTurns({
      "dyT x": form(inputs, (e) => both(e, (dy) => e.matmul(dy, "x", { transA: true }))),
      "transposed beforehand": form(inputs, (e) => {
        const x = turn(e, "x");
        return both(e, (dy) => turn(e, e.matmul(x, dy)));
      }),
    });
  }
  return out;
}

/**
 * Gate and up of all experts: two products each, or one of twice the width, whose result must be cut for the gated
 * unit.
 */
async function joined(experts, rows, ffnDim) {
  const operands = Array.from({ length: experts }, (_, i) => i % 8);
  const inputs = Object.fromEntries(
    Array.from({ length: Math.min(8, experts) }, (_, i) => [
      [`x${i}`, [rows, HIDDEN]],
      [`g${i}`, [ffnDim, HIDDEN]],
      [`u${i}`, [ffnDim, HIDDEN]],
      [`gu${i}`, [2 * ffnDim, HIDDEN]],
    ]).flat(),
  );
  const of = (each, width = ffnDim) =>
    form(inputs, (e) => ({ name: operands.map((i) => each(e, i)).at(-1), shape: [rows, width] }));
  const linear = (e, i, w) => e.matmul(`x${i}`, `${w}${i}`, { transB: true });
  return inTurns({
    two: of((e, i) => (linear(e, i, "g"), linear(e, i, "u"))),
    one: of((e, i) => linear(e, i, "gu"), 2 * ffnDim),
    "one, cut": of((e, i) => e.emit("Split", [linear(e, i, "gu"), e.ints([ffnDim, ffnDim])], { axis: 1 }, 2)[1]),
  });
}

/** Rows of all experts summed into their tokens. */
async function sums(experts, k) {
  const slots = TOKENS * k;
  const rows = slots / experts;
  const order = BigInt64Array.from({ length: slots }, (_, i) => BigInt((i * 7919) % slots));
  const token = BigInt64Array.from({ length: slots }, (_, i) => BigInt((i * 769) % TOKENS));
  const parts = Array.from({ length: experts }, (_, i) => `y${i}`);
  const inputs = { order, token, ...Object.fromEntries(parts.map((name) => [name, [rows, HIDDEN]])) };
  const gathered = (e, shape) =>
    e.op("Gather", [e.op("Concat", parts, { axis: 0 }), e.reshape("order", shape)], { axis: 0 });
  const shape = [TOKENS, HIDDEN];
  return inTurns({
    "joined, gathered, ReduceSum": form(inputs, (e) => ({ name: e.sum(gathered(e, [TOKENS, k]), [1], false), shape })),
    "joined, gathered, times ones": form(inputs, (e) => {
      const all = e.reshape(gathered(e, [k, TOKENS]), [k, TOKENS * HIDDEN]);
      return { name: e.reshape(e.matmul(e.floats(new Float32Array(k).fill(1), [1, k]), all), shape), shape };
    }),
    "ScatterND for each expert": form(inputs, (e) => {
      const places = e.emit(
        "Split",
        [e.reshape("token", [slots, 1]), e.ints(new Array(experts).fill(rows))],
        { axis: 0 },
        experts,
      );
      const zeros = e.op("Expand", [e.floats([0]), e.ints(shape)]);
      return {
        name: parts.reduce((sum, part, i) => e.op("ScatterND", [sum, places[i], part], { reduction: "add" }), zeros),
        shape,
      };
    }),
  });
}

/**
 * The gradients of an RMS norm: its sums as reductions, and as products of dy x with the weight and with the column of
 * 1/rms.
 */
async function rmsNormGrad() {
  const inputs = { x: [TOKENS, HIDDEN], dy: [TOKENS, HIDDEN], w: [HIDDEN], inverse: [TOKENS, 1] };
  const shape = [1, HIDDEN];
  const corner = (e, dx) => e.op("Slice", [dx, e.ints([0, 0]), e.ints([1, HIDDEN])]);
  return inTurns({
    reductions: form(inputs, (e) => {
      const hat = e.op("Mul", ["x", "inverse"]);
      const dhat = e.op("Mul", ["dy", "w"]);
      const mean = e.op("ReduceMean", [e.op("Mul", [dhat, hat]), e.ints([1])], { keepdims: 1 });
      const dx = e.op("Mul", [e.op("Sub", [dhat, e.op("Mul", [hat, mean])]), "inverse"]);
      return { name: e.op("Add", [e.sum(e.op("Mul", ["dy", hat]), [0], true), corner(e, dx)]), shape };
    }),
    products: form(inputs, (e) => {
      const p = e.op("Mul", ["dy", "x"]);
      const dot = e.op("MatMul", [p, e.reshape(e.op("Mul", ["w", e.floats([1 / HIDDEN])]), [HIDDEN, 1])]);
      const along = e.op("Mul", [e.op("Mul", [e.op("Mul", ["inverse", "inverse"]), "inverse"]), dot]);
      const dx = e.op("Sub", [e.op("Mul", [e.op("Mul", ["dy", "w"]), "inverse"]), e.op("Mul", ["x", along])]);
      return { name: e.op("Add", [e.op("MatMul", [e.reshape("inverse", [1, TOKENS]), p]), corner(e, dx)]), shape };
    }),
  });
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

results.products = await products(704);
results.tall = { "704 wide": await tall(704), "256 wide": await tall(256) };
results.rmsNormGrad = await rmsNormGrad();
results.joined = { "8 experts of 704": await joined(8, 512, 704), "64 experts of 88": await joined(64, 256, 88) };
results.sums = { "8 experts, 2 a token": await sums(8, 2), "64 experts, 8 a token": await sums(64, 8) };
results.adamw = await adamw();
const began = new Date().toISOString();
const out = flags.out ?? fileURLToPath(new URL(`results/${began.slice(0, 10)}-parts.json`, import.meta.url));
mkdirSync(fileURLToPath(new URL("results", import.meta.url)), { recursive: true });
writeFileSync(
  out,
  `${JSON.stringify(
    {
      date: began,
      hardware: {
        cpu: cpus()[0].model.trim(),
        cores: cpus().length,
        system: `${platform()} ${release()}`,
        loadBefore: load,
      },
      versions: { node: process.versions.node, onnxruntime: onnxruntimeVersion },
      config: { threads, rounds, tokens: TOKENS, hidden: HIDDEN },
      results,
    },
    null,
    1,
  )}\n`,
);
console.log(JSON.stringify(results, null, 1));
console.log(`result: ${out}`);
