/**
 * Measures the lower bound of a training step's time, that of its matrix products alone:
 *
 *   node bench/gemm.mjs SIZE ROUNDS THREADS
 *
 * SIZE is a name that `measured` in `sizes.mjs` takes. The script runs the step's graph once with onnxruntime's
 * profiler, collects every matrix product that was executed with its shapes (the rows of each expert included), puts
 * the products into one ONNX graph without anything else, and times that graph in onnxruntime. It prints one JSON line.
 * The rest of a step's time is everything that is not a matrix product.
 */
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { Emitter } from "../dist/graph/onnx/emitter.js";
import { lower } from "../dist/graph/onnx/lower.js";
import { encodeModel } from "../dist/graph/onnx/proto.js";
import { trainProgram } from "../dist/graph/programs/programs.js";
import { timeSessions } from "./session-time.mjs";
import { measured } from "./sizes.mjs";
import { startTokens, startWeight } from "./start.mjs";

/** Different operands of one shape; as many inputs as products would cost time of their own. */
const BUFFERS = 16;
const LARGE = 2048;
const product = new Set(["MatMul", "FusedMatMul", "Gemm"]);

/**
 * The products of one run of the step as { a, b, transA, transB, result }, shapes as stored, that is before
 * transposition.
 */
async function productsOf(program, spec, shape, threads) {
  const folder = await mkdtemp(join(tmpdir(), "upcycle-gemm-"));
  try {
    const { bytes, inputs } = lower(program.graph);
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: ["cpu"],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: "sequential",
      graphOptimizationLevel: "disabled",
      enableMemPattern: false,
      enableCpuMemArena: true,
      logSeverityLevel: 3,
      enableProfiling: true,
      profileFilePrefix: join(folder, "step"),
    });
    const tokens = startTokens(spec.vocab, 0, shape);
    const ints = (data) =>
      new ort.Tensor(
        "int64",
        BigInt64Array.from(data, (value) => BigInt(value)),
        [data.length],
      );
    const weights = program.params.map(
      ({ key, shape: dims }) => new ort.Tensor("float32", startWeight(key, dims), dims),
    );
    const values = [ints(tokens.slice(0, -1)), ints(tokens.slice(1)), ...weights];
    await session.run(Object.fromEntries(inputs.map((name, i) => [name, values[i]])));
    session.endProfiling();
    await session.release();
    const [file] = await readdir(folder);
    const events = JSON.parse(await readFile(join(folder, file), "utf8"));
    return events
      .filter(({ name, args }) => name.endsWith("_kernel_time") && product.has(args?.op_name))
      .map(({ args }) => productOf(args));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Which operands are transposed follows from the shapes; where both ways fit, the speed is that of either. */
function productOf({ op_name: op, input_type_shape: operands, output_type_shape: [{ float: result }] }) {
  const [a, b] = operands.slice(0, 2).map(({ float }) => float);
  const fits = (transA, transB) => {
    const [m, k] = transA ? [a.at(-1), a.at(-2)] : [a.at(-2), a.at(-1)];
    const [k2, n] = transB ? [b.at(-1), b.at(-2)] : [b.at(-2), b.at(-1)];
    return m === result.at(-2) && k === k2 && n === result.at(-1);
  };
  const ways = [
    [false, false],
    [false, true],
    [true, false],
    [true, true],
  ];
  // A product that is written as a fused one has a transposition or a factor.
  const [transA, transB] = (op === "FusedMatMul" ? [...ways.slice(1), ways[0]] : ways).find(([x, y]) => fits(x, y));
  return { a, b, transA, transB, result };
}

function flopsOf({ a, transA, result }) {
  return 2 * a.at(transA ? -2 : -1) * result.reduce((x, y) => x * y, 1);
}

/** Median milliseconds of one run of a graph that holds these products. */
async function timeOf(products, rounds, threads) {
  const emitter = new Emitter();
  const operands = new Map();
  const used = new Map();
  const operand = (dims) => {
    const count = used.get(`${dims}`) ?? 0;
    used.set(`${dims}`, count + 1);
    const name = `v${dims.join("x")}_${count % BUFFERS}`;
    operands.set(name, dims);
    return name;
  };
  // Experts without tokens make empty products, which take no time worth counting.
  const names = products
    .filter(({ result, a }) => !result.includes(0) && !a.includes(0))
    .map(({ a, b, transA, transB }) => emitter.matmul(operand(a), operand(b), { transA, transB }));
  const inputs = [...operands].map(([name, dims]) => ({ name, type: /** @type {const} */ ("float"), shape: dims }));
  const output = { name: names.at(-1), type: /** @type {const} */ ("float"), shape: products.at(-1).result };
  const { bytes } = encodeModel({ nodes: emitter.nodes, initializers: [], inputs, outputs: [output] });
  const [time] = await timeSessions([{ bytes, inputs: Object.fromEntries(operands) }], { threads, rounds });
  return time;
}

const [, , size = "dense", rounds = "8", threads = "2"] = process.argv;
const { spec, shape } = measured(size);
const products = await productsOf(trainProgram(spec, shape), spec, shape, Number(threads));
const flops = products.reduce((sum, one) => sum + flopsOf(one), 0);
const { medianMs: gemmMs, minMs } = await timeOf(products, Number(rounds), Number(threads));
const large = [{ a: [LARGE, LARGE], b: [LARGE, LARGE], transA: false, transB: true, result: [LARGE, LARGE] }];
const largeMs = (await timeOf(large, Number(rounds), Number(threads))).minMs;
const { user, system } = process.cpuUsage();
console.log(
  JSON.stringify({
    engine: "gemm",
    size,
    products: products.length,
    flops,
    gemmMs,
    minMs,
    gflops: flops / gemmMs / 1e6,
    largeGflops: (2 * LARGE ** 3) / largeMs / 1e6,
    cpuMs: (user + system) / 1000,
  }),
);
