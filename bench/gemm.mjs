/**
 * The bound of a training step: node bench/gemm.mjs dense|moe|fine ROUNDS THREADS -> one JSON line.
 *
 * Takes every matrix product of the step's graph (forward, gradient of the input, gradient of the weight, attention, head) with its
 * shape and transpositions, puts them into one ONNX graph without anything else, and runs that in onnxruntime. Rows are
 * shared out evenly among experts. What the step takes beyond this time is everything that is no matrix product.
 */
import { performance } from "node:perf_hooks";
import * as ort from "onnxruntime-node";
import { Emitter } from "../dist/onnx/emitter.js";
import { encodeModel } from "../dist/onnx/proto.js";
import { trainProgram } from "../dist/step/programs.js";
import { shape, specs } from "./sizes.mjs";

/** Different operands of one shape in a segmented product; as many inputs as experts would cost time of their own. */
const SEGMENT_BUFFERS = 16;
const LARGE = 2048;

/**
 * Products of one node as { a, b, transA, transB }; an operand is { id, dims }: equal ids are equal tensors.
 * `dims` are as stored, that is before transposition.
 */
function productsOf(node, shapeOf) {
  const value = (id) => ({ id: `v${id}`, dims: shapeOf(id) });
  const product = (a, b, transA = false, transB = false) => ({ a, b, transA, transB });
  switch (node.prim) {
    case "matmul":
      return [product(value(node.in[0]), value(node.in[1]), node.attrs.transA, node.attrs.transB)];
    case "groupedMatmul": {
      const [x, , ...weights] = node.in;
      const [rows, inner] = shapeOf(x);
      return weights.map((weight, e) => product(segment(e, [rows / weights.length, inner]), value(weight), false, node.attrs.transB));
    }
    case "groupedMatmulGradW": {
      const [x, dy] = node.in.map(shapeOf);
      const rows = x[0] / node.out.length;
      return node.out.map((_, e) => product(segment(e, [rows, dy[1]]), segment(e + 1, [rows, x[1]]), true));
    }
    case "attention":
    case "attentionGrad": {
      const { batch, sequence, heads, kvHeads, headDim } = node.attrs;
      const group = heads / kvHeads;
      const name = `${node.prim}${node.in.join()}`;
      const part = (id, ...dims) => ({ id: `${name}${id}`, dims: [batch, kvHeads, ...dims] });
      const [q, out] = ["q", "out"].map((id) => part(id, group * sequence, headDim));
      const [k, v] = ["k", "v"].map((id) => part(id, sequence, headDim));
      const [p, dp] = ["p", "dp"].map((id) => part(id, group * sequence, sequence));
      if (node.prim === "attention") return [product(q, k, false, true), product(p, v)];
      return [product(out, v, false, true), product(dp, k), product(dp, q, true), product(p, out, true)];
    }
    case "headCrossEntropy":
      return [product(value(node.in[0]), value(node.in[1]), false, true)];
    case "headCrossEntropyGrad": {
      const [x, head] = node.in;
      const dlogits = { id: `dlogits${x}`, dims: [shapeOf(x)[0], shapeOf(head)[0]] };
      return [product(dlogits, value(head)), product(dlogits, value(x), true)];
    }
    default:
      return [];
  }
}

function segment(expert, dims) {
  return { id: `s${expert % SEGMENT_BUFFERS}x${dims}`, dims };
}

function resultDims({ a, b, transA, transB }) {
  const rows = a.dims.at(transA ? -1 : -2);
  const columns = b.dims.at(transB ? -2 : -1);
  return [...a.dims.slice(0, -2), rows, columns];
}

function flopsOf(product) {
  const inner = product.a.dims.at(product.transA ? -2 : -1);
  return 2 * inner * resultDims(product).reduce((x, y) => x * y, 1);
}

/** Median milliseconds of one run of a graph that holds these products. */
async function timeOf(products, rounds, threads) {
  const emitter = new Emitter();
  const operands = new Map(products.flatMap(({ a, b }) => [a, b]).map(({ id, dims }) => [id, dims]));
  const names = products.map(({ a, b, transA, transB }) => emitter.matmul(a.id, b.id, { transA, transB }));
  const inputs = [...operands].map(([name, dims]) => ({ name, type: "float", shape: dims }));
  const output = { name: names.at(-1), type: "float", shape: resultDims(products.at(-1)) };
  const bytes = encodeModel({ nodes: emitter.nodes, initializers: [], inputs, outputs: [output] });
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: "sequential",
    // Optimization would drop every product but the last, because nothing uses them.
    graphOptimizationLevel: "disabled", enableMemPattern: false, enableCpuMemArena: true, logSeverityLevel: 3,
  });
  const feeds = {};
  for (const { name, shape: dims } of inputs) {
    const data = Float32Array.from({ length: dims.reduce((x, y) => x * y, 1) }, (_, i) => ((i * 7919) % 2003) / 1001 - 1);
    feeds[name] = new ort.Tensor("float32", data, dims);
  }
  const times = [];
  for (let round = 0; round < rounds + 2; round++) {
    const start = performance.now();
    await session.run(feeds);
    times.push(performance.now() - start);
  }
  await session.release();
  const warm = times.slice(2).sort((x, y) => x - y);
  return { medianMs: warm[warm.length >> 1], minMs: warm[0] };
}

const [, , size = "dense", rounds = "8", threads = "2"] = process.argv;
const { graph } = trainProgram(specs[size], shape);
const products = graph.nodes.flatMap((node) => productsOf(node, (id) => graph.values[id].shape));
const flops = products.reduce((sum, product) => sum + flopsOf(product), 0);
const { medianMs: gemmMs, minMs } = await timeOf(products, Number(rounds), Number(threads));
const square = (id) => ({ id, dims: [LARGE, LARGE] });
const large = [{ a: square("a"), b: square("b"), transA: false, transB: true }];
const largeMs = (await timeOf(large, Number(rounds), Number(threads))).minMs;
const { user, system } = process.cpuUsage();
console.log(JSON.stringify({
  engine: "gemm", size, products: products.length, flops, gemmMs, minMs, gflops: flops / gemmMs / 1e6,
  largeGflops: (2 * LARGE ** 3) / largeMs / 1e6, cpuMs: (user + system) / 1000,
}));
